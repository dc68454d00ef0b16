"""Does every safety rule have a test that goes red without it? One-line sabotages, each held against a named test.

    python -m tests.proofs.mutants [NAME...] [--jobs N]

Each sabotage is applied to a copy of the checkout; the test it names has to pass on the copy as it is and to fail on
the sabotaged one, by an assertion: a test that dies of a TypeError has noticed that the code is broken, not that the
rule is gone. A sabotage whose line is no longer in the source is an error: the list lives with the code.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


# Each by its name and its file, the test that has to notice, and as in a patch the lines that go (-) and come (+); of a
# line so much is enough as stands in the file once.
SABOTAGES: Final = r"""
sent-before-the-intent-is-stored topup/payment/preparation.py
tests/payment/test_pursuit.py::test_no_bytes_leave_that_are_not_stored_with_their_intent
-                return self._intend(topup)
+                await self._rail(topup)._chain.send(topup.attempt.raw, topup.attempt.hash)
+                return self._intend(topup)
bump-sent-before-it-is-stored topup/payment/tracking.py
tests/payment/test_pursuit.py::test_no_bytes_leave_that_are_not_stored_with_their_intent
-        topup = self._store.replace(topup, Fact.CANCEL if cancel
+        await self._rail(topup)._chain.send(*signed)
+        topup = self._store.replace(topup, Fact.CANCEL if cancel
fresh-nonce-on-a-bump topup/sellers/coinbase.py
tests/payment/test_pursuit.py::test_a_late_payment_is_outbid_at_its_own_nonce_and_paid_once
-            nonce=preflight.nonce_latest,
+            nonce=preflight.nonce_pending,
bump-of-less-than-a-tenth topup/sellers/coinbase.py
tests/payment/test_pursuit.py::test_a_late_payment_is_outbid_at_its_own_nonce_and_paid_once
-fee = max(fee, attempt.plan.max_fee_per_gas.plus_bps_up(self._terms.bump))
+fee = max(fee, attempt.plan.max_fee_per_gas + Wei(1))
dead-by-the-newest-block topup/payment/tracking.py
tests/payment/test_pursuit.py::test_nothing_is_dead_before_a_final_block_says_so
-        return observation.finalized_s > deadline_s or spent
+        return True
expired-by-this-machines-clock topup/payment/tracking.py
tests/payment/test_pursuit.py::test_this_machines_clock_ends_no_charge
-        if observation.head.timestamp_s > self._deadline_s(topup):
-            return self._move(topup, Fact.EXPIRED, "the deadline passed before
+        if self._clock.now() // 1000 > self._deadline_s(topup):
+            return self._move(topup, Fact.EXPIRED, "the deadline passed before
attested-before-all-is-over topup/payment/tracking.py
tests/payment/test_pursuit.py::test_a_word_that_nothing_was_paid_counts_only_once_nothing_can_be
-        if not self._settled_for_ever(topup, observation, self._deadline_s(topup)):
+        if word != ATTEST and not self._settled_for_ever(topup, observation, self._deadline_s(topup)):
sent-again-while-halted topup/payment/tracking.py
tests/payment/test_pursuit.py::test_what_is_halted_is_looked_for_and_not_sent
-        word = self._new_word(topup)
-        if word is None:
+        topup = await self._resend(topup) if topup.out else topup
+        word = self._new_word(topup)
+        if word is None:
outbid-at-any-multiple topup/sellers/coinbase.py
tests/payment/test_pursuit.py::test_no_bump_goes_beyond_the_multiple_of_what_is_asked_now
-        if bump and fee > asked.times(self._terms.bump_times_max):
+        if bump and fee > asked.times(1000):
retried-for-ever topup/payment/tracking.py
tests/payment/test_pursuit.py::test_a_charge_is_not_retried_for_ever
-        if len(failed) > self._pace.retries_max:
+        if len(failed) > 1000:
dead-before-the-deadline-is-final topup/domain/nonpayment.py
tests/proofs/test_rule_r.py
-    if payment_status.final_s > deadline_s:
+    if payment_status.final_s:
one-witness-is-proof topup/domain/nonpayment.py
tests/payment/test_pursuit.py::test_an_expired_charge_seen_by_one_provider_alone_needs_a_person
-WITNESSES = 2
+WITNESSES = 1
sponsored-signed-again topup/domain/nonpayment.py
tests/chain/test_control.py::test_a_charge_whose_sponsored_payment_left_is_never_signed_again
-if charge.seq == seq and any(a.plan.sponsored for a in _payments(topup, seq)):
+if charge.seq == seq and any(not a.plan.sponsored for a in ()):
no-control-asked-for topup/chain/authorizations.py
tests/chain/test_control.py::test_two_without_logs_prove_nothing
-        shown = await control(rpc, at, use.ends_s, search.may) if use.mark is None else b""
+        shown = b""
control-from-before-the-end topup/chain/control.py
tests/chain/test_control.py::test_where_nobody_has_sent_anything_since_nothing_is_dead
-            ended = at.timestamp_s < since_s
+            ended = at.timestamp_s < 0
dead-at-its-end topup/domain/lifecycle.py
tests/sellers/test_sponsored.py::test_the_end_of_what_is_sponsored_is_what_was_signed_and_a_minute
-SPONSORED_MARGIN_S: Final = 60
+SPONSORED_MARGIN_S: Final = 0
rule-r-forgotten topup/domain/nonpayment.py
tests/proofs/test_rule_r.py
-        if charge.seq != seq and out and charge.dead is None:
+        if charge.seq == seq and out and charge.dead is None:
receipt-status-ignored topup/chain/receipts.py
tests/sandbox/test_sandbox.py::test_every_fault_ends_as_its_line_says[chain-price-jumps]
-success = quantity(receipt.get("status"), "the receipt's status") == 1
+success = True
no-canonical-check topup/chain/receipts.py
tests/chain/test_chain.py::test_a_receipt_of_no_block_is_not_counted[embedded-an-orphan-names-another-block]
-if not isinstance(block, dict) or unhexed(block.get("hash")) != unhexed(receipt["blockHash"]):
+if not isinstance(block, dict):
caps-forget-what-is-pending topup/ledger/spending.py
tests/ledger/test_store.py::test_the_past_counts_what_is_pending_at_its_most
-        spent = Usd.of(0) if failed else Usd.of
+        spent = Usd.of(0) if state is not State.DONE else Usd.of
the-month-is-a-day topup/domain/policy.py
tests/domain/test_policy.py
-(Why.CAP_30D, limits.cap_30d, month, 30 * DAY_MS),
+(Why.CAP_30D, limits.cap_30d, day, 30 * DAY_MS),
flag-trusted-without-self-test topup/payment/tracking.py
tests/payment/test_pursuit.py::test_a_mark_that_was_never_tested_ends_nothing
-flag_tested=self._store.told("", flag_name(topup, self._demand(topup))) == "1",
+flag_tested=True,
unknown-taken-for-low topup/domain/policy.py
tests/domain/test_policy.py
-        return Hold(Why.UNKNOWN, f"{reading.doubt}: {reading.detail}")
+        return Buy(limits.topup_min, Why.BELOW_FLOOR, f"{reading.doubt}: {reading.detail}")
verify-skips-the-operator topup/domain/coinbase_charge.py
tests/domain/test_charge.py
-intent.operator, pins.operators, remedy)
+intent.operator, {intent.operator}, remedy)
no-lock topup/ledger/lock.py
tests/ledger/test_store.py::test_a_second_writer_is_turned_away
-fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
+pass
no-fence topup/ledger/lock.py
tests/ledger/test_store.py::test_a_writer_that_was_taken_over_writes_nothing_more
-            if newest != 1:
+            if newest not in (0, 1):
commits-that-power-loss-takes-back topup/ledger/database.py
tests/ledger/test_store.py::test_a_commit_survives_the_loss_of_power
-"synchronous = FULL"
+"synchronous = NORMAL"
nonce-ahead-ignored topup/payment/preparation.py
tests/payment/test_life.py::test_a_wallet_that_sent_more_than_the_ledger_knows_signs_nothing
-        if preflight.nonce_latest == expected:
-            return None
+        if preflight.nonce_latest >= expected:
+            return None
halt-left-without-a-word topup/payment/tracking.py
tests/payment/test_pursuit.py::test_only_a_word_leads_out_of_a_halt
-        if word is None:
+        if word is None and topup.payment is None:
attestation-overrules-the-chain topup/payment/tracking.py
tests/payment/test_life.py::test_an_attestation_does_not_overrule_the_chain
-        if topup.payment is not None:
-            self._store.obeyed(
+        if topup.payment is not None and word != ATTEST:
+            self._store.obeyed(
pause-forgotten-before-signing topup/payment/preparation.py
tests/payment/test_life.py::test_a_pause_between_plan_and_signature_signs_nothing
-        if self._paused():
-            return Why.PAUSED.value
booked-twice topup/ledger/steps.py
tests/ledger/test_store.py::test_an_attempt_is_booked_once
-"UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0"
+"UPDATE attempt SET booked = 1 WHERE id = ?"
replaced-block-stays-in-the-books topup/payment/confirmation.py
tests/payment/test_pursuit.py::test_a_block_replaced_after_the_end_is_taken_back_and_pauses_buying
-        reversed_ = journal.reversal(self._store.booked(topup.id, attempt), now)
+        reversed_ = self._store.booked(topup.id, attempt)
any-quote-is-fair topup/domain/policy.py
tests/domain/test_policy.py
-        if deviation > ceilings.price_deviation:
+        if deviation < ceilings.price_deviation and False:
a-missing-receipt-takes-back topup/chain/receipts.py
tests/payment/test_ways_out.py::test_a_payment_that_stands_is_not_taken_back
-    return frozenset(key for key, own in doubted.items() if next_nonce <= own)
+    return frozenset(doubted)
one-provider-takes-back topup/payment/reorg.py
tests/payment/test_ways_out.py::test_a_word_takes_back_what_one_provider_denies
-if second is not None and believe_unspent else frozenset()
+if second is not None else frozenset()
what-is-denied-is-settled topup/payment/reorg.py
tests/payment/test_ways_out.py::test_nothing_is_taken_back_or_settled_that_the_second_look_does_not_confirm
-        lowest = min(height, *ends)
+        lowest = height
an-invention-is-never-taken-back topup/payment/reorg.py
tests/payment/test_ways_out.py::test_a_word_takes_back_what_one_provider_denies
-    return observation.replaced | observation.unspent
+    return observation.replaced
a-stranger-is-final-by-its-height topup/payment/foreign_nonce.py
tests/payment/test_ways_out.py::test_a_block_that_was_replaced_shows_no_nonce_used_for_ever
-            if shown.block.hash == taken.block_hash:
+            if shown.block.hash:
a-strangers-block-need-not-be-final topup/payment/foreign_nonce.py
tests/payment/test_ways_out.py::test_a_block_that_was_replaced_shows_no_nonce_used_for_ever
-return taken, shown.final and shown.block.number ==
+return taken, shown.block.number ==
a-stranger-buys-another-charge topup/payment/tracking.py
tests/payment/test_ways_out.py::test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses
- or foreign(topup, seq, self._contest.gone):
+:
a-stranger-pauses-nothing topup/payment/tracking.py
tests/payment/test_ways_out.py::test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses
-            self._store.pause(self._account.name, self._clock.now())
-            said += f"; {ELSEWHERE}"
+            said += f"; {ELSEWHERE}"
one-of-its-nonces-is-enough topup/domain/nonpayment.py
tests/proofs/test_rule_r.py
-    if all(a.nonce_slot in taken or a.nonce_slot in gone for a in payments):
+    if all(a.nonce_slot in taken for a in payments) or any(a.nonce_slot in gone for a in payments):
the-hour-begins-anew topup/payment/foreign_nonce.py
tests/payment/test_ways_out.py::test_the_hour_of_a_used_nonce_is_not_begun_anew_by_a_restart
-        since.append(after.since_ms)
+        since.append(now_ms)
a-cancel-says-stored-and-does-nothing topup/domain/ways_out.py
tests/domain/test_ways.py::test_a_cancel_that_can_do_nothing_is_refused
-        if contested:
+        if contested and topup.payment:
a-machine-put-back-signs-at-once topup/payment/ledger_clock.py
tests/payment/test_signed_terms.py::test_a_machine_that_is_put_back_with_its_memory_pays_once
-        self._began = self._anchor
a-chain-that-catches-up-is-a-leap topup/domain/lost_time.py
tests/domain/test_leap.py::test_a_chain_that_catches_up_with_this_machine_has_leapt_over_nothing
-filter(None, (self._wall, self._chain))]
+filter(None, (self._chain or self._wall,))]
mpp-proof-skips-the-realm topup/sellers/mpp_choice.py
tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[realm]
-right=realm == terms.realm)
+right=True)
mpp-proof-skips-the-splits topup/sellers/mpp_choice.py
tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[splits]
-"none", right=not charge.splits)
+"none", right=True)
mpp-on-any-chain topup/domain/demand.py
tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[chain]
-*chain, chain[0] == chain[1],
+*chain, True,
any-recipient-of-an-authorization topup/domain/demand.py
tests/sellers/test_rails_safety.py::test_a_challenge_with_one_thing_wrong_is_refused[recipient]
-    if bounds.recipients is not None:
+    if bounds.recipients is None:
x402-proof-skips-the-tokens-name topup/sellers/x402_choice.py
tests/sellers/test_rails_safety.py::test_an_offer_with_one_thing_wrong_is_refused
-right=said in (own, None))
+right=True)
x402-takes-the-first-of-several-that-differ topup/sellers/x402_choice.py
tests/sellers/test_x402_choice.py::test_offers_that_differ_are_refused_until_a_setting_decides
-if len({_means(offer, wanted) for offer in passing}) == 1 else None
+if passing else None
x402-chooses-anew-by-the-present-settings topup/sellers/x402.py
tests/sellers/test_rails_safety.py::test_what_was_chosen_stays_chosen_whatever_is_pinned_later
-if offer.index == kept.choice), None)
+if offer.pay_to in (self._seller.bounds.recipients or ())), None)
new-lane-for-each-attempt topup/sellers/mpp.py
tests/sellers/test_rails_safety.py::test_every_attempt_of_a_purchase_is_on_its_one_lane
-tempo.lane_of(request.purchase.encode() if request.purchase else bytes.fromhex(key))
+tempo.lane_of(bytes.fromhex(key))
fate-ignores-the-log topup/chain/authorizations.py
tests/sellers/test_rails_safety.py::test_what_was_used_is_found_by_its_log_and_planned_with_no_more
-    payers = {tx_hash for tx_hash, _ in piece.carriers}
+    payers: set[bytes] = set()
piece-of-a-replaced-chain-counts topup/chain/search.py
tests/chain/test_long_logs.py::test_what_was_read_of_another_chain_does_not_count
-                if isinstance(block, dict) and head(block).hash == digest:
+                if isinstance(block, dict):
patience-is-asked-for-without-end topup/chain/search.py
tests/chain/test_long_logs.py::test_others_wait_no_longer_for_one_that_only_asks_for_patience
-spent_ms=piece.spent_ms + self.pager.budget.now_ms() - since_ms)
-            self
+spent_ms=piece.spent_ms)
+            self
piece-of-another-owner-counts topup/ledger/recovered.py
tests/chain/test_long_logs.py::test_a_ledger_keeps_a_piece_as_it_was
- AND subject = ? AND owner = ?"
-        stored = self._all(sql, chain_id, subject, owner)
+ AND subject = ?"
+        stored = self._all(sql, chain_id, subject)
half-a-search-is-a-witness topup/chain/charge_status.py
tests/chain/test_long_logs.py::test_nothing_is_concluded_while_one_has_not_read_to_the_end
-    return piece if piece.last >= newest.number else Unread(newest, piece.last, search.late(piece))
+    return piece
page-of-another-chain-counts topup/chain/paging.py
tests/chain/test_long_logs.py::test_a_node_of_another_chain_in_between_ends_the_page
-    if anchor is not None and head(block).hash != anchor.hash:
+    if anchor is None and head(block).hash == b'':
rate-halves-the-range topup/chain/paging.py
tests/chain/test_long_logs.py::test_a_rate_is_waited_for_and_never_shortens_a_range
-            if why is Refusal.RATE:
+            if why is Refusal.RATE and count < 2:
used-authorization-planned-with topup/chain/token_chain.py
tests/sellers/test_rails_safety.py::test_what_was_used_is_found_by_its_log_and_planned_with_no_more
-    if any(known_word(answer, "an authorization's mark") for answer in marks):
+    if any(known_word(answer, "an authorization's mark") > 1 for answer in marks):
mark-of-a-failed-one-kept topup/sellers/authorization.py
tests/sellers/test_rails_safety.py::test_the_mark_of_what_ran_and_failed_is_no_payment
-            return replace(status, flag=False)
+            return status
signed-for-longer-than-judged topup/signers/local.py
tests/sellers/test_rails_safety.py::test_what_is_signed_ends_when_it_was_judged_to_end
-verified.total.units, 0, demand.deadline, nonce
+verified.total.units, 0, demand.deadline + 3600, nonce
refusal-taken-for-unpaid topup/payment/tracking.py
tests/sellers/test_rails_safety.py::test_a_402_after_settling_is_not_called_unpaid
-            if topup.state is State.HALTED:
-                return topup
-        if topup
+            if topup.state is State.HALTED or topup.out[-1].answer.startswith("refused"):
+                return self._move(self._move(topup, Fact.EXPIRED, "refused"), Fact.FAIL, "refused")
+        if topup
invalid-bytes-sent-for-ever topup/payment/tracking.py
tests/payment/test_pursuit.py::test_bytes_that_every_provider_calls_invalid_halt
-            if topup.state is State.SENT and first and len(self._of_charge(topup)) == 1:
+            if False:
what-was-taken-halts topup/payment/tracking.py
tests/payment/test_pursuit.py::test_bytes_that_were_taken_before_are_followed_on
-            if topup.state is State.SENT and first and len(self._of_charge(topup)) == 1:
+            if topup.state is State.SENT:
foreign-bid-unseen topup/payment/tracking.py
tests/payment/test_pursuit.py::test_another_transaction_at_our_nonce_is_an_alarm
-            if not ours:
-                contested
+            if ours:
+                contested
key-approves-anything topup/signers/local.py
tests/sellers/test_rails_safety.py::test_the_key_approves_exactly_the_total
-data = _transfer(charge.intent) if pays else _approval(ceilings.contract, verified.total.units)
+data = _transfer(charge.intent) if pays else plan.data
approval-without-a-limit topup/sellers/coinbase.py
tests/payment/test_usdc.py::test_a_charge_is_paid_in_usdc_by_two_transactions
-self._chain.approval(charge.sender, charge.contract, charge.total)
+self._chain.approval(charge.sender, charge.contract, type(charge.total)(2**256 - 1))
approval-taken-for-the-payment topup/payment/confirmation.py
tests/payment/test_usdc.py::test_a_charge_is_paid_in_usdc_by_two_transactions
-        if seen.inclusion.success and attempt.plan.kind is Kind.PAY:
+        if seen.inclusion.success and attempt.plan.kind is not Kind.CANCEL:
approval-never-taken-back topup/payment/approvals.py
tests/payment/test_usdc.py::test_an_approval_that_outlives_its_charge_is_taken_back
-    return bool(touched) and touched[-1].plan.kind is Kind.APPROVE and not revokes(touched[-1])
+    return bool(touched) and touched[-1].plan.kind is Kind.APPROVE and revokes(touched[-1])
one-tombstone-stops-all topup/payment/snapshot.py
tests/sellers/test_rails_safety.py::test_a_rail_that_is_gone_leaves_the_others_alone
-gone=control.gone >= {route.rail for route in account.routes},
+gone=bool(control.gone),
another-rail-inside-a-top-up topup/payment/step.py
tests/sellers/test_rails_safety.py::test_a_top_up_ends_on_the_rail_it_began_on
-        rail = self._rails(topup.rail)
+        gone = self._store.control(self._account.name).gone
+        rail = self._rails(next(r.rail for r in self._account.routes if r.rail not in gone))
a-copy-that-was-put-back-signs-at-once topup/payment/preparation.py
tests/payment/test_signed_terms.py::test_a_copy_that_was_put_back_waits_as_well
-left_ms = self._pace.young_s * 1000 - self._clock.watched_ms()
+left_ms = 0
a-name-that-a-copy-used-is-kept topup/payment/step.py
tests/payment/test_signed_terms.py::test_a_copy_that_lacks_many_purchases_waits_and_goes_on_buying
-failed += sum(charge.abandoned == Reason.AUTHORIZATION_USED for charge in topup.charges)
+failed += 0
a-nonce-that-no-purchase-gives topup/sellers/x402.py
tests/payment/test_signed_terms.py::test_a_machine_that_is_put_back_with_no_time_lost_pays_once
-if not request.purchase:
+if True:
access-limit-is-not-judged topup/domain/policy.py
tests/commands/test_limit.py::test_a_key_that_would_fail_on_the_chain_is_forbidden
-    if key.left is None or need <= key.left:
+    if key.left is None or need.units >= 0:
root-key-signs-unasked topup/commands/wallet_limit.py
tests/commands/test_limit.py::test_the_call_is_shown_before_anything_is_signed
-        if agreed("sign and send this?", yes=yes,
+        if agreed("sign and send this?", yes=not dry_run,
approved-without-a-dry-run-of-the-payment topup/sellers/coinbase.py
tests/payment/test_usdc.py::test_nothing_is_approved_for_a_payment_that_cannot_go_through
-            call = replace(allow, then=self._chain.token_payment(verified))
+            call = allow
withdrawn-though-taken topup/ledger/wishes.py
tests/commands/test_wishes.py::test_a_top_up_is_decided_for_a_wish_that_is_being_carried_out_and_for_no_other
-WHERE id = ? AND taken_ms IS NULL AND {WAITING}
+WHERE id = ?
taken-though-withdrawn topup/ledger/wishes.py
tests/commands/test_wishes.py::test_a_top_up_is_decided_for_a_wish_that_is_being_carried_out_and_for_no_other
-SET taken_ms = ? WHERE id = ? AND {WAITING}
+SET taken_ms = ? WHERE id = ?
top-up-without-its-wish topup/payment/cycle.py
tests/commands/test_wishes.py::test_stopped_while_the_payment_is_out_it_says_so
-            wish=wish,
+            wish=None,
safe-to-ask-again-though-sent topup/commands/wish.py
tests/commands/test_wishes.py::test_stopped_while_the_payment_is_out_it_says_so
-            if unfinished is not None and (stuck is not None or unfinished.out):
+            if unfinished is None and stuck is not None:
lost-log-lines-uncounted topup/app/log.py
tests/app/test_log.py::test_a_reader_that_reads_again_is_told_how_many_lines_were_lost_and_where
-            self._lost += 1
-            return
+            return
keystore-over-another topup/signers/new_keystore.py
tests/signers/test_new_keystore.py::test_of_two_that_write_at_once_the_second_is_refused
-            os.link(unfinished, path)
+            os.replace(unfinished, path)
key-not-read-back topup/signers/new_keystore.py
tests/signers/test_new_keystore.py::test_a_disk_that_keeps_something_else_gets_no_name
-            if bytes(opened.key) != key:
+            if not opened.key:
keystore-open-to-others topup/wire/new_files.py
tests/signers/test_new_keystore.py::test_whatever_the_umask_only_the_owner_reads_it
-        os.fchmod(descriptor, 0o600)
+        os.fchmod(descriptor, 0o644)
another-rail-by-default topup/payment/config.py
tests/payment/test_limits.py::test_a_default_that_changes_buys_nothing[mpp-settings0-True]
-        return None if self.chosen or before == self.rails else before
+        return None
bought-without-a-yes topup/domain/policy.py
tests/commands/test_once_terminal.py::test_off_a_terminal_nothing_is_bought_without_a_yes[arguments2]
-    return None if limits.agreed else Refuse(Why.NOT_AGREED, "off a terminal nothing is bought without --yes")
+    return None
a-refill-untold topup/ledger/topups.py
tests/app/test_telling.py::test_a_refill_is_told_signed_and_once
-        kind = of_state(state, reason) if state is not topup.state else None
+        kind = None
told-out-of-turn topup/ledger/outbox.py
tests/app/test_telling.py::test_each_subject_in_its_order_and_everything_in_the_end
-            "SELECT min(message.id) FROM message LEFT JOIN delivery ON delivery.message = message.id"
+            "SELECT max(message.id) FROM message LEFT JOIN delivery ON delivery.message = message.id"
a-dead-target-told-of-itself topup/app/delivery.py
tests/app/test_dead_targets.py::test_the_others_are_told_that_a_target_is_dead_and_that_it_lives_again
-        if of_itself or not listener.hears(message.kind):
+        if not listener.hears(message.kind):
dead-targets-tell-of-each-other topup/ledger/outbox.py
tests/app/test_dead_targets.py::test_targets_that_are_all_dead_tell_of_each_other_once
-            if message.kind in OF_TARGETS or at_ms - last_ms < DAY_MS:
+            if at_ms - last_ms < DAY_MS:
a-run-beats-for-the-daemon topup/app/run_beat.py
tests/app/test_run_beat.py::test_an_error_is_said_unless_another_process_has_the_ledger
-        if not beside:
+        if True:
a-day-told-twice topup/ledger/outbox.py
tests/app/test_digest.py::test_two_that_write_at_once_tell_it_once
-            if self.told(account, Note.DIGEST) != before:
+            if False:
unknown-usage-is-nothing topup/accounting/formats/digest.py
tests/app/test_digest.py::test_what_was_used_is_known_as_far_as_the_books_are_closed
-        "used_usd": str(statement.used) if until_ms is not None else None,
+        "used_usd": str(statement.used),
any-host-is-asked topup/web/server.py
tests/web/test_server.py::test_what_is_no_request_of_ours_is_refused
-        if host is not None and not own(host, self._names):
+        if host is not None and not own("localhost", self._names):
a-pass-that-hangs-is-well topup/app/pulse.py
tests/app/test_serving.py::test_a_stuck_pass_keeps_no_answer_back
-            return "" if pulse.lives(now) else "pass_stuck"
+            return "" if pulse.lives(0) else "pass_stuck"
an-unknown-balance-is-told-as-zero topup/web/metrics.py
tests/web/test_metrics.py::test_what_is_not_known_has_no_sample_and_what_may_come_stands_at_zero
-lambda standing: None if standing.last is None else value(standing.last)
+lambda standing: 0 if standing.last is None else value(standing.last)
"""
SABOTAGE: Final = re.compile(r"^([\w-]+) (\S+)\n(tests/.+)\n((?:[-+].*\n)+)", re.MULTILINE)


def listed(text: str) -> Iterator[Mutant]:
    for name, file, test, lines in SABOTAGE.findall(text):
        was, now = ("\n".join(line[1:] for line in lines.splitlines() if line[0] == sign) for sign in "-+")
        yield Mutant(name, file, was, now, test)


MUTANTS: Final = tuple(listed(SABOTAGES))


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
    """Run these tests in that checkout until one fails; return what the first failure was, with its first line."""
    report = where / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", f"--junitxml={report}"]
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
    """Return the file with the sabotage in it."""
    text = (root / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.was) != 1:
        raise ValueError(f"{mutant.name}: {mutant.was!r} stands {text.count(mutant.was)} times in {mutant.file}")
    return text.replace(mutant.was, mutant.now)


def main() -> int:
    """Run from the command line; exit 1 when a sabotage survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.mutants", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
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
    for mutant, (found, why) in rows:
        sys.stdout.write(f"{found:<8} {mutant.name:<44} {mutant.test}\n")
        if found is Verdict.BROKEN:
            sys.stdout.write(f"         no assertion noticed it: {why}\n")
    sys.stdout.write(f"{sum(v is Verdict.KILLED for v, _ in verdicts)} of {len(rows)} killed by an assertion\n")
    return int(any(found is not Verdict.KILLED for found, _ in verdicts))


if __name__ == "__main__":
    sys.exit(main())
