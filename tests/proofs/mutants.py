"""Does every safety rule have a test that goes red without it? One-line sabotages, each held against a named test.

    python -m tests.proofs.mutants [NAME...] [--jobs N] [--json]

Each sabotage is applied to a copy of the checkout; the test it names has to pass on the copy as it is and to fail on
the sabotaged one, by an assertion: a test that dies of a TypeError has noticed that the code is broken, not that the
rule is gone. A sabotage whose line is no longer in the source is an error: the list lives with the code.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.tools import ROOT

KEPT: Final = ("topup", "tests", "abi", "benchmarks", "deploy", "docs", "requirements", "pyproject.toml", "README.md")
PATIENCE_S: Final = 300
# How pytest begins to tell of an assertion that did not hold; "Failed" is `pytest.fail` and `pytest.raises`.
ASSERTED: Final = ("AssertionError", "assert ", "Failed: ")


@dataclass(frozen=True)
class Mutant:
    """One sabotage: in `file`, `was` becomes `now`; `test` has to notice."""

    name: str
    file: str
    was: str
    now: str
    test: str


MUTANTS: Final = (
    Mutant(
        "sent-before-the-intent-is-stored",
        "topup/payment/preparation.py",
        "                return self._intend(topup)\n",
        "                await self._rail(topup)._chain.send(topup.attempt.raw, topup.attempt.hash)\n"
        "                return self._intend(topup)\n",
        "tests/payment/test_pursuit.py::test_no_bytes_leave_that_are_not_stored_with_their_intent",
    ),
    Mutant(
        "bump-sent-before-it-is-stored",
        "topup/payment/tracking.py",
        "        topup = self._store.replace(topup, Fact.CANCEL if cancel",
        "        await self._rail(topup)._chain.send(*signed)\n"
        "        topup = self._store.replace(topup, Fact.CANCEL if cancel",
        "tests/payment/test_pursuit.py::test_no_bytes_leave_that_are_not_stored_with_their_intent",
    ),
    Mutant(
        "fresh-nonce-on-a-bump",
        "topup/sellers/coinbase.py",
        "            nonce=preflight.nonce_latest,\n",
        "            nonce=preflight.nonce_pending,\n",
        "tests/payment/test_pursuit.py::test_a_late_payment_is_outbid_at_its_own_nonce_and_paid_once",
    ),
    Mutant(
        "bump-of-less-than-a-tenth",
        "topup/sellers/coinbase.py",
        "fee = max(fee, attempt.plan.max_fee_per_gas.plus_bps_up(self._terms.bump))",
        "fee = max(fee, attempt.plan.max_fee_per_gas + Wei(1))",
        "tests/payment/test_pursuit.py::test_a_late_payment_is_outbid_at_its_own_nonce_and_paid_once",
    ),
    Mutant(
        "dead-by-the-newest-block",
        "topup/payment/tracking.py",
        "        return observation.finalized_s > deadline_s or spent\n",
        "        return True\n",
        "tests/payment/test_pursuit.py::test_nothing_is_dead_before_a_final_block_says_so",
    ),
    Mutant(
        "expired-by-this-machines-clock",
        "topup/payment/tracking.py",
        "        if observation.head.timestamp_s > self._deadline_s(topup):\n"
        '            return self._move(topup, Fact.EXPIRED, "the deadline passed before',
        "        if self._clock.now() // 1000 > self._deadline_s(topup):\n"
        '            return self._move(topup, Fact.EXPIRED, "the deadline passed before',
        "tests/payment/test_pursuit.py::test_this_machines_clock_ends_no_charge",
    ),
    Mutant(
        "attested-before-all-is-over",
        "topup/payment/tracking.py",
        "        if not self._settled_for_ever(topup, observation, self._deadline_s(topup)):\n",
        "        if word != ATTEST and not self._settled_for_ever(topup, observation, self._deadline_s(topup)):\n",
        "tests/payment/test_pursuit.py::test_a_word_that_nothing_was_paid_counts_only_once_nothing_can_be",
    ),
    Mutant(
        "sent-again-while-halted",
        "topup/payment/tracking.py",
        "        word = self._new_word(topup)\n        if word is None:\n",
        "        topup = await self._resend(topup) if topup.out else topup\n"
        "        word = self._new_word(topup)\n        if word is None:\n",
        "tests/payment/test_pursuit.py::test_what_is_halted_is_looked_for_and_not_sent",
    ),
    Mutant(
        "outbid-at-any-multiple",
        "topup/sellers/coinbase.py",
        "        if bump and fee > asked.times(self._terms.bump_times_max):\n",
        "        if bump and fee > asked.times(1000):\n",
        "tests/payment/test_pursuit.py::test_no_bump_goes_beyond_the_multiple_of_what_is_asked_now",
    ),
    Mutant(
        "retried-for-ever",
        "topup/payment/tracking.py",
        "        if len(failed) > self._pace.retries_max:\n",
        "        if len(failed) > 1000:\n",
        "tests/payment/test_pursuit.py::test_a_charge_is_not_retried_for_ever",
    ),
    Mutant(
        "dead-before-the-deadline-is-final",
        "topup/domain/nonpayment.py",
        "    if payment_status.final_s > deadline_s:\n",
        "    if payment_status.final_s:\n",
        "tests/proofs/test_rule_r.py",
    ),
    Mutant(
        "one-witness-is-proof",
        "topup/domain/nonpayment.py",
        "WITNESSES = 2\n",
        "WITNESSES = 1\n",
        "tests/payment/test_pursuit.py::test_an_expired_charge_seen_by_one_provider_alone_needs_a_person",
    ),
    Mutant(
        "sponsored-signed-again",
        "topup/domain/nonpayment.py",
        "if charge.seq == seq and any(a.plan.sponsored for a in _payments(topup, seq)):",
        "if charge.seq == seq and any(not a.plan.sponsored for a in ()):",
        "tests/chain/test_control.py::test_a_charge_whose_sponsored_payment_left_is_never_signed_again",
    ),
    Mutant(
        "no-control-asked-for",
        "topup/chain/authorizations.py",
        '        shown = await control(rpc, at, use.ends_s, search.may) if use.mark is None else b""\n',
        '        shown = b""\n',
        "tests/chain/test_control.py::test_two_without_logs_prove_nothing",
    ),
    Mutant(
        "control-from-before-the-end",
        "topup/chain/control.py",
        "            ended = at.timestamp_s < since_s\n",
        "            ended = at.timestamp_s < 0\n",
        "tests/chain/test_control.py::test_where_nobody_has_sent_anything_since_nothing_is_dead",
    ),
    Mutant(
        "dead-at-its-end",
        "topup/domain/lifecycle.py",
        "SPONSORED_MARGIN_S: Final = 60\n",
        "SPONSORED_MARGIN_S: Final = 0\n",
        "tests/sellers/test_sponsored.py::test_the_end_of_what_is_sponsored_is_what_was_signed_and_a_minute",
    ),
    Mutant(
        "rule-r-forgotten",
        "topup/domain/nonpayment.py",
        "        if charge.seq != seq and out and charge.dead is None:\n",
        "        if charge.seq == seq and out and charge.dead is None:\n",
        "tests/proofs/test_rule_r.py",
    ),
    Mutant(
        "receipt-status-ignored",
        "topup/chain/receipts.py",
        'success = quantity(receipt.get("status"), "the receipt\'s status") == 1',
        "success = True",
        "tests/sandbox/test_sandbox.py::test_every_fault_ends_as_its_line_says[chain-price-jumps]",
    ),
    Mutant(
        "no-canonical-check",
        "topup/chain/receipts.py",
        'if not isinstance(block, dict) or unhexed(block.get("hash")) != unhexed(receipt["blockHash"]):',
        "if not isinstance(block, dict):",
        "tests/chain/test_chain.py::test_a_receipt_of_no_block_is_not_counted[embedded-an-orphan-names-another-block]",
    ),
    Mutant(
        "caps-forget-what-is-pending",
        "topup/ledger/spending.py",
        "        spent = Usd.of(0) if failed else Usd.of",
        "        spent = Usd.of(0) if state is not State.DONE else Usd.of",
        "tests/ledger/test_store.py::test_the_past_counts_what_is_pending_at_its_most",
    ),
    Mutant(
        "the-month-is-a-day",
        "topup/domain/policy.py",
        "(Why.CAP_30D, limits.cap_30d, month, 30 * DAY_MS),",
        "(Why.CAP_30D, limits.cap_30d, day, 30 * DAY_MS),",
        "tests/domain/test_policy.py",
    ),
    Mutant(
        "flag-trusted-without-self-test",
        "topup/payment/tracking.py",
        'flag_tested=self._store.told("", flag_name(topup, self._demand(topup))) == "1",',
        "flag_tested=True,",
        "tests/payment/test_pursuit.py::test_a_mark_that_was_never_tested_ends_nothing",
    ),
    Mutant(
        "unknown-taken-for-low",
        "topup/domain/policy.py",
        '        return Hold(Why.UNKNOWN, f"{reading.doubt}: {reading.detail}")\n',
        '        return Buy(limits.topup_min, Why.BELOW_FLOOR, f"{reading.doubt}: {reading.detail}")\n',
        "tests/domain/test_policy.py",
    ),
    Mutant(
        "verify-skips-the-operator",
        "topup/domain/coinbase_charge.py",
        "intent.operator, pins.operators, remedy)",
        "intent.operator, {intent.operator}, remedy)",
        "tests/domain/test_charge.py",
    ),
    Mutant(
        "no-lock",
        "topup/ledger/lock.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "tests/ledger/test_store.py::test_a_second_writer_is_turned_away",
    ),
    Mutant(
        "no-fence",
        "topup/ledger/lock.py",
        "            if newest != 1:\n",
        "            if newest not in (0, 1):\n",
        "tests/ledger/test_store.py::test_a_writer_that_was_taken_over_writes_nothing_more",
    ),
    Mutant(
        "commits-that-power-loss-takes-back",
        "topup/ledger/database.py",
        '"synchronous = FULL"',
        '"synchronous = NORMAL"',
        "tests/ledger/test_store.py::test_a_commit_survives_the_loss_of_power",
    ),
    Mutant(
        "nonce-ahead-ignored",
        "topup/payment/preparation.py",
        "        if preflight.nonce_latest == expected:\n            return None\n",
        "        if preflight.nonce_latest >= expected:\n            return None\n",
        "tests/payment/test_life.py::test_a_wallet_that_sent_more_than_the_ledger_knows_signs_nothing",
    ),
    Mutant(
        "halt-left-without-a-word",
        "topup/payment/tracking.py",
        "        if word is None:\n",
        "        if word is None and topup.payment is None:\n",
        "tests/payment/test_pursuit.py::test_only_a_word_leads_out_of_a_halt",
    ),
    Mutant(
        "attestation-overrules-the-chain",
        "topup/payment/tracking.py",
        "        if topup.payment is not None:\n            self._store.obeyed(",
        "        if topup.payment is not None and word != ATTEST:\n            self._store.obeyed(",
        "tests/payment/test_life.py::test_an_attestation_does_not_overrule_the_chain",
    ),
    Mutant(
        "pause-forgotten-before-signing",
        "topup/payment/preparation.py",
        "        if self._paused():\n            return Why.PAUSED.value\n",
        "",
        "tests/payment/test_life.py::test_a_pause_between_plan_and_signature_signs_nothing",
    ),
    Mutant(
        "booked-twice",
        "topup/ledger/steps.py",
        '"UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0"',
        '"UPDATE attempt SET booked = 1 WHERE id = ?"',
        "tests/ledger/test_store.py::test_an_attempt_is_booked_once",
    ),
    Mutant(
        "replaced-block-stays-in-the-books",
        "topup/payment/confirmation.py",
        "        reversed_ = journal.reversal(self._store.booked(topup.id, attempt), now)",
        "        reversed_ = self._store.booked(topup.id, attempt)",
        "tests/payment/test_pursuit.py::test_a_block_replaced_after_the_end_is_taken_back_and_pauses_buying",
    ),
    Mutant(
        "any-quote-is-fair",
        "topup/domain/policy.py",
        "        if deviation > ceilings.price_deviation:\n",
        "        if deviation < ceilings.price_deviation and False:\n",
        "tests/domain/test_policy.py",
    ),
    Mutant(
        "a-missing-receipt-takes-back",
        "topup/chain/receipts.py",
        "    return frozenset(key for key, own in doubted.items() if next_nonce <= own)\n",
        "    return frozenset(doubted)\n",
        "tests/payment/test_ways_out.py::test_a_node_that_is_a_block_behind_in_its_pool_takes_nothing_back",
    ),
    Mutant(
        "one-provider-takes-back",
        "topup/payment/reorg.py",
        "if second is not None and believe_unspent else frozenset()",
        "if second is not None else frozenset()",
        "tests/payment/test_ways_out.py::test_one_honest_provider_says_it_and_waits_for_a_person",
    ),
    Mutant(
        "what-is-denied-is-settled",
        "topup/payment/reorg.py",
        "        lowest = min(height, *ends)\n",
        "        lowest = height\n",
        "tests/payment/test_ways_out.py::test_nothing_is_taken_back_or_settled_that_the_second_look_does_not_confirm",
    ),
    Mutant(
        "an-invention-is-never-taken-back",
        "topup/payment/reorg.py",
        "    return observation.replaced | observation.unspent\n",
        "    return observation.replaced\n",
        "tests/payment/test_ways_out.py::test_an_invented_inclusion_is_taken_back_by_two_and_the_payment_is_made",
    ),
    Mutant(
        "a-stranger-is-final-by-its-height",
        "topup/payment/foreign_nonce.py",
        "            if shown.block.hash == taken.block_hash:\n",
        "            if shown.block.hash:\n",
        "tests/payment/test_ways_out.py::test_a_block_that_was_replaced_shows_no_nonce_used_for_ever",
    ),
    Mutant(
        "a-strangers-block-need-not-be-final",
        "topup/payment/foreign_nonce.py",
        "return taken, shown.final and shown.block.number ==",
        "return taken, shown.block.number ==",
        "tests/payment/test_ways_out.py::test_a_block_that_was_replaced_shows_no_nonce_used_for_ever",
    ),
    Mutant(
        "a-stranger-buys-another-charge",
        "topup/payment/tracking.py",
        " or foreign(topup, seq, self._contest.gone):\n",
        ":\n",
        "tests/payment/test_ways_out.py::test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses",
    ),
    Mutant(
        "a-stranger-pauses-nothing",
        "topup/payment/tracking.py",
        '            self._store.pause(self._account.name, self._clock.now())\n            said += f"; {ELSEWHERE}"\n',
        '            said += f"; {ELSEWHERE}"\n',
        "tests/payment/test_ways_out.py::test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses",
    ),
    Mutant(
        "one-of-its-nonces-is-enough",
        "topup/domain/nonpayment.py",
        "    if all(a.nonce_slot in taken or a.nonce_slot in gone for a in payments):\n",
        "    if all(a.nonce_slot in taken for a in payments) or any(a.nonce_slot in gone for a in payments):\n",
        "tests/proofs/test_rule_r.py",
    ),
    Mutant(
        "the-hour-begins-anew",
        "topup/payment/foreign_nonce.py",
        "        since.append(after.since_ms)\n",
        "        since.append(now_ms)\n",
        "tests/payment/test_ways_out.py::test_the_hour_of_a_used_nonce_is_not_begun_anew_by_a_restart",
    ),
    Mutant(
        "a-cancel-says-stored-and-does-nothing",
        "topup/domain/ways_out.py",
        "        if contested:\n",
        "        if contested and topup.payment:\n",
        "tests/domain/test_ways.py::test_a_cancel_that_can_do_nothing_is_refused",
    ),
    Mutant(
        "a-machine-put-back-signs-at-once",
        "topup/payment/ledger_clock.py",
        "        self._began = self._anchor\n",
        "",
        "tests/payment/test_signed_terms.py::test_a_machine_that_is_put_back_with_its_memory_pays_once",
    ),
    Mutant(
        "a-chain-that-catches-up-is-a-leap",
        "topup/domain/lost_time.py",
        "filter(None, (self._wall, self._chain))]",
        "filter(None, (self._chain or self._wall,))]",
        "tests/domain/test_leap.py::test_a_chain_that_catches_up_with_this_machine_has_leapt_over_nothing",
    ),
    Mutant(
        "mpp-proof-skips-the-realm",
        "topup/sellers/mpp_choice.py",
        "right=realm == terms.realm)",
        "right=True)",
        "tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[realm]",
    ),
    Mutant(
        "mpp-proof-skips-the-splits",
        "topup/sellers/mpp_choice.py",
        '"none", right=not charge.splits)',
        '"none", right=True)',
        "tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[splits]",
    ),
    Mutant(
        "mpp-on-any-chain",
        "topup/domain/demand.py",
        "*chain, chain[0] == chain[1],",
        "*chain, True,",
        "tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[chain]",
    ),
    Mutant(
        "any-recipient-of-an-authorization",
        "topup/domain/demand.py",
        "    if bounds.recipients is not None:\n",
        "    if bounds.recipients is None:\n",
        "tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[recipient]",
    ),
    Mutant(
        "x402-proof-skips-the-tokens-name",
        "topup/sellers/x402_choice.py",
        "right=said in (own, None))",
        "right=True)",
        "tests/sellers/test_rails_safety.py::test_an_offer_with_one_thing_wrong_is_refused",
    ),
    Mutant(
        "x402-takes-the-first-of-several-that-differ",
        "topup/sellers/x402_choice.py",
        "if len({_means(offer, wanted) for offer in passing}) == 1 else None",
        "if passing else None",
        "tests/sellers/test_x402_choice.py::test_offers_that_differ_are_refused_until_a_setting_decides",
    ),
    Mutant(
        "x402-chooses-anew-by-the-present-settings",
        "topup/sellers/x402.py",
        "if offer.index == kept.choice), None)",
        "if offer.pay_to in (self._seller.bounds.recipients or ())), None)",
        "tests/sellers/test_rails_safety.py::test_what_was_chosen_stays_chosen_whatever_is_pinned_later",
    ),
    Mutant(
        "new-lane-for-each-attempt",
        "topup/sellers/mpp.py",
        "tempo.lane_of(request.purchase.encode() if request.purchase else bytes.fromhex(key))",
        "tempo.lane_of(bytes.fromhex(key))",
        "tests/sellers/test_rails_safety.py::test_every_attempt_of_a_purchase_is_on_its_one_lane",
    ),
    Mutant(
        "fate-ignores-the-log",
        "topup/chain/authorizations.py",
        "    payers = {tx_hash for tx_hash, _ in piece.carriers}\n",
        "    payers: set[bytes] = set()\n",
        "tests/sellers/test_rails_safety.py::test_what_was_used_is_found_by_its_log_and_planned_with_no_more",
    ),
    Mutant(
        "piece-of-a-replaced-chain-counts",
        "topup/chain/search.py",
        "                if isinstance(block, dict) and head(block).hash == digest:\n",
        "                if isinstance(block, dict):\n",
        "tests/chain/test_long_logs.py::test_what_was_read_of_another_chain_does_not_count",
    ),
    Mutant(
        "patience-is-asked-for-without-end",
        "topup/chain/search.py",
        "spent_ms=piece.spent_ms + self.pager.budget.now_ms() - since_ms)\n            self",
        "spent_ms=piece.spent_ms)\n            self",
        "tests/chain/test_long_logs.py::test_others_wait_no_longer_for_one_that_only_asks_for_patience",
    ),
    Mutant(
        "piece-of-another-owner-counts",
        "topup/ledger/recovered.py",
        ' AND subject = ? AND owner = ?"\n        stored = self._all(sql, chain_id, subject, owner)\n',
        ' AND subject = ?"\n        stored = self._all(sql, chain_id, subject)\n',
        "tests/chain/test_long_logs.py::test_a_ledger_keeps_a_piece_as_it_was",
    ),
    Mutant(
        "half-a-search-is-a-witness",
        "topup/chain/charge_status.py",
        "    return piece if piece.last >= newest.number else Unread(newest, piece.last, search.late(piece))\n",
        "    return piece\n",
        "tests/chain/test_long_logs.py::test_nothing_is_concluded_while_one_has_not_read_to_the_end",
    ),
    Mutant(
        "page-of-another-chain-counts",
        "topup/chain/paging.py",
        "    if anchor is not None and head(block).hash != anchor.hash:\n",
        "    if anchor is None and head(block).hash == b'':\n",
        "tests/chain/test_long_logs.py::test_a_node_of_another_chain_in_between_ends_the_page",
    ),
    Mutant(
        "rate-halves-the-range",
        "topup/chain/paging.py",
        "            if why is Refusal.RATE:\n",
        "            if why is Refusal.RATE and count < 2:\n",
        "tests/chain/test_long_logs.py::test_a_rate_is_waited_for_and_never_shortens_a_range",
    ),
    Mutant(
        "used-authorization-planned-with",
        "topup/chain/token_chain.py",
        '    if any(known_word(answer, "an authorization\'s mark") for answer in marks):\n',
        '    if any(known_word(answer, "an authorization\'s mark") > 1 for answer in marks):\n',
        "tests/sellers/test_rails_safety.py::test_what_was_used_is_found_by_its_log_and_planned_with_no_more",
    ),
    Mutant(
        "mark-of-a-failed-one-kept",
        "topup/sellers/authorization.py",
        "            return replace(status, flag=False)\n",
        "            return status\n",
        "tests/sellers/test_rails_safety.py::test_the_mark_of_what_ran_and_failed_is_no_payment",
    ),
    Mutant(
        "signed-for-longer-than-judged",
        "topup/signers/local.py",
        "verified.total.units, 0, demand.deadline, nonce",
        "verified.total.units, 0, demand.deadline + 3600, nonce",
        "tests/sellers/test_rails_safety.py::test_what_is_signed_ends_when_it_was_judged_to_end",
    ),
    Mutant(
        "refusal-taken-for-unpaid",
        "topup/payment/tracking.py",
        "            if topup.state is State.HALTED:\n                return topup\n        if topup",
        '            if topup.state is State.HALTED or topup.out[-1].answer.startswith("refused"):\n'
        '                return self._move(self._move(topup, Fact.EXPIRED, "refused"), Fact.FAIL, "refused")\n'
        "        if topup",
        "tests/sellers/test_rails_safety.py::test_a_402_after_settling_is_not_called_unpaid",
    ),
    Mutant(
        "invalid-bytes-sent-for-ever",
        "topup/payment/tracking.py",
        "            if topup.state is State.SENT and first and len(self._of_charge(topup)) == 1:\n",
        "            if False:\n",
        "tests/payment/test_pursuit.py::test_bytes_that_every_provider_calls_invalid_halt",
    ),
    Mutant(
        "what-was-taken-halts",
        "topup/payment/tracking.py",
        "            if topup.state is State.SENT and first and len(self._of_charge(topup)) == 1:\n",
        "            if topup.state is State.SENT:\n",
        "tests/payment/test_pursuit.py::test_bytes_that_were_taken_before_are_followed_on",
    ),
    Mutant(
        "foreign-bid-unseen",
        "topup/payment/tracking.py",
        "            if not ours:\n                contested",
        "            if ours:\n                contested",
        "tests/payment/test_pursuit.py::test_another_transaction_at_our_nonce_is_an_alarm",
    ),
    Mutant(
        "key-approves-anything",
        "topup/signers/local.py",
        "data = _transfer(charge.intent) if pays else _approval(ceilings.contract, verified.total.units)",
        "data = _transfer(charge.intent) if pays else plan.data",
        "tests/sellers/test_rails_safety.py::test_the_key_approves_exactly_the_total",
    ),
    Mutant(
        "approval-without-a-limit",
        "topup/sellers/coinbase.py",
        "self._chain.approval(charge.sender, charge.contract, charge.total)",
        "self._chain.approval(charge.sender, charge.contract, type(charge.total)(2**256 - 1))",
        "tests/payment/test_usdc.py::test_a_charge_is_paid_in_usdc_by_two_transactions",
    ),
    Mutant(
        "approval-taken-for-the-payment",
        "topup/payment/confirmation.py",
        "        if seen.inclusion.success and attempt.plan.kind is Kind.PAY:\n",
        "        if seen.inclusion.success and attempt.plan.kind is not Kind.CANCEL:\n",
        "tests/payment/test_usdc.py::test_a_charge_is_paid_in_usdc_by_two_transactions",
    ),
    Mutant(
        "approval-never-taken-back",
        "topup/payment/approvals.py",
        "    return bool(touched) and touched[-1].plan.kind is Kind.APPROVE and not revokes(touched[-1])\n",
        "    return bool(touched) and touched[-1].plan.kind is Kind.APPROVE and revokes(touched[-1])\n",
        "tests/payment/test_usdc.py::test_an_approval_that_outlives_its_charge_is_taken_back",
    ),
    Mutant(
        "one-tombstone-stops-all",
        "topup/payment/monitor.py",
        "gone=control.gone >= {route.rail for route in self._account.routes},",
        "gone=bool(control.gone),",
        "tests/sellers/test_rails_safety.py::test_a_rail_that_is_gone_leaves_the_others_alone",
    ),
    Mutant(
        "another-rail-inside-a-top-up",
        "topup/payment/step.py",
        "        rail = self._rails(topup.rail)\n",
        "        gone = self._store.control(self._account.name).gone\n"
        "        rail = self._rails(next(r.rail for r in self._account.routes if r.rail not in gone))\n",
        "tests/sellers/test_rails_safety.py::test_a_top_up_ends_on_the_rail_it_began_on",
    ),
    Mutant(
        "a-copy-that-was-put-back-signs-at-once",
        "topup/payment/preparation.py",
        "left_ms = self._pace.young_s * 1000 - self._clock.watched_ms()\n",
        "left_ms = 0\n",
        "tests/payment/test_signed_terms.py::test_a_copy_that_was_put_back_waits_as_well",
    ),
    Mutant(
        "a-name-that-a-copy-used-is-kept",
        "topup/payment/step.py",
        "failed += sum(charge.abandoned == Reason.AUTHORIZATION_USED for charge in topup.charges)",
        "failed += 0",
        "tests/payment/test_signed_terms.py::test_a_copy_that_lacks_many_purchases_waits_and_goes_on_buying",
    ),
    Mutant(
        "a-nonce-that-no-purchase-gives",
        "topup/sellers/x402.py",
        "if not request.purchase:",
        "if True:",
        "tests/payment/test_signed_terms.py::test_a_machine_that_is_put_back_with_no_time_lost_pays_once",
    ),
    Mutant(
        "access-limit-is-not-judged",
        "topup/domain/policy.py",
        "    if key.left is None or need <= key.left:\n",
        "    if key.left is None or need.units >= 0:\n",
        "tests/commands/test_limit.py::test_a_key_that_would_fail_on_the_chain_is_forbidden",
    ),
    Mutant(
        "root-key-signs-unasked",
        "topup/commands/wallet_limit.py",
        '        if agreed("sign and send this?", yes=yes,',
        '        if agreed("sign and send this?", yes=not dry_run,',
        "tests/commands/test_limit.py::test_the_call_is_shown_before_anything_is_signed",
    ),
    Mutant(
        "approved-without-a-dry-run-of-the-payment",
        "topup/sellers/coinbase.py",
        "            call = replace(allow, then=self._chain.token_payment(verified))\n",
        "            call = allow\n",
        "tests/payment/test_usdc.py::test_nothing_is_approved_for_a_payment_that_cannot_go_through",
    ),
    Mutant(
        "withdrawn-though-taken",
        "topup/ledger/wishes.py",
        "WHERE id = ? AND taken_ms IS NULL AND {WAITING}",
        "WHERE id = ?",
        "tests/commands/test_wishes.py::test_a_top_up_is_decided_for_a_wish_that_is_being_carried_out_and_for_no_other",
    ),
    Mutant(
        "taken-though-withdrawn",
        "topup/ledger/wishes.py",
        "SET taken_ms = ? WHERE id = ? AND {WAITING}",
        "SET taken_ms = ? WHERE id = ?",
        "tests/commands/test_wishes.py::test_a_top_up_is_decided_for_a_wish_that_is_being_carried_out_and_for_no_other",
    ),
    Mutant(
        "top-up-without-its-wish",
        "topup/payment/cycle.py",
        "            wish=wish,\n",
        "            wish=None,\n",
        "tests/commands/test_wishes.py::test_stopped_while_the_payment_is_out_it_says_so",
    ),
    Mutant(
        "safe-to-ask-again-though-sent",
        "topup/commands/wish.py",
        "            if unfinished is not None and (stuck is not None or unfinished.out):\n",
        "            if unfinished is None and stuck is not None:\n",
        "tests/commands/test_wishes.py::test_stopped_while_the_payment_is_out_it_says_so",
    ),
    Mutant(
        "lost-log-lines-uncounted",
        "topup/app/log.py",
        "            self._lost += 1\n            return\n",
        "            return\n",
        "tests/app/test_log.py::test_a_reader_that_reads_again_is_told_how_many_lines_were_lost_and_where",
    ),
)


def copied(root: Path, where: Path) -> None:
    """Copy what the tests need from one checkout to another."""
    for name in KEPT:
        source = root / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.pyc")
            shutil.copytree(source, where / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, where / name)
    modules = ROOT / "tests" / "npm" / "node_modules"
    if modules.is_dir() and not (where / "tests" / "npm" / "node_modules").exists():
        (where / "tests" / "npm" / "node_modules").symlink_to(modules)


class Verdict(StrEnum):
    """What a sabotage does to its test: no assertion noticed it, one did, or the test died of something else."""

    SURVIVED = "SURVIVED"
    KILLED = "killed"
    BROKEN = "BROKEN"


def judged(where: Path, tests: str) -> tuple[Verdict, str]:
    """Run these tests in that checkout until one fails; return what the first failure was, with its first line.

    Raises:
        RuntimeError: pytest could not run them, or one was skipped.
    """
    report = where / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests.split()], cwd=where, env=environment, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict.BROKEN, f"it went on for more than {PATIENCE_S} s"
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests} cannot be run: {done.stdout.decode()[-500:]}{done.stderr.decode()[-500:]}")
    ended = [e for e in ET.parse(report).iter() if e.tag in ("failure", "error", "skipped")]  # noqa: S314 - it is pytest's
    if skipped := [e.get("message", "") for e in ended if e.tag == "skipped"]:
        raise RuntimeError(f"{tests} was skipped, which shows nothing: {skipped[0]}")
    if done.returncode == 0:
        return Verdict.SURVIVED, ""
    said = [e.get("message", "").strip().partition("\n")[0] for e in ended]
    asserted = any(e.tag == "failure" and e.get("message", "").startswith(ASSERTED) for e in ended)
    return Verdict.KILLED if asserted else Verdict.BROKEN, said[0] if said else "no failure was reported"


def verdict(mutant: Mutant, root: Path) -> tuple[Verdict, str]:
    """Apply one sabotage to a fresh copy of `root`; return what its test makes of it."""
    with tempfile.TemporaryDirectory(prefix="topup-mutant-") as temporary:
        where = Path(temporary)
        copied(root, where)
        (where / mutant.file).write_text(sabotaged(mutant, root), encoding="utf-8")
        return judged(where, mutant.test)


def sabotaged(mutant: Mutant, root: Path = ROOT) -> str:
    """Return the file with the sabotage in it.

    Raises:
        ValueError: the line to sabotage is not there exactly once.
    """
    text = (root / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.was) != 1:
        raise ValueError(f"{mutant.name}: {mutant.was!r} stands {text.count(mutant.was)} times in {mutant.file}")
    return text.replace(mutant.was, mutant.now)


def main() -> int:
    """Run from the command line; exit 1 when a sabotage survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.mutants", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.names) - {m.name for m in MUTANTS}:
        parser.error(f"no sabotage is called {', '.join(sorted(unknown))}")
    chosen = [m for m in MUTANTS if not given.names or m.name in given.names]
    for mutant in chosen:
        sabotaged(mutant)
    with tempfile.TemporaryDirectory(prefix="topup-unharmed-") as temporary:
        unharmed = Path(temporary)
        copied(ROOT, unharmed)  # once: whoever edits meanwhile disturbs nothing
        tests = " ".join(sorted({test for m in chosen for test in m.test.split()}))
        found, why = judged(unharmed, f"{tests} -n {given.jobs}")
        if found is not Verdict.SURVIVED:
            sys.stderr.write(f"these tests fail without any sabotage: {tests}\n{why}\n")
            return 1
        with ThreadPoolExecutor(given.jobs) as pool:
            verdicts = list(pool.map(lambda mutant: verdict(mutant, unharmed), chosen))
    rows = list(zip(chosen, verdicts, strict=True))
    if given.json:
        told = [{"mutant": m.name, "test": m.test, "killed": v is Verdict.KILLED, "by": why} for m, (v, why) in rows]
        sys.stdout.write(json.dumps({"schema": 1, "mutants": told}) + "\n")
    else:
        for mutant, (found, why) in rows:
            sys.stdout.write(f"{found:<8} {mutant.name:<44} {mutant.test}\n")
            if found is Verdict.BROKEN:
                sys.stdout.write(f"         no assertion noticed it: {why}\n")
        sys.stdout.write(f"{sum(v is Verdict.KILLED for v, _ in verdicts)} of {len(rows)} killed by an assertion\n")
    return int(any(found is not Verdict.KILLED for found, _ in verdicts))


if __name__ == "__main__":
    sys.exit(main())
