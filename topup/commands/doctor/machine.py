"""What does this machine hold: the ledger's directory, the ledger, the key files?"""

import os
from contextlib import closing
from pathlib import Path

from topup.app import assembly
from topup.app.exposure import Found, key_file, key_files
from topup.app.hosts import CLOSED_REMEDY, closed
from topup.app.settings import Settings
from topup.commands.doctor.finding import Check, skipped
from topup.domain.policy import Why
from topup.ledger.location import exposed
from topup.ledger.store import SqliteStore


def ways(settings: Settings) -> Check:
    """Look at the ways to pay: one that the host is known to have closed buys nothing."""
    names = ", ".join(settings.rails_in_use)
    wrong = [why for rail in settings.rails_in_use if (why := closed(settings.api, rail))]
    if wrong:
        return Check("way to pay", ok=False, says=f"{names}: {'; '.join(wrong)}", remedy=CLOSED_REMEDY)
    return Check("way to pay", ok=True, says=f"{names}, {'by rails.use' if settings.rails.use else 'by api.url'}")


async def ledger(settings: Settings) -> list[Check]:
    """Look at the ledger and where it lies."""
    directory = settings.state_dir
    writable = _writable(directory)
    if not writable.ok:
        return [writable, *skipped(("ledger", "charge endpoint"), "the ledger's directory is of no use")]
    if not SqliteStore.exists(directory):
        return [
            writable,
            Check("ledger", ok=True, says="there is none yet; the first start creates it"),
            Check("charge endpoint", ok=True, says="never asked from this ledger"),
        ]
    with closing(SqliteStore.open_reader(directory)) as store:
        damage, gone = store.damage(), store.control(settings.account).gone
        other = assembly.rails_before(settings, store)
    pid = SqliteStore.holder(directory)
    held = f"held by process {pid}" if pid else "held by nobody that can be seen"
    return [
        writable,
        Check("ledger", ok=damage is None, says=damage or f"whole, of this program's version, {held}",
              remedy="" if damage is None else "restore it from a backup, see docs/runbook.md"),
        Check("rails", ok=not gone,
              says=f"{', '.join(sorted(gone))} answered that it is gone (410, 404 or 501), is not asked again" if gone
              else "none on record as gone; a charge is not asked for here, because every request is one",
              remedy="choose another in rails.use, or a gateway that serves it, then `topup resume`" if gone else ""),
        *([] if other is None else [Check("rails before", ok=settings.mode != "live", remedy=Why.RAIL_CHANGED.remedy,
              says=f"this ledger bought by {other}; nothing is bought by another way that nobody has chosen")]),
    ]  # fmt: skip


def _writable(directory: Path) -> Check:
    name = "state directory"
    near = next(p for p in (directory, *directory.parents) if p.exists())
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        return Check(name, ok=False, says=f"{near} cannot be written", remedy=f"make it writable for uid {os.getuid()}")
    if near != directory:
        return Check(name, ok=True, says=f"{directory} will be created")
    if wrong := exposed(directory):
        return Check(name, ok=False, says=wrong, remedy=f"chmod -R go= {directory}")
    return Check(name, ok=True, says=str(directory))


async def keys(settings: Settings) -> list[Check]:
    """Look at the files that hold keys."""
    wallet = settings.wallet
    checks = []
    for name, path in key_files(settings).items():
        try:
            checks.append(opened(key_file(name, path)))
        except OSError as error:
            says = f"{path} cannot be looked at ({type(error).__name__})"
            checks.append(Check(name, ok=False, says=says, remedy=f"correct {name}, mount it, or its permissions"))
    if wallet.private_key is not None or wallet.private_key_file is not None:
        says = "warning: a raw private key is in use; whoever reads it owns the wallet"
        checks.append(Check("raw private key", ok=True, says=says, remedy="use a keystore with a password file"))
    return checks


def opened(file: Found) -> Check:
    """Say who else can read a file; where nobody can change that here, it is a warning."""
    close = "chmod o=" if file.name == "settings file" else "chmod 600"
    remedy = f"{close} {file.path}" if file.wrong and not file.passable else ""
    if file.wrong and file.passable:
        remedy = "mount it with a mode that lets no other user read it, such as defaultMode 0400"
    return Check(file.name, ok=not file.wrong or file.passable, says=file.says, remedy=remedy)
