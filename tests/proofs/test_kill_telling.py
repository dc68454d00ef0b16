"""Can the life in which somebody is told fail? What it holds the ledger against would notice a message that is lost."""

import sys

import pytest

from tests import tools
from tests.proofs.kill_lives import LIVES
from tests.proofs.kill_matrix import cells, survive
from tests.proofs.killed import TELL, Cell

# A courier that stores a delivery before it makes it; but for the digest, which this receiver refuses at first.
BROKEN = """
from topup.app.delivery import Courier
from topup.domain.messages import MessageKind
honest = Courier._send

async def hasty(self, name, listener, message):
    if message.kind is MessageKind.DIGEST:
        return await honest(self, name, listener, message)
    self.outbox.accepted(message, name, self._now())
    await listener.target.send(message.id, self._now() // 1000, message.document())

Courier._send = hasty
from tests.proofs import killed
killed.main()
"""


@pytest.mark.long
def test_a_message_that_is_stored_as_delivered_too_early_is_found_out() -> None:
    """Killed in between, it never arrives; killed after it, it has."""
    tools.require("anvil")
    program = [sys.executable, "-c", BROKEN]
    lost = survive(LIVES["told"], Cell("any", "hook.topup.refilled", 1, "before"), program)
    assert "messages that never arrived: topup.refilled" in lost.wrong
    assert not survive(LIVES["told"], Cell("any", "hook.topup.refilled", 1, "after"), program).wrong


def test_of_what_somebody_is_told_every_bad_answer_is_a_cell() -> None:
    """Nothing of a top-up follows from it, so that nobody dies at what follows."""
    made = cells([{"phase": "any", "call": "hook.digest", "nth": 1, "kind": TELL}])
    ends = [("before", "kept"), ("after", "kept"), ("after", "lost"), ("after", "delayed"), ("after", "duplicated")]
    assert [(cell.when, cell.answer) for cell in made] == ends
