"""Does topup survive what trusted senders did not? One test a story: paid once, nothing lost, well said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.world import stories, stories_foreign
from tests.world.house import Result
from tests.world.stories import Story
from tests.world.stories_foreign import STORIES


def survived(story: Story, directory: Path, *, payments: int = 1) -> Counter[str]:
    """Tell it; it has to be survived without a person. Return how often each event was said."""
    result = _sound(story, directory, payments)
    assert not result.halted, result.reason
    assert result.recovered_in_s is not None
    return Counter(result.events)


def asked(story: Story, directory: Path, *, payments: int = 1) -> tuple[str, Counter[str]]:
    """Tell it; it has to end with a person. Return what that person was told, and how often each event was said."""
    result = _sound(story, directory, payments)
    assert result.halted
    assert result.reason
    return result.reason, Counter(result.events)


def _sound(story: Story, directory: Path, payments: int) -> Result:
    result = story(directory)
    assert result.wrong == (), result
    assert (result.survived, result.payments, result.lost) == (True, payments, False)
    return result


def test_every_story_is_told() -> None:
    """Thirty-four stories, numbered without a gap, each of them with a test of its name here."""
    assert sorted(one.number for one in STORIES.values()) == list(range(1, 35))
    assert all(f"test_{name}" in globals() for name in STORIES)
    assert all(one.says for one in STORIES.values())


def test_response_lost(tmp_path: Path) -> None:
    """The node takes a payment and its answer is lost: found by its hash, and only that one was ever signed."""
    said = survived(stories.response_lost, tmp_path)
    assert (said["payment_signed"], said["payment_sent"], said["payment_included"]) == (1, 1, 1)


def test_already_known(tmp_path: Path) -> None:
    """An answer of "already known", under any code, means that our bytes are held: sent, not failed."""
    said = survived(stories.already_known, tmp_path)
    assert (said["payment_signed"], said["payment_sent"]) == (1, 4)


@pytest.mark.slow
def test_bump_hash_never_stored(tmp_path: Path) -> None:
    """Killed right after a bump was sent, its row is there; with the row deleted, it halts and buys nothing."""
    reason, said = asked(stories.bump_hash_never_stored, tmp_path)
    assert "reconcile" in reason
    assert said["top_up_halted"] == 1
    assert said["payment_bumped"] == 2
    assert said["charge_requested"] == 2  # one in each of the two parts


def test_receipts_null_nonce_moved(tmp_path: Path) -> None:
    """The nonce has moved and for half an hour no receipt is shown: one alarm, no other charge, one payment."""
    said = survived(stories.receipts_null_nonce_moved, tmp_path)
    assert (said["nonce_moved"], said["charge_requested"], said["top_up_halted"]) == (1, 1, 0)


def test_stale_nonce(tmp_path: Path) -> None:
    """A provider that shows an old nonce for ever is outvoted and named; no used nonce is signed."""
    said = survived(stories.stale_nonce, tmp_path)
    # On a busy machine it is called slow before it differs: named either way.
    assert said["providers_disagree"] + said["provider_set_aside"] >= 1


@pytest.mark.slow
def test_burned_nonces(tmp_path: Path) -> None:
    """Killed again and again around the signature, one nonce is used in all, by one payment."""
    said = survived(stories.burned_nonces, tmp_path)
    assert said["payment_sent"] == 1
    assert said["charge_requested"] == 1


@pytest.mark.long
@pytest.mark.slow
def test_a_hundred_crashes_burn_no_nonce(tmp_path: Path) -> None:
    """A hundred crashes between nonce, signature and sending: the first nonce is the one that is used."""
    survived(stories.BURNED_A_HUNDRED_TIMES, tmp_path)


def test_nonce_too_low_texts(tmp_path: Path) -> None:
    """However a node words it, "nonce too low" is no failure and no reason to pay again: it is looked for."""
    said = survived(stories.nonce_too_low_texts, tmp_path)
    assert said["payment_sent"] >= len(stories.NONCE_TEXTS)
    assert (said["payment_signed"], said["charge_requested"]) == (1, 1)


@pytest.mark.slow
def test_receipt_vanishes(tmp_path: Path) -> None:
    """A receipt counts only with its block; a revert in a replaced block is undone; done comes after safe."""
    said = survived(stories.receipt_vanishes, tmp_path)
    assert (said["payment_reverted"], said["payment_vanished"], said["payment_included"]) == (1, 1, 1)


def test_accepted_then_dropped(tmp_path: Path) -> None:
    """Taken and passed on to nobody: the same bytes to every provider again, then outbid at the same nonce."""
    said = survived(stories.accepted_then_dropped, tmp_path)
    assert said["payment_unseen"] >= 1
    assert said["payment_bumped"] >= 1


@pytest.mark.slow
def test_chain_halts_past_the_deadline(tmp_path: Path) -> None:
    """The chain stands still for two days: no charge is dead by a wall clock, and the old payment is recognised."""
    said = survived(stories.chain_halts_past_the_deadline, tmp_path)
    assert (said["charge_dead"], said["charge_requested"], said["payment_included"]) == (0, 1, 1)


@pytest.mark.slow
def test_two_live_senders(tmp_path: Path) -> None:
    """The one that was stopped wakes to another's ledger: it can write nothing, so it sends nothing."""
    said = survived(stories.two_live_senders, tmp_path)
    assert (said["cycle_failed"], said["payment_sent"]) == (1, 1)


