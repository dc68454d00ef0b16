"""How does a copy of the ledger become the ledger again? Buying is paused in it until the chain was looked at."""

import os
from pathlib import Path
from typing import Final

from topup.commands.answer import Answer, labelled
from topup.commands.backup import copy_document, copy_lines
from topup.commands.start import agreed, load
from topup.domain.errors import Exit
from topup.domain.moments import moment
from topup.ledger import backup
from topup.wire.clock import SystemClock

# What was paid since the copy was made is known to the chain alone.
NEXT: Final = ("topup reconcile", "topup reconcile --adopt", "topup doctor", "topup resume")


def answer(file: Path, *, yes: bool) -> Answer:
    """Put a copy in the place of the ledger, where a person agrees."""
    settings, source = load(), file.absolute()
    found = backup.look(source)
    about = (
        f"{source} knows nothing of what happened after {moment(found.newest_ms // 1000)}.",
        f"It takes the place of the ledger in {settings.state_dir}, which is kept beside it; buying is paused.",
    )
    if not agreed("put it back?", yes=yes, otherwise="nothing was changed", about=about):
        return Answer({}, (), Exit.PERSON)
    found, kept = backup.put_back(
        settings.state_dir, source, settings.account, f"uid {os.getuid()}", SystemClock().now_ms()
    )
    document = {
        "schema": 1,
        "file": str(source),
        "state_dir": str(settings.state_dir),
        "kept": str(kept) if kept is not None else None,
        **copy_document(found),
        "next": list(NEXT),
    }
    rows = {
        "restored": f"the ledger in {settings.state_dir}; buying is paused",
        **copy_lines(document),
        "kept": f"what stood there: {kept}" if kept is not None else None,
    }
    return Answer(document, [*labelled(9, rows), *(f"next      {step}" for step in NEXT)], Exit.OK)
