"""Which failures have made trusted senders pay twice, or lose a payment, and what does topup do in each of them?

The first twenty-two stories; tests/world/stories_foreign.py has the others. Each is the real cycle over the real
ledger, and between topup and its world the wire, through which everything goes and on which things go wrong. Most
troubles are scripts that know nothing of whom they befall, so that another payer can be put in the same place.

    result = response_lost(directory)        # or STORIES["response_lost"](directory)
    assert result.survived and result.payments == 1 and not result.lost
"""

import asyncio
import os
import secrets
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest import mock

from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_keys.backends.native import ecdsa
from eth_keys.constants import SECPK1_N
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from tests.world.duel import STORE, Duel
from tests.world.house import MINUTE_S, NONCE, SEND, House, Killed, Result, Script
from tests.world.proxy import Fault, delay, lose, refuse, silent, status, wrong
from tests.world.served import Served, served
from tests.world.stage import price
from topup.app.keys import LateSigner
from topup.domain.errors import SignerError
from topup.domain.lifecycle import Attempt, Kind, Plan, State, TopUp
from topup.domain.ways_out import CANCEL, RESOLVE
from topup.ledger.location import FILE
from topup.ports.chain import Sent
from topup.sandbox.fault import WALLET_WEI
from topup.sandbox.world import BLOCK_S, L1_FEE_PER_BYTE
from topup.signers.local import LocalSigner

RECEIPT: Final = "eth_getTransactionReceipt"
CHAIN_ID: Final = "eth_chainId"
HOUR_S: Final = 3600
# A sandbox's charge can be paid for 48 hours.
PAST_DEADLINE_S: Final = 49 * HOUR_S

