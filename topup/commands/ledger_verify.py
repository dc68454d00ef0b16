"""Does the journal still hold what was written? Each entry is held against its hash, and against the top-ups."""

from topup.commands.answer import Answer
from topup.commands.start import load
from topup.domain.errors import Exit, SettingsError
from topup.ledger.journal import Audit
from topup.ledger.store import SqliteStore


def answer(head: str | None) -> Answer:
    """Read the whole journal, and look in it for the entry with the hash `head`."""
    if head is not None and (len(head) != 64 or not set(head.lower()) <= set("0123456789abcdef")):
        raise SettingsError(f"--head {head[:80]!r} is no hash of a ledger", remedy="give the 64 hex digits as printed")
    settings = load()
    sought = bytes.fromhex(head) if head is not None else None
    audit = SqliteStore.open_reader(settings.state_dir).audit(sought)
    fine = audit.wrong is None and (sought is None or audit.since is not None) and not audit.gaps
    document = {
        "schema": 1,
        "verified": fine,
        "entries": audit.count,
        "ledger_head": audit.head.hex() or None,
        "wrong_entry": audit.wrong[0] if audit.wrong is not None else None,
        "entries_since": audit.since,
        "gaps": list(audit.gaps),
    }
    return Answer(document, audit_lines(audit, head), Exit.OK if fine else Exit.PERSON)


def audit_lines(audit: Audit, sought: str | None) -> list[str]:
    """Return for a terminal what reading the whole journal has shown."""
    if audit.wrong is not None:
        number, why = audit.wrong
        return [
            f"CHANGED   entry {number}: {why}",
            f"          the {audit.count} before it are what was written",
            "to do     compare with a backup, and find out who can write to this file; do not let it buy meanwhile",
        ]
    lines = [f"verified  {audit.count} entries, each balanced and chained", f"head      {audit.head.hex() or 'none'}"]
    if sought is not None and audit.since is None:
        lines[0] = f"CHANGED   {audit.count} entries follow one another, and none has the hash {sought}"
        lines.append("to do     the ledger was replaced, or cut and written anew, since that hash was printed")
    elif sought is not None:
        lines.append(f"since     {audit.since} entries after {sought}")
    if audit.gaps:
        lines += [f"GAP       {gap}" for gap in audit.gaps]
        lines.append("to do     compare with a backup; what was paid is on the chain, see `topup reconcile`")
    return lines