@pytest.mark.slow
def test_cancel_loses(tmp_path: Path) -> None:
    """A cancel that loses is a payment; one that wins ends the top-up by proof at a final block, not before."""
    said = survived(stories.cancel_loses, tmp_path)
    assert (said["cancel_signed"], said["payment_cancelled"], said["charge_dead"]) == (2, 1, 1)


def test_bump_after_mined(tmp_path: Path) -> None:
    """A bump whose dry run reverts because the payment was mined is held back, and says nothing of the payment."""
    said = survived(stories.bump_after_mined, tmp_path)
    assert (said["bump_held"], said["payment_bumped"], said["payment_reverted"]) == (1, 0, 0)


@pytest.mark.slow
def test_wedged_client(tmp_path: Path) -> None:
    """However often a pass is cut off in the middle, nothing stays locked, and one payment is made."""
    survived(stories.wedged_client, tmp_path)


@pytest.mark.slow
def test_flaky_signer(tmp_path: Path) -> None:
    """Signatures that are never alike: of all that were made, only the one stored with the intent to send has left."""
    said = survived(stories.flaky_signer, tmp_path)
    assert said["payment_sent"] == 1
    assert said["payment_forbidden"] >= 1


@pytest.mark.slow
def test_ledger_restored(tmp_path: Path) -> None:
    """A ledger older than the chain spends nothing, and says what a person has to do."""
    reason, said = asked(stories.ledger_restored, tmp_path)
    assert "the ledger knows of 1" in reason
    assert said["payment_forbidden"] >= 1


@pytest.mark.slow
def test_a_payment_taken_over_before_its_credits_came_is_not_paid_again(tmp_path: Path) -> None:
    """A person adopts a payment whose credits are still to come: what was decided without it is dropped."""
    asked(stories.TAKEN_OVER_BEFORE_POSTING, tmp_path)


def test_reorg_between_revert_and_retry(tmp_path: Path) -> None:
    """A revert that a reorganisation turns into a payment beside its retry: one charge, so one payment."""
    said = survived(stories.reorg_between_revert_and_retry, tmp_path)
    assert (said["charge_requested"], said["payment_signed"], said["payment_vanished"]) == (1, 2, 1)


def test_provider_on_another_chain(tmp_path: Path) -> None:
    """A provider of another chain is set aside, and nothing it says is signed."""
    said = survived(stories.provider_on_another_chain, tmp_path)
    assert said["provider_set_aside"] >= 1


@pytest.mark.slow
def test_fee_spike(tmp_path: Path) -> None:
    """Fees eat what the wallet had to spare: the payment is kept, it is said, and it lands when they fall."""
    said = survived(stories.fee_spike, tmp_path)
    assert said["charge_requested"] == 1
    assert said["cycle_failed"] == 0


@pytest.mark.slow
def test_credits_never_post(tmp_path: Path) -> None:
    """Credits that do not come: one alert and no second payment; an endpoint that is gone: one alert and the end."""
    said = survived(stories.credits_never_post, tmp_path)
    assert (said["paid_not_credited"], said["endpoint_gone"], said["top_up_dropped"]) == (1, 1, 1)
    assert said["payment_signed"] == 1


