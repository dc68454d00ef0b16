"""Does each state have a way out, is every word answered truthfully, and is there a test of each?"""

import re
from dataclasses import replace
from functools import cache
from typing import Final

import pytest

from tests.tools import ROOT
from tests.world.builders import inclusion, plan, topup
from tests.world.stories_foreign import STORIES
from topup.domain.lifecycle import TERMINAL, Attempt, Broadcaster, Kind, State, TopUp
from topup.domain.ways_out import ATTEST, CANCEL, COMMANDS, CREDITED, LOOK, WAYS, answer

# What shows that a state is left as the table says: without a person, and by each word that is taken.
PROOFS: Final = {
    (State.DECIDED, ""): "test_lost_answers_are_asked_again_ever_more_slowly",
    (State.ASKING, ""): "test_lost_answers_are_asked_again_ever_more_slowly",
    (State.CHARGED, ""): "test_stale_bytes_mined_under_a_resting_top_up_do_not_stop_it",
    (State.RESERVED, ""): "test_a_pause_between_plan_and_signature_signs_nothing",
    (State.SIGNED, ""): "test_no_bytes_leave_that_are_not_stored_with_their_intent",
    (State.SENT, ""): "test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses",
    (State.REVERTED, ""): "test_a_charge_is_not_retried_for_ever",
    (State.DEATHWATCH, ""): "test_an_expired_charge_proven_dead_by_two_is_replaced_by_a_new_one",
    (State.PAID, ""): "test_exit_5_when_it_is_paid_and_not_credited",
    (State.UNCREDITED, ""): "invented_receipt",
    (State.CREDITED, ""): "test_a_payment_that_stands_is_not_taken_back",
    (State.DECIDED, CANCEL): "test_a_cancel_ends_what_was_never_sent",
    (State.ASKING, CANCEL): "test_a_cancel_ends_what_was_never_sent",
    (State.CHARGED, CANCEL): "test_a_cancel_ends_what_was_never_sent",
    (State.RESERVED, CANCEL): "test_a_cancel_ends_what_was_never_sent",
    (State.SIGNED, CANCEL): "test_a_cancel_ends_what_was_never_sent",
    (State.SENT, CANCEL): "cancel_loses",
    (State.REVERTED, CANCEL): "test_a_cancel_after_a_revert_gives_the_charge_up",
    (State.DEATHWATCH, CANCEL): "test_a_cancel_after_the_deadline_buys_no_other_charge",
    (State.DEATHWATCH, ATTEST): "test_a_mark_that_was_never_tested_is_ended_by_a_persons_word",
    (State.PAID, LOOK): "test_a_word_takes_back_what_one_provider_denies",
    (State.PAID, ATTEST): "test_a_word_takes_back_what_one_provider_denies",
    (State.UNCREDITED, LOOK): "test_a_word_takes_back_what_one_provider_denies",
    (State.UNCREDITED, ATTEST): "test_a_word_takes_back_what_one_provider_denies",
    (State.UNCREDITED, CREDITED): "test_a_posting_hidden_by_usage_ends_by_a_persons_word",
    (State.CREDITED, LOOK): "test_a_word_takes_back_what_one_provider_denies",
    (State.CREDITED, ATTEST): "test_a_word_takes_back_what_one_provider_denies",
    (State.HALTED, LOOK): "test_a_look_that_finds_no_proof_yet_is_not_used_up",
    (State.HALTED, ATTEST): "test_an_expired_charge_seen_by_one_provider_alone_needs_a_person",
    (State.HALTED, CREDITED): "test_only_a_word_leads_out_of_a_halt",
    (State.DONE, LOOK): "test_a_word_takes_back_what_had_ended",
    (State.DONE, ATTEST): "test_a_word_takes_back_what_had_ended",
    (State.DROPPED, LOOK): "test_a_word_takes_back_what_had_ended",
    (State.DROPPED, ATTEST): "test_a_word_takes_back_what_had_ended",
    (State.FAILED, LOOK): "test_a_word_takes_back_what_had_ended",
    (State.FAILED, ATTEST): "test_a_word_takes_back_what_had_ended",
}


@cache
def names() -> frozenset[str]:
    """Return the names of all tests and stories there are."""
    files = (ROOT / "tests").rglob("test_*.py")
    tests = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8"))}
    return frozenset(tests | set(STORIES))


def attempt(*, broadcaster: Broadcaster = Broadcaster.US, included: bool = False) -> Attempt:
    return Attempt(
        id=1,
        charge_seq=1,
        plan=plan(broadcaster=broadcaster),
        raw=b"\x01",
        hash=b"\x02" * 32,
        intended_ms=1,
        last_sent_ms=1,
        sends=1,
        withdrawn=False,
        inclusion=inclusion() if included else None,
        booked=False,
    )


def at(state: State, *attempts: Attempt) -> TopUp:
    return topup(state=state, attempts=attempts)


@pytest.mark.parametrize("state", State)
def test_every_state_names_its_way_out(state: State) -> None:
    """What goes on by itself says by what; what does not is an end, or waits for a person and takes a word."""
    way = WAYS[state]
    assert bool(way.ends) == (state not in {*TERMINAL, State.HALTED})
    assert way.words
    assert set(way.words) <= set(COMMANDS)


def test_each_way_has_its_test() -> None:
    """Every line of the table is shown by a test that exists."""
    lines = {(s, "") for s in State if WAYS[s].ends} | {(s, word) for s in State for word in WAYS[s].words}
    assert set(PROOFS) == lines
    assert {name for name in PROOFS.values() if name not in names()} == set()


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("word", list(COMMANDS))
def test_every_word_is_answered_as_the_table_says(state: State, word: str) -> None:
    """Taken where the table takes it; else refused, and "by itself" is said only where the table says what ends it."""
    told = answer(at(state, attempt(included=True)), word)
    assert told.taken == (word in WAYS[state].words)
    assert ("by itself" in told.sentence) == (not told.taken and bool(WAYS[state].ends))
    if told.taken:
        assert told.sentence == WAYS[state].words[word]
    else:
        assert told.remedy


def test_a_cancel_that_can_do_nothing_is_refused() -> None:
    """A nonce that a stranger used cannot be taken, and what a seller holds cannot be taken back: said, not stored."""
    contested = answer(at(State.SENT, attempt()), CANCEL, contested=True)
    assert not contested.taken
    assert "can do nothing" in contested.sentence
    assert "reconcile" in contested.remedy
    held = answer(at(State.SENT, attempt(broadcaster=Broadcaster.SERVER)), CANCEL)
    assert not held.taken
    assert "seller" in held.sentence


@pytest.mark.parametrize("word", [LOOK, ATTEST])
def test_a_stranger_at_our_nonce_is_not_said_to_pass(word: str) -> None:
    """The answer names what ends it, when it halts, and the command that takes the transaction over now."""
    told = answer(at(State.SENT, attempt()), word, contested=True)
    assert not told.taken
    assert "by itself" not in told.sentence
    assert "--adopt" in told.remedy


def test_what_never_stood_in_a_block_cannot_be_taken_back() -> None:
    """Of an end without anything in a block there is nothing to look for."""
    told = answer(at(State.DROPPED, replace(attempt(), plan=plan(kind=Kind.CANCEL))), LOOK)
    assert not told.taken
