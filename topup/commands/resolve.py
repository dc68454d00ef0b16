"""What can only a person know, and tell the ledger? What became of a top-up, of a reading, of the wallet's nonce."""

from topup.commands.answer import Answer
from topup.commands.pause import noted
from topup.commands.start import load
from topup.domain import ways_out
from topup.domain.errors import Exit, SettingsError
from topup.domain.notes import Note
from topup.domain.ways_out import ATTEST, CANCEL, CREDITED, LOOK, RESOLVE
from topup.ledger.store import SqliteStore


def answer(
    topup_id: str | None,
    *,
    attest: bool,
    cancel: bool,
    credited: bool,
    reading: bool,
    nonce: bool,
    dry_run: bool,
) -> Answer:
    """Tell the ledger what a person has seen; with `dry_run` only say what that would do."""
    if topup_id is not None:
        words = [word for word, said in ((ATTEST, attest), (CANCEL, cancel), (CREDITED, credited)) if said] or [LOOK]
        if len(words) > 1:
            says = "--attest-unpaid, --cancel and --credited contradict each other"
            raise SettingsError(says, remedy="choose one")
        name, value, effect = RESOLVE + topup_id, words[0], _effect(topup_id, words[0])
    elif reading:
        name, value = Note.ACCEPT_READING, "1"
        effect = "for a day from now, a lower total is believed once it has been seen for a day"
    elif nonce:
        name, value = Note.ADOPT_NONCE, "1"
        effect = "for an hour from now, the wallet's other transactions are taken as they are"
    else:
        raise SettingsError("nothing to resolve was named", remedy="`topup resolve --help`")
    settings = load()
    if not dry_run:
        return noted(settings, name, value, effect)
    document = {"schema": 1, "account": settings.account, "said": None, "value": value, "detail": effect}
    return Answer(document, [f"nothing was stored; {effect}"], Exit.OK)


def _effect(topup_id: str, word: str) -> str:
    """Return what this word about a top-up will do, or refuse one that can do nothing."""
    store = SqliteStore.open_reader(load().state_dir)
    try:
        topup = store.topup(topup_id)
    except KeyError:
        raise SettingsError(f"there is no top-up {topup_id}", remedy="`topup history` lists them") from None
    way = ways_out.answer(topup, word, contested=bool(store.taken(topup_id)))
    if not way.taken:
        raise SettingsError(f"{topup_id} is {topup.state}: {way.sentence}", remedy=way.remedy or "`topup status`")
    return f"{topup_id} is {topup.state}; with its next pass, this {way.sentence}"