@pytest.mark.slow
def test_power_loss(tmp_path: Path) -> None:
    """The disk forgets the last commits: the chain is seen to be ahead, and nothing is spent until a person looked."""
    _, said = asked(stories.power_loss, tmp_path)
    assert said["payment_forbidden"] >= 1


def test_foreign_nonce(tmp_path: Path) -> None:
    """Somebody else used the key at our nonce: said once, halted after an hour, nothing more is bought."""
    reason, said = asked(stories.foreign_nonce, tmp_path, payments=0)
    assert "not in the ledger" in reason
    assert (said["nonce_moved"], said["top_up_halted"], said["charge_requested"]) == (1, 1, 1)


@pytest.mark.slow
def test_batches_refused(tmp_path: Path) -> None:
    """A sole provider takes ten calls in a batch, or none: the default settings buy all the same."""
    said = survived(stories_foreign.batches_refused, tmp_path)
    assert (said["payment_signed"], said["charge_requested"]) == (2, 2)  # one in each of the two parts


@pytest.mark.slow
def test_slow_provider(tmp_path: Path) -> None:
    """One of three never answers in time: paid with the two that agree, and the slow one is named."""
    said = survived(stories_foreign.slow_provider, tmp_path)
    assert (said["payment_signed"], said["cycle_failed"]) == (1, 0)


@pytest.mark.slow
def test_nonsense_of_one(tmp_path: Path) -> None:
    """One of three answers what no decoder takes: no pass fails by it, it is named, and one payment is made."""
    said = survived(stories_foreign.nonsense_of_one, tmp_path)
    assert (said["payment_signed"], said["cycle_failed"]) == (3, 0)  # one in each of the three parts


def test_safe_tag_missing(tmp_path: Path) -> None:
    """A sole provider without the tag `safe`: the payment is booked and done by the final block."""
    said = survived(stories_foreign.safe_tag_missing, tmp_path)
    assert (said["payment_signed"], said["top_up_done"]) == (1, 1)


def test_edge_page_instead_of_an_answer(tmp_path: Path) -> None:
    """An edge's page is no refusal of a payment: the same bytes are sent again, and nothing else is signed."""
    said = survived(stories_foreign.edge_page_instead_of_an_answer, tmp_path)
    assert (said["payment_signed"], said["charge_requested"]) == (1, 1)


def test_gateway_sentence_around_an_error(tmp_path: Path) -> None:
    """An error's text in a gateway's sentence is not the node's: unclear, and never paid again."""
    said = survived(stories_foreign.gateway_sentence_around_an_error, tmp_path)
    assert (said["payment_signed"], said["nonce_moved"]) == (1, 0)


@pytest.mark.slow
def test_api_answers_oddly(tmp_path: Path) -> None:
    """Pages, byte order marks and gzip nobody asked for: the key is not doubted, and one payment is made each time."""
    said = survived(stories_foreign.api_answers_oddly, tmp_path)
    assert (said["payment_signed"], said["key_unfit"]) == (3, 0)


@pytest.mark.slow
def test_ten_blocks_of_logs(tmp_path: Path) -> None:
    """Providers that grant ten blocks of logs a question: a lost payment is proven dead, and one more is bought."""
    said = survived(stories_foreign.ten_blocks_of_logs, tmp_path)
    assert (said["charge_dead"], said["charge_requested"], said["top_up_halted"]) == (1, 2, 0)


def test_invented_receipt(tmp_path: Path) -> None:
    """A sole provider's invention is taken back by those that follow it, and the same bytes are paid with."""
    said = survived(stories_foreign.invented_receipt, tmp_path)
    assert (said["payment_signed"], said["payment_vanished"], said["charge_requested"]) == (1, 1, 1)


@pytest.mark.slow
def test_wish_and_killed_daemon(tmp_path: Path) -> None:
    """Whoever follows the exit codes around a daemon that hangs and dies buys once."""
    survived(stories_foreign.wish_and_killed_daemon, tmp_path)


@pytest.mark.slow
def test_output_lost(tmp_path: Path) -> None:
    """A purchase that cannot be told of ends by the money, and the same command is told of it and buys nothing."""
    survived(stories_foreign.output_lost, tmp_path)


def test_right_but_late(tmp_path: Path) -> None:
    """Eleven seconds late each time, and right: named as slow, set aside, and waited for by nobody."""
    said = survived(stories_foreign.right_but_late, tmp_path)
    assert (said["payment_signed"], said["cycle_failed"]) == (1, 0)
