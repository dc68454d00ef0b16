"""Does topup survive what trusted senders did not? One test a story: paid once, nothing lost, well said."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.world import stories
from tests.world.stories import Story
from tests.world.stories_foreign import STORIES


@dataclass(frozen=True)
class End:
    """How a story has to end, which says itself what happens in it.

    Attributes:
        said: how often events are said in it, all its parts together; `least`: how often at least.
        person: None where it is survived without a person; else a part of what a person is told.
        payments: on the chain for the one need.
        slow: whether it takes more than a few seconds.
    """

    said: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    person: str | None = None
    payments: int = 1
    slow: bool = False


ENDS: Final[dict[str, End]] = {
    "response_lost": End({"payment_signed": 1, "payment_sent": 1, "payment_included": 1}),
    "already_known": End({"payment_signed": 1, "payment_sent": 4}),
    # One charge in each of its two parts.
    "bump_hash_never_stored": End(
        {"top_up_halted": 1, "payment_bumped": 2, "charge_requested": 2}, person="reconcile", slow=True
    ),
    "receipts_null_nonce_moved": End({"nonce_moved": 1, "charge_requested": 1, "top_up_halted": 0}),
    "stale_nonce": End(least={"providers_disagree or provider_set_aside": 1}),
    "burned_nonces": End({"payment_sent": 1, "charge_requested": 1}, slow=True),
    "nonce_too_low_texts": End(
        {"payment_signed": 1, "charge_requested": 1}, least={"payment_sent": len(stories.NONCE_TEXTS)}
    ),
    "receipt_vanishes": End({"payment_reverted": 1, "payment_vanished": 1, "payment_included": 1}, slow=True),
    "accepted_then_dropped": End(least={"payment_unseen": 1, "payment_bumped": 1}),
    "chain_halts_past_the_deadline": End({"charge_dead": 0, "charge_requested": 1, "payment_included": 1}, slow=True),
    "two_live_senders": End({"cycle_failed": 1, "payment_sent": 1}, slow=True),
    "cancel_loses": End({"cancel_signed": 2, "payment_cancelled": 1, "charge_dead": 1}, slow=True),
    "bump_after_mined": End({"bump_held": 1, "payment_bumped": 0, "payment_reverted": 0}),
    "wedged_client": End(slow=True),
    "flaky_signer": End({"payment_sent": 1}, least={"payment_forbidden": 1}, slow=True),
    "ledger_restored": End(least={"payment_forbidden": 1}, person="the ledger knows of 1", slow=True),
    "reorg_between_revert_and_retry": End({"charge_requested": 1, "payment_signed": 2, "payment_vanished": 1}),
    "provider_on_another_chain": End(least={"provider_set_aside": 1}),
    "fee_spike": End({"charge_requested": 1, "cycle_failed": 0}, slow=True),
    "credits_never_post": End(
        {"paid_not_credited": 1, "endpoint_gone": 1, "top_up_dropped": 1, "payment_signed": 1}, slow=True
    ),
    "power_loss": End(least={"payment_forbidden": 1}, person="", slow=True),
    "foreign_nonce": End(
        {"nonce_moved": 1, "top_up_halted": 1, "charge_requested": 1}, person="not in the ledger", payments=0
    ),
    # One payment in each of their parts.
    "batches_refused": End({"payment_signed": 2, "charge_requested": 2}, slow=True),
    "nonsense_of_one": End({"payment_signed": 3, "cycle_failed": 0}, slow=True),
    "api_answers_oddly": End({"payment_signed": 3, "key_unfit": 0}, slow=True),
    "slow_provider": End({"payment_signed": 1, "cycle_failed": 0}, slow=True),
    "safe_tag_missing": End({"payment_signed": 1, "top_up_done": 1}),
    "edge_page_instead_of_an_answer": End({"payment_signed": 1, "charge_requested": 1}),
    "gateway_sentence_around_an_error": End({"payment_signed": 1, "nonce_moved": 0}),
    "ten_blocks_of_logs": End({"charge_dead": 1, "charge_requested": 2, "top_up_halted": 0}, slow=True),
    "invented_receipt": End({"payment_signed": 1, "payment_vanished": 1, "charge_requested": 1}),
    "wish_and_killed_daemon": End(slow=True),
    "output_lost": End(slow=True),
    "right_but_late": End({"payment_signed": 1, "cycle_failed": 0}),
}


def rows() -> Iterator[Any]:
    """Yield every story with its end; two that are told beside the numbered ones come last."""
    for name, end in ENDS.items():
        yield pytest.param(STORIES[name], end, id=name, marks=[pytest.mark.slow] if end.slow else [])
    long = [pytest.mark.long, pytest.mark.slow]
    yield pytest.param(stories._burned_a_hundred_times, End(), id="a_hundred_crashes", marks=long)
    taken_over = stories._taken_over_before_posting
    yield pytest.param(taken_over, End(person=""), id="taken_over_before_posting", marks=[pytest.mark.slow])


def test_every_story_is_told() -> None:
    """Thirty-four stories, numbered without a gap, each of them with its end here."""
    assert sorted(one.number for one in STORIES.values()) == list(range(1, 35))
    assert ENDS.keys() == STORIES.keys()
    assert all(one.says for one in STORIES.values())


@pytest.mark.parametrize(("story", "end"), [*rows()])
def test_a_story(story: Story, end: End, tmp_path: Path) -> None:
    """It ends as it has to: as many payments as are due, none lost, with a person or without, and said so often."""
    result = story(tmp_path)
    assert result.wrong == (), result
    assert (result.survived, result.payments, result.lost) == (True, end.payments, False)
    assert result.halted is (end.person is not None), result.reason
    if end.person is None:
        assert result.recovered_in_s is not None
    else:
        assert result.reason
        assert end.person in result.reason
    said = Counter(result.events)
    assert {name: said[name] for name in end.said} == end.said
    for names, count in end.least.items():
        assert sum(said[name] for name in names.split(" or ")) >= count
