"""How does the ledger get a copy that can be trusted? Beside a running daemon, read whole before it has its name."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from topup.commands.answer import Answer, labelled
from topup.commands.start import load
from topup.domain.errors import Exit
from topup.domain.moments import moment
from topup.ledger import backup
from topup.wire.clock import SystemClock


def answer(file: Path | None) -> Answer:
    """Write a copy of the ledger into a new file, by default one of this directory that is named after the moment."""
    settings, now_ms = load(), SystemClock().now_ms()
    stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    target = (file if file is not None else Path(f"topup-{stamp}.sqlite3")).absolute()
    document = {"schema": 1, "file": str(target), **copy_document(backup.write(settings.state_dir, target))}
    rows = {"wrote": f"{target}, for its owner alone", **copy_lines(document)}
    return Answer(document, [*labelled(9, rows), "keep the wallet's keystore and its password as well"], Exit.OK)


def copy_document(copy: backup.Copy) -> dict[str, Any]:
    """Return what a copy holds as a part of a document."""
    return {
        "version": copy.version,
        "newest_ms": copy.newest_ms,
        "entries": copy.entries,
        "ledger_head": copy.head.hex() or None,
        "open": list(copy.unfinished),
    }


def copy_lines(document: dict[str, Any]) -> dict[str, str | None]:
    """Return what a copy holds, for a terminal."""
    entries = f"{document['entries']} entries of the journal, each balanced and chained"
    return {
        "holds": f"{entries}; nothing after {moment(document['newest_ms'] // 1000)}",
        "head": document["ledger_head"],
        "open": " ".join(document["open"]) or None,
    }