Tale = Callable[[House], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """A failure that has happened to somebody. Called with an empty directory it is told, and says how it ended.

    `trouble` is the part of it that can befall any payer with `wallet_wei`, after a purchase without trouble when
    `prior`.
    """

    number: int
    name: str
    says: str
    tell: Callable[[Path], Result]
    trouble: Script | None = None
    prior: bool = False
    wallet_wei: int = WALLET_WEI

    def __call__(self, directory: Path) -> Result:
        """Tell it."""
        return self.tell(directory)


STORIES: Final[dict[str, Story]] = {}


def _told(name: str, tale: Tale, directory: Path, options: dict[str, Any]) -> Result:
    """Tell one story in a house of its own; what never comes true is wrong, as is whatever breaks."""
    payments = options.get("payments", 1)
    houses = {key: options[key] for key in ("providers", "wallet_wei") if key in options}
    with House(directory, **houses) as house:

        async def tell() -> Result:
            house.start(**options.get("settings", {}))
            try:
                if options.get("prior"):
                    await house.ends()
                    house.low()
                    house.need()
                if options.get("trouble") is not None:
                    house.trouble(options["trouble"])
                try:
                    await tale(house)
                except AssertionError as error:
                    house.wrong.append(str(error)[:500])
                if house._stage is None:
                    house.start(**options.get("settings", {}))
                return house.result(name, payments)
            finally:
                await house.stop()

        return asyncio.run(tell())


def story(number: int, **options: Any) -> Callable[[Tale], Story]:
    """Make a story of a tale.

    Options: `trouble`, a script that begins with it; `prior`, a purchase before it; `alike`, the script for another
    payer where it differs; `payments` that have to stand on the chain in the end; `settings`, `providers`,
    `wallet_wei` of the house.
    """

    def made(tale: Tale) -> Story:
        name = tale.__name__.removeprefix("_")
        says = (tale.__doc__ or "").partition("\n")[0]
        alike = options.get("alike", options.get("trouble"))
        one = Story(
            number,
            name,
            says,
            lambda directory: _told(name, tale, directory, options),
            alike,
            prior=bool(options.get("prior")),
            wallet_wei=options.get("wallet_wei", WALLET_WEI),
        )
        if not tale.__name__.startswith("_"):
            STORIES[name] = one
        return one

    return made


def told_in(number: int, trouble: Script | None = None) -> Callable[[Callable[[Path], Result]], Story]:
    """Make a story of what tells itself; `trouble` as for `story`."""

    def made(tell: Callable[[Path], Result]) -> Story:
        one = Story(number, tell.__name__, (tell.__doc__ or "").partition("\n")[0], tell, trouble)
        STORIES[one.name] = one
        return one

    return made


def _both(name: str, directory: Path, *parts: Story) -> Result:
    """Tell a story in parts; its figures are those of the first, and it is survived when every part is."""
    told = [part(directory / part.name) for part in parts]
    return replace(
        told[0],
        story=name,
        survived=all(one.survived for one in told),
        lost=any(one.lost for one in told),
        halted=any(one.halted for one in told),
        reason="; ".join(one.reason for one in told if one.reason),
        events=tuple(event for one in told for event in one.events),
        detail="; ".join(one.detail for one in told if one.detail),
        wrong=tuple(f"{one.story}: {what}" for one in told for what in one.wrong),
    )


def _whole(name: str, wrong: list[str], place: Served, detail: str, events: Sequence[str] = ()) -> Result:
    """Say how a story of real processes ended: by the chain, and by the ledger on disk."""
    paid, topups = place.payments(), place.topups()
    wrong += [] if paid == 1 else [f"{paid} payments on the chain, not 1"]
    done = [one for one in topups if one.state is State.DONE]
    wrong += [] if len(done) == 1 else [f"top-ups: {[one.state.value for one in topups]}"]
    wrong += [] if place.books_match() else ["the books and the wallet differ"]
    began_ms, ended_ms = (done[0].decided_ms, done[0].moved_ms) if done else (0, 0)
    seconds = (ended_ms - began_ms) // 1000 if done else None
    return Result(name, not wrong, paid, paid > len(done), False, "", tuple(events), seconds, detail, tuple(wrong))


def _once(trouble: Script, note: str) -> Story:
    """Make a part of a story: in this trouble one charge is paid by one transaction, and our key stays fit."""

    async def _told(house: House) -> None:
        topup = await house.ends()
        house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
        house.hold(not house.named("key_unfit"), "an answer was taken for a refused key")
        house.note(note)

    _told.__name__ = f"_{trouble.__name__}"
    return story(0, trouble=trouble)(_told)


# -- troubles that can befall any payer -------------------------------------------------------------------------------


def _first_sent(house: House) -> Iterator[None]:
    """Wait, without a block, until the first transaction has left."""
    house.mining = False
    while not house.sent:
        yield


def answer_lost(house: House) -> Iterator[None]:
    """The node takes the first payment and the connection breaks before its answer."""
    house.wires[0].on(SEND, lose(), times=1)
    yield


def answered_503(house: House) -> Iterator[None]:
    """The node takes the first payment, its gateway answers 503; for half a minute no block comes."""
    house.wires[0].on(SEND, status(503, forwarded=True), times=1)
    house.mining = False
    yield from house.spell(30)
    house.mining = True


def known_under_any_code(house: House) -> Iterator[None]:
    """After a lost answer the node says "already known", under one code after the other."""
    house.wires[0].on(SEND, status(503, forwarded=True), times=1)
    codes = (-32000, -32603, -32010)
    for nth, code in enumerate(codes, 1):
        house.wires[0].on(SEND, refuse(code, "already known", forwarded=True), times=1, skip=nth)
    house.mining = False
    while house.wires[0].asked(SEND) <= len(codes):
        yield
    house.mining = True


def receipts_hidden(house: House) -> Iterator[None]:
    """For half an hour no receipt is shown; the nonce moves as it should."""
    hidden = house.wires[0].on(RECEIPT, wrong(lambda _: None))
    yield from house.spell(30 * MINUTE_S)
    hidden.end()


def nonce_lags_for_ever(house: House) -> Iterator[None]:
    """The first provider shows the nonce of before the last payment, for ever."""
    house.wires[0].on(NONCE, wrong(lambda _: "0x0"))
    yield


NONCE_TEXTS: Final = (
    (-32603, "nonce too low: next nonce 185, tx nonce 184"),
    (-32000, "nonce too low"),
    (-32003, "Nonce is too low"),
    (-32010, "OldNonce, current nonce 1"),
    (-32603, "internal error: nonce too low: address 0x00, tx: 0 state: 1"),
)


def nonce_used_says_the_node(house: House) -> Iterator[None]:
    """The node takes the first payment and answers as if somebody else had; for half a minute no block comes."""
    code, text = NONCE_TEXTS[0]
    house.wires[0].on(SEND, refuse(code, text, forwarded=True), times=1)
    house.mining = False
    yield from house.spell(30)
    house.mining = True


def block_orphaned(house: House) -> Iterator[None]:
    """The first payment's block is shown for four seconds, then it is gone, and the payment with it."""
    yield from _first_sent(house)
    house.mine()
    yield from house.spell(2 * BLOCK_S)
    house.chain.reorg(1, drop=True)
    house.mining = True


def first_bytes_held(house: House) -> Iterator[None]:
    """The node takes the first transaction and keeps it to itself for ten minutes."""
    yield from _first_sent(house)
    held = house.hashes[0]
    house.chain.held.add(held)
    house.mining = True
    yield from house.spell(10 * MINUTE_S)
    house.chain.held.discard(held)


def chain_halted(house: House) -> Iterator[None]:
    """No block for two days and an hour; then blocks whose time goes on where it stopped, then time is caught up."""
    yield from _first_sent(house)
    yield from house.spell(33 * MINUTE_S)
    house.world.clock.leap(PAST_DEADLINE_S * 1000)
    yield
    for _ in range(3):
        newest = house.chain.rpc("eth_getBlockByNumber", ["latest", False])
        house.mine(int(newest["timestamp"], 16) + BLOCK_S)
        yield
    house.mining = True


def reverted_then_replaced(house: House) -> Iterator[None]:
    """The first payment reverts, the next one leaves, and the block of the revert is replaced: the first succeeds."""
    yield from _first_sent(house)
    price(house.world, 90)
    house.mine()
    price(house.world, 100)
    while len(house.sent) < 2:
        yield
    house.chain.reorg(1)
    price(house.world, 100)
    house.mine()
    house.mining = True


def another_chain_answers(house: House) -> Iterator[None]:
    """The first provider has been pointed at a test network."""
    house.wires[0].on(CHAIN_ID, wrong(lambda _: hex(84532)))
    yield


def fees_jump(house: House) -> Iterator[None]:
    """The L1 fee rises a millionfold before a block comes, and falls back after ten minutes."""
    yield from _first_sent(house)
    house.l1_fee_per_byte *= 1_000_000
    house.mining = True
    yield from house.spell(10 * MINUTE_S)
    house.l1_fee_per_byte = L1_FEE_PER_BYTE


def credits_flat(house: House) -> Iterator[None]:
    """Payments arrive and no credits are posted, for a day; then they are."""
    house.world.gateway.switch_on("posting", "never-posts")
    yield from house.spell(HOUR_S)
    for _ in range(24):
        house.world.clock.leap(HOUR_S * 1000)
        yield
    house.world.gateway.switch_off("posting")


def key_used_elsewhere(house: House) -> Iterator[None]:
    """Before a block comes, another user of the key outbids the first transaction at its nonce."""
    yield from _first_sent(house)
    house.foreign()
    house.mining = True


# -- 1 to 5 -----------------------------------------------------------------------------------------------------------


def _answers(house: House) -> list[str]:
    return [event.answer for event in house.named("payment_sent")]


@story(1, trouble=answer_lost)
async def response_lost(house: House) -> None:
    """The node takes the payment and its answer is lost: it is found by its hash, and nothing else is ever signed."""
    topup = await house.ends()
    house.hold(len(topup.out) == 1, "a second transaction was signed")
    house.hold(_answers(house)[0] == "unclear", "the lost answer was taken for one")
    house.note("found by its hash")


@story(2, trouble=known_under_any_code, alike=answered_503, settings={"fees__bump_max": "0"})
async def already_known(house: House) -> None:
    """Sent again, the node says "already known" under three codes: it holds our bytes, so they are sent."""
    topup = await house.ends()
    house.hold(_answers(house)[:4] == ["unclear", *["already_known"] * 3], f"answers: {_answers(house)}")
    house.hold(len(topup.out) == 1, "a second transaction was signed")
    house.note("taken for sent")


async def _killed_after_a_bump(house: House) -> None:
    """Die between the sending of a bump and the next commit; the bump is mined while nobody lives."""
    house.mining = False
    await house.stage.until(State.SENT)
    rail, first = house.stage.works.rail(), house.topup.out[0]
    ordinary = rail.send

    async def dies(topup: TopUp, attempt: Attempt) -> Sent:
        sent = await ordinary(topup, attempt)
        if attempt.id != first.id:
            raise Killed
        return sent

    rail.send = dies  # type: ignore[method-assign]
    await house.dies()
    house.mining = True
    house.wait(10)


@story(3)
async def _bump_stored(house: House) -> None:
    """Killed after a bump was sent, before anything more was written: its row was there first, and it is found."""
    await _killed_after_a_bump(house)
    house.start()
    topup = await house.ends()
    bump = topup.out[-1]
    house.hold(topup.paying is not None and topup.paying.id == bump.id, "another transaction paid")
    house.hold(len(house.sent) == 2, "something else was sent")
    house.note("the bump was stored before it was sent")


@story(3)
async def _bump_row_deleted(house: House) -> None:
    """The same, and the bump's row is deleted by hand: halted, reconciled from the chain, never a new charge."""
    await _killed_after_a_bump(house)
    with closing(sqlite3.connect(house.state / FILE)) as db, db:
        db.execute("DELETE FROM attempt WHERE id = (SELECT max(id) FROM attempt)")
    house.start()
    await house.stage.rests("nonce_moved")
    house.wait(HOUR_S)
    halted = await house.stage.until(State.HALTED)
    house.hold(len(halted.charges) == 1, "another charge was asked for")
    house.hold("reconcile" in halted.reason, f"halted for {halted.reason}")
    house.asked = halted.reason
    house.note("without its row: halted, then taken over from the chain")
    await house.stop()
    told = house.command("reconcile", "--adopt", "--yes")
    house.hold("adopted" in told, f"nothing was adopted: {told[-300:]}")
    house.start()
    await house.ends()


@told_in(3)
def bump_hash_never_stored(directory: Path) -> Result:
    """A bump is sent and the process dies before it writes on: the row was there first; deleted, it halts."""
    return _both("bump_hash_never_stored", directory, _bump_stored, _bump_row_deleted)


@story(4, trouble=receipts_hidden)
async def receipts_null_nonce_moved(house: House) -> None:
    """For half an hour the nonce has moved and no receipt is shown: waited for, said once, paid once."""
    topup = await house.ends(passes=400)
    house.hold(len(house.named("nonce_moved")) == 1, "not said once")
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("waited for, said once")


@story(5, trouble=nonce_lags_for_ever, prior=True, providers=3)
async def stale_nonce(house: House) -> None:
    """One of three providers lags a payment behind for ever: the ledger's nonce is signed, and who differs is said."""
    topup = await house.ends()
    house.hold([a.plan.nonce for a in topup.out] == [1], "signed with a used nonce")
    # Once two agree the third has two seconds: on a busy machine it is called slow before it differs.
    house.hold(bool(house.named("providers_disagree") or house.named("provider_set_aside")), "not said")
    house.note("signed with the ledger's nonce")


# -- 6 to 10 ----------------------------------------------------------------------------------------------------------


def _dies_at(place: Any, method: str) -> None:
    """Let the process die where it comes to this method."""

    def die(*_: object) -> NoReturn:
        raise Killed

    setattr(place, method, die)


async def _crashed(house: House, crashes: int) -> None:
    """Die in turn once a nonce is taken and nothing signed, and once it is signed and nothing sent."""
    for nth in range(crashes):
        _dies_at(*((house.stage.store, "intend") if nth % 2 else (house.stage.works.rail(), "sign")))
        await house.dies()
        house.start()
    topup = await house.ends()
    house.hold({a.plan.nonce for a in topup.attempts} == {0}, "another nonce was taken")
    house.hold(len(topup.charges) == 1, f"{len(topup.charges)} charges")
    house.hold(len(house.sent) == 1, f"{len(house.sent)} transactions left")
    house.note(f"{crashes} crashes, one nonce")


@story(6)
async def burned_nonces(house: House) -> None:
    """Killed again and again between nonce and signature, and between signature and sending: one nonce is used."""
    await _crashed(house, 20)


@story(6)
async def _burned_a_hundred_times(house: House) -> None:
    """The same, a hundred times."""
    await _crashed(house, 100)


@story(7, settings={"fees__bump_max": "0"}, alike=nonce_used_says_the_node)
async def nonce_too_low_texts(house: House) -> None:
    """The node says "nonce too low", in five wordings, of a payment that it took: never failed, never paid again.

    The last has a gateway's sentence around it: a class of texts counts at its beginning alone, so that is unclear.
    """
    for nth, (code, text) in enumerate(NONCE_TEXTS):
        house.wires[0].on(SEND, refuse(code, text, forwarded=True), times=1, skip=nth)
    house.mining = False
    for _ in range(120):
        await house.stage.step()
        if house.wires[0].asked(SEND) >= len(NONCE_TEXTS):
            break
    house.mining = True
    topup = await house.ends()
    said = _answers(house)[: len(NONCE_TEXTS)]
    house.hold(said == [*["nonce_used"] * (len(NONCE_TEXTS) - 1), "unclear"], f"answers: {said}")
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("looked for, and found")


@story(8, settings={"fees__bump_max": "0"}, alike=block_orphaned)
async def receipt_vanishes(house: House) -> None:
    """A receipt of no block that stands, then none, then a revert, then success: paid once, done once it is safe."""
    chain, wire = house.chain, house.wires[0]
    house.mining = False
    await house.stage.until(State.SENT)
    paying = house.hashes[0]

    def preconfirmed() -> Any:
        chain.mine(house.world.clock.now_s())
        receipt = chain.rpc(RECEIPT, [paying])
        chain.reorg(1)
        chain.held.add(paying)
        chain.mine(house.world.clock.now_s())
        return receipt

    receipt = house.inside(preconfirmed)
    shown = wire.on(RECEIPT, wrong(lambda _: receipt))
    await house.stage.steps(5)
    shown.end()
    await house.stage.steps(3)
    house.hold(house.topup.state is State.SENT, f"{house.topup.state} by a receipt of no block")
    house.hold(not house.named("payment_included"), "a receipt of no block was believed")

    def fails() -> None:
        chain.held.clear()
        price(house.world, 90)
        house.mine()

    house.inside(fails)
    await house.stage.rests("price_deviation")
    house.hold(len(house.named("payment_reverted")) == 1, "the revert was not seen")

    def succeeds() -> None:
        chain.reorg(1)
        price(house.world, 100)
        chain.tags_known = False

    house.inside(succeeds)
    house.mining = True
    await house.stage.until(State.CREDITED)
    await house.stage.steps(10)
    house.hold(house.topup.state is State.CREDITED, f"{house.topup.state} before its block was safe")
    chain.tags_known = True
    topup = await house.ends()
    house.hold(len(topup.out) == len(topup.charges) == 1, "something else was signed")
    house.note("no block, no belief; done at a safe block")


def _swallowed() -> Fault:
    """Take a transaction, later know it, and tell nobody."""
    known: set[str] = set()

    def answer(question: Any, _: Any) -> dict[str, Any]:
        raw = question.params[0]
        if raw in known:
            return {"error": {"code": -32000, "message": "already known"}}
        known.add(raw)
        return {"result": "0x" + keccak(hexstr=raw).hex()}

    return Fault("swallow", item=answer, withheld=True)


def held_and_swallowed(house: House) -> Iterator[None]:
    """One node takes everything and passes nothing on; the other keeps the first transaction for ten minutes."""
    house.wires[0].on(SEND, _swallowed())
    yield from first_bytes_held(house)


@story(9, trouble=held_and_swallowed, alike=first_bytes_held, providers=2)
async def accepted_then_dropped(house: House) -> None:
    """One node swallows all, one sits on the first bytes: sent again to both, outbid at its nonce, paid once."""
    topup = await house.ends()
    first = house.sent[0]
    for wire in house.wires:
        again = sum(one.method == SEND and one.params[0] == first for one in wire.log)
        house.hold(again >= 2, f"the first bytes went to a provider {again} times")
    house.hold(bool(house.named("payment_unseen")), "that it is nowhere was not said")
    house.hold(bool(house.named("payment_bumped")), "it was not outbid")
    house.hold(len({a.nonce_slot for a in topup.out}) == 1, "a second nonce was used")
    house.note("sent again, outbid at its own nonce")


@story(10, trouble=chain_halted)
async def chain_halts_past_the_deadline(house: House) -> None:
    """The chain stands still until every clock but its own is past the deadline: the old payment is recognised."""
    topup = await house.ends(passes=600)
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.hold(not house.named("charge_dead"), "declared dead by a wall clock")
    house.note("no clock but the chain's counts")


# -- 11 to 15 ---------------------------------------------------------------------------------------------------------


@told_in(11)
def two_live_senders(directory: Path) -> Result:
    """One process is stopped with a payment in its hands, another takes over and pays: the first is fenced off."""
    wrong: list[str] = []
    with served(directory) as place:
        place.low()
        duel = Duel(place)
        first = duel.stopped("before", f"{STORE}.signed")
        duel.break_lock()
        second = duel.second()
        second.await_event("top_up_done")
        sent = list(duel.raw)
        try:
            duel.fenced(first)
            duel.paid_once()
        except AssertionError as error:
            wrong.append(str(error)[:500] or "not fenced, or not paid once")
        wrong += ["the first process sent something"] if duel.raw != sent else []
        events = [e["event"] for one in (first, second) for e in one.events()]
        detail = "the first could write nothing more, so it sent nothing"
        return _whole("two_live_senders", wrong, place, detail, events)


async def _cancelling(house: House) -> TopUp:
    """Have a payment out that is in no block, and a cancel that outbids it."""
    house.mining = False
    topup = await house.stage.until(State.SENT)
    house.stage.store.say("default", RESOLVE + topup.id, CANCEL, house.clock.now_ms(), "a person")
    topup = await house.out(2)
    house.hold(topup.out[-1].plan.kind is Kind.CANCEL, "no cancel was sent")
    return topup


@story(12, providers=2)
async def _cancel_lost(house: House) -> None:
    """A cancel is taken by the node, and the payment is mined after all: it is a payment."""
    await _cancelling(house)

    def payment_wins() -> None:
        house.chain.drop_pending()
        house.chain.rpc(SEND, [house.sent[0]])
        house.mine()

    house.inside(payment_wins)
    house.mining = True
    await house.ends()
    house.note("mined after all: paid")


@story(12, providers=2, payments=0)
async def _cancel_won(house: House) -> None:
    """A cancel is mined: the top-up ends only when a final block, shown by two, proves that nothing was paid."""
    topup = await _cancelling(house)
    house.inside(house.mine)
    await house.stage.steps(3)
    house.hold(house.topup.state is State.DEATHWATCH, f"{house.topup.state} before the block was final")
    house.mining = True
    topup = await house.stage.until(State.FAILED)
    house.hold([e.proof for e in house.named("charge_dead")] == ["nonce"], "ended without a proof")
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.note("cancelled: ended by proof at a final block")


@told_in(12)
def cancel_loses(directory: Path) -> Result:
    """A cancel and the payment race for one nonce: whichever is mined is what happened, by evidence alone."""
    return _both("cancel_loses", directory, _cancel_lost, _cancel_won)


@story(13)
async def bump_after_mined(house: House) -> None:
    """Mined, and the providers show neither receipt nor nonce: outbidding it fails as already paid; waited for."""
    wire = house.wires[0]
    rules = [wire.on(RECEIPT, wrong(lambda _: None)), wire.on(NONCE, wrong(lambda _: "0x0"))]
    await house.stage.until(State.SENT)
    for _ in range(60):
        await house.stage.step()
        if house.named("bump_held"):
            break
    held = house.named("bump_held")
    house.hold(len(held) == 1, "the bump was not held back")
    house.hold(house.topup.state is State.SENT, f"{house.topup.state} by a failed bump")
    for rule in rules:
        rule.end()
    topup = await house.ends()
    house.hold(len(topup.out) == len(topup.charges) == 1, "something else was signed")
    house.note("a failed dry run of a bump says nothing: " + "".join(event.why for event in held))


@story(14, settings={"chain__timeout_s": "1", "api__timeout_s": "1"})
async def wedged_client(house: House) -> None:
    """Passes are cut off in the middle, again and again, and answers never come: the next pass goes on as if new."""
    cut = 0
    for wire in (*house.wires, house.api):
        wire.on("*", silent(), times=1)
        wire.on("*", delay(0.02))
    for nth in range(40):
        try:
            rest = await asyncio.wait_for(house.stage.works.cycle.run(), 0.03 + 0.02 * (nth % 8))
        except TimeoutError:
            cut += 1
            house.wait(2)
        else:
            house.wait(rest.next_s)
    house.hold(cut > 0, "nothing was ever cut off")
    for wire in (*house.wires, house.api):
        wire.mend()
    await house.ends()
    house.note(f"{cut} passes were cut off")


class Moody(LocalSigner):
    """A key in a service: out of order now and then, and never the same signature twice, each of them valid."""

    down = 2

    def _signed(self, plan: Plan) -> tuple[bytes, bytes]:
        if self.down:
            self.down -= 1
            raise SignerError("the signing service does not answer", remedy="wait for it")
        signed = TypedTransaction.from_bytes(HexBytes(super()._signed(plan)[0]))
        # At random, as a service without RFC 6979 signs.
        with mock.patch.object(ecdsa, "deterministic_generate_k", return_value=secrets.randbelow(SECPK1_N - 1) + 1):
            v, r, s = ecdsa.ecdsa_raw_sign(signed.hash(), self._key().to_bytes())
        raw = TypedTransaction.from_dict(signed.as_dict() | {"v": v, "r": r, "s": s}).encode()
        return raw, bytes(keccak(raw))


def _moody(house: House, down: int) -> None:
    """Put the key of the running topup into such a service."""
    rail: Any = house.stage.works.rail()
    signer: Any = rail._signer._opened() if isinstance(rail._signer, LateSigner) else rail._signer
    service = Moody(signer._key(), signer._ceilings)
    service.down = down
    rail._signer = service


@story(15)
async def flaky_signer(house: House) -> None:
    """The signer fails, and never signs alike: signed again as long as nothing may have left, and not once after."""
    # Signed, and not written; written, and the intent to send is not; the intent is written, and nothing sent.
    for nth, method in enumerate(("signed", "intend", "send")):
        _moody(house, 0 if nth else 2)
        _dies_at(house.stage.works.rail() if method == "send" else house.stage.store, method)
        await house.dies()
        house.start()
    _moody(house, 0)
    intended = house.topup.out
    topup = await house.ends()
    house.hold(
        topup.out == () or [a.hash for a in topup.out] == [a.hash for a in intended], "signed again once intended"
    )
    house.hold(house.sent == ["0x" + (a.raw or b"").hex() for a in intended], "other bytes have left")
    house.note("three deaths around a signature: one has left, the one that was written with the intent")


# -- 16 to 22 ---------------------------------------------------------------------------------------------------------


async def _restored(house: House) -> None:
    """Pay, put back the ledger of before, and see that it refuses to spend; credits are not posted yet."""
    copy = house.directory / "yesterday"
    copy.mkdir()
    with closing(sqlite3.connect(copy / FILE)) as made:
        house.stage.store._db.backup(made)
    house.inside(lambda: house.world.gateway.switch_on("posting", "never-posts"))
    await house.stage.until(State.PAID)
    await house.stop()
    shutil.rmtree(house.state)
    shutil.copytree(copy, house.state)
    house.start()
    rest = await house.stage.rests("nonce_ahead")
    house.asked = rest.detail
    await house.stage.steps(20)
    house.hold(not house.topup.attempts, "something was signed")


async def _adopt(house: House) -> None:
    """Let a person take over from the chain what the ledger lacks, and go on."""
    await house.stop()
    told = house.command("reconcile", "--adopt", "--yes")
    house.hold("adopted" in told, f"nothing was adopted: {told[-300:]}")
    house.start()
    for _ in range(5):
        await house.stage.step()
        house.wait(10 * MINUTE_S)


@story(16, prior=True)
async def ledger_restored(house: House) -> None:
    """Yesterday's ledger is put back after a payment: nothing is spent until a person takes the payment over."""
    await _restored(house)
    house.inside(lambda: house.world.gateway.switch_off("posting"))
    house.wait(MINUTE_S)
    await _adopt(house)
    house.note("refused to spend; taken over from the chain by `reconcile --adopt`")


@story(16, prior=True)
async def _taken_over_before_posting(house: House) -> None:
    """The same, and the payment is taken over while its credits are still to come: it is not paid again."""
    await _restored(house)
    await _adopt(house)
    house.inside(lambda: house.world.gateway.switch_off("posting"))
    house.wait(MINUTE_S)


@story(17, trouble=reverted_then_replaced)
async def reorg_between_revert_and_retry(house: House) -> None:
    """A revert is retried, and its block is replaced by one in which it succeeds: the same charge, so paid once."""
    topup = await house.ends()
    house.hold(len(topup.charges) == 1, "another charge was signed")
    house.hold(len(topup.out) == 2, f"{len(topup.out)} transactions")
    house.hold(topup.paying is not None and topup.paying.id == topup.out[0].id, "the first did not pay")
    house.note("the retry was of the same charge, which is paid once")


@story(18, trouble=another_chain_answers, providers=3)
async def provider_on_another_chain(house: House) -> None:
    """One of three providers has another chain: set aside, and nothing is signed by what it says."""
    lying = house.wires[0]
    lying.on("eth_getBalance", wrong(lambda _: hex(10**24)))
    lying.on("eth_getTransactionCount", wrong(lambda _: "0x7"))
    topup = await house.ends()
    aside = [event.why for event in house.named("provider_set_aside")]
    house.hold("wrong_chain" in aside, f"set aside: {aside}")
    house.hold([a.plan.nonce for a in topup.out] == [0], "signed by what it said")
    house.note("set aside; the other two agreed")


@story(19, trouble=fees_jump, wallet_wei=5 * 10**15)
async def fee_spike(house: House) -> None:
    """The L1 fee eats what the wallet had to spare: the same payment is kept and said, and lands when fees fall."""
    topup = await house.ends(passes=600)
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.hold(len({a.nonce_slot for a in topup.out}) == 1, "a second nonce was used")
    said = set(_answers(house)) & {"insufficient_funds"}
    house.hold(bool(said or house.named("bump_held")), "that money is missing was not said")
    house.note("kept, and sent again until it could be paid")


@story(20, trouble=credits_flat)
async def _credits_flat(house: House) -> None:
    """Paid, and no credits for a day: one alert, nothing bought, and done when they come."""
    await house.stage.until(State.UNCREDITED)
    topup = await house.ends(passes=600)
    house.hold(len(house.named("paid_not_credited")) == 1, "not said once")
    house.hold(len(house.stage.store.latest("default", 10)) == 1, "something else was bought")
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.note("blocked, with one alert, until they came")


@story(20, payments=0)
async def _endpoint_gone(house: House) -> None:
    """The endpoint for charges answers 410: over, said, and asked no more."""
    house.api.on("/credits/coinbase", status(410, b'{"error":{"code":410,"message":"Gone"}}'))
    await house.stage.until(State.DROPPED)
    await house.stage.steps(10)
    house.hold(len(house.named("endpoint_gone")) == 1, "not said once")
    house.hold(house.api.asked("/credits/coinbase") == 1, "asked again")
    house.note("410: ended and said")


@told_in(20, credits_flat)
def credits_never_post(directory: Path) -> Result:
    """Credits do not come for a day, or the endpoint is gone: one alert, and never a second payment."""
    return _both("credits_never_post", directory, _credits_flat, _endpoint_gone)


@story(21)
async def power_loss(house: House) -> None:
    """The disk forgets the last commits before a payment left: the chain is seen to be ahead, and nothing is spent."""
    store = house.stage.store
    (level,) = store._db.execute("PRAGMA synchronous").fetchone()
    house.hold(level == 2, f"synchronous is {level}, not FULL")
    sizes: list[int] = []
    wal, ordinary = house.state / f"{FILE}-wal", store.intend

    def measured(topup: TopUp, at_ms: int) -> TopUp:
        sizes.append(wal.stat().st_size)
        return ordinary(topup, at_ms)

    store.intend = measured  # type: ignore[method-assign]
    house.mining = False
    await house.stage.until(State.SENT)
    # What the disk holds at this moment, less what was written since the bytes were signed.
    kept = house.directory / "kept"
    kept.mkdir()
    for part in (house.state / FILE, wal):
        shutil.copyfile(part, kept / part.name)
    os.truncate(kept / wal.name, sizes[0])
    await house.stop()
    for name in (FILE, wal.name):
        shutil.copyfile(kept / name, house.state / name)
    (house.state / f"{FILE}-shm").unlink(missing_ok=True)
    house.start()
    house.hold(not house.topup.out, "the commits were not lost")
    rest = await house.stage.step()
    house.hold(rest.why == "nonce_busy", f"what has left is not seen: {rest.why}")
    house.mining = True
    house.wait(2 * BLOCK_S)
    rest = await house.stage.step()
    house.hold(rest.why == "nonce_ahead", f"not seen to be ahead: {rest.why}")
    await house.stage.steps(5)
    house.hold(not house.topup.out, "something was signed beside what has left")
    house.asked = rest.detail
    await _adopt(house)
    house.note("ahead of the ledger: nothing spent, taken over by `reconcile --adopt`")


@story(22, trouble=key_used_elsewhere, payments=0)
async def foreign_nonce(house: House) -> None:
    """Somebody else uses the key at our nonce: halted after an hour, judged by event and mark, nothing bought."""
    await house.stage.rests("nonce_moved")
    house.wait(HOUR_S)
    halted = await house.stage.until(State.HALTED)
    await house.stage.steps(5)
    house.hold(len(house.named("nonce_moved")) == 1, "not said once")
    house.hold(len(halted.charges) == 1, "another charge was asked for")
    house.note("a person is asked: the key is used elsewhere")
