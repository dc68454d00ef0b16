"""Is a payment whose network fee the seller pays made once, found by its memo, and replaced only when it is dead?"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from eth_utils.crypto import keccak

from tests.oracles import pympp_seller
from tests.world import builders
from tests.world.memory_sellers import KEY, PAYER, SOLD_TO, TEN, asked, mpp_rail, proven
from tests.world.stage import Stage
from tests.world.tempo import Front, buying, held, on_tempo, paid_once
from topup.accounting import reconciliation
from topup.accounting.reconciliation import Transfer
from topup.app.settings import load
from topup.domain import tempo
from topup.domain.demand import DEADLINES, Verified
from topup.domain.dollars import TEMPO_DOLLAR
from topup.domain.errors import ChargeRefused, SettingsError, SignerError
from topup.domain.lifecycle import Attempt, Broadcaster, Plan, State
from topup.domain.money import Usd, Usdc, Wei
from topup.payment.config import PurchaseOrder
from topup.sandbox import tempo_transfer
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
from topup.sandbox.rpc import Next, RpcError
from topup.sandbox.tempo import USDC_E
from topup.sandbox.tempo_transfer import decode
from topup.sandbox.world import World
from topup.sellers import mpp, mpp_choice
from topup.signers.local import Ceilings, from_private_key

FUNDS: Final = 5_000_000
# anvil knows the hard fork whose expiring nonces last half a minute.
WINDOW_S: Final = 28
SPONSORED: Final = {"TOPUP_RAILS__MPP__SPONSORED": "true", "TOPUP_RAILS__MPP__SPONSORED_S": str(WINDOW_S)}


class Leaping:
    """The world's clock, which goes as fast as the machine's, and at once over what somebody waits for.

    So what is valid for half a minute lasts as long for a slow machine as for a fast one.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.clock.now_ms()

    def monotonic_ms(self) -> int:
        return self._world.clock.now_ms()

    async def sleep(self, seconds: float) -> None:
        self._world.clock.leap(int(seconds * 1000))
        self._world.do(self._world.gateway.poll)
        mined(self._world)


@contextmanager
def selling(**conduct: Any) -> Iterator[World]:
    """A Tempo chain and a seller that pays the fee; two sponsors hold what fees are paid in."""

    def seller(world: World, account: Any) -> Seller:
        own = {"posting_delay_ms": 10_000, "sponsored": True} | conduct
        return Seller(account, world.chain, conduct=MppConduct(**own))

    with on_tempo(seller, scale=1, funds=tempo_transfer.funds(FUNDS)) as world:
        yield world


def sponsoring(world: World, directory: Path, *, two: bool = False, **more: str) -> Stage:
    """The program, told to pay what is sponsored; with `two` it has a second provider of another owner."""
    urls = [world.rpc.url, *([world.provider().url] if two else [])]
    own = buying(*urls) | {"TOPUP_POSTING__PAY_TIMEOUT_S": "5"}
    return Stage(world, directory, Leaping(world), own | SPONSORED | more)


@asynccontextmanager
async def sold(
    directory: Path, *, two: bool = False, conduct: dict[str, Any] | None = None, **settings: str
) -> AsyncIterator[tuple[World, Stage]]:
    """The program before such a seller, which conducts itself so."""
    with selling(**(conduct or {})) as world:
        stage = sponsoring(world, directory, two=two, **settings)
        try:
            yield world, stage
        finally:
            await stage.close()


def payload_of(attempt: Attempt) -> bytes:
    """Return what was signed for an attempt."""
    assert attempt.raw is not None
    return payload_in(attempt.raw)


def payload_in(credential: bytes) -> bytes:
    """Return what was signed, out of the credential that carries it."""
    text = credential.decode().partition(" ")[2]
    told = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return bytes.fromhex(told["payload"]["signature"][2:])


def bury(world: World) -> None:
    """Make all that stands there final; anvil calls a block so when it has 64 above it."""
    world.clock.leap(70_000)
    world.do(lambda: world.chain.rpc("anvil_mine", [hex(70), "0x1"]))
    mined(world)


def mined(world: World) -> None:
    """Make a block that is as late as the clock, with the base fee that blocks in a row have let fall."""
    world.do(lambda: world.chain.mine(world.clock.now_s()))


def submitted(world: World, raw: bytes) -> None:
    """Hand a transaction to the chain; one that cannot run any more is refused, or dropped without a word."""
    with suppress(RpcError):
        world.do(lambda: world.chain.rpc("eth_sendRawTransaction", ["0x" + raw.hex()]))


def stranger_pays(world: World) -> None:
    """Let somebody else move his own dollars: what stands there is a control."""
    now_s = world.clock.now_s()
    submitted(world, tempo_transfer.moved(tempo_transfer.SPONSORS[1], USDC_E, now_s, now_s + 600))
    mined(world)


def runs(stage: Stage, payload: bytes) -> int:
    """Return how many transactions carry the memo of a payload, whoever has carried it."""
    memo = "0x" + payload[payload.index(tempo.TRANSFER_WITH_MEMO) + 68 :][:32].hex()
    wanted = {"fromBlock": "0x0", "toBlock": "latest", "address": USDC_E}
    wanted["topics"] = ["0x" + tempo.TRANSFERRED_WITH_MEMO.hex(), None, None, memo]  # type: ignore[assignment]
    return len({log["transactionHash"] for log in stage.inside(lambda: stage.world.chain.rpc("eth_getLogs", [wanted]))})


async def test_a_sponsored_payment_buys_credits_once_whoever_submits_it_again(tmp_path: Path) -> None:
    """It is found by its memo, under a hash that nobody knew, and the fee is not ours.

    Whoever holds the payload may submit it after the seller has: the chain runs it once, and so it is booked.
    """
    async with sold(tmp_path, two=True) as (world, stage):
        (sent,) = (await stage.until(State.PAID, State.CREDITED, State.DONE)).out
        payload, (own,) = payload_of(sent), seller_of(world).payments
        assert sent.plan.sponsored
        assert payload[:1] == b"\x78"
        other = tempo_transfer.completed(payload, tempo_transfer.SPONSORS[1], USDC_E, sent.plan.ends_s - WINDOW_S)
        assert own != "0x" + keccak(other).hex()
        submitted(world, other)
        mined(world)
        assert runs(stage, payload) == 1
        (payment,) = (await stage.until(State.DONE)).out
        assert payment.inclusion is not None
        assert payment.inclusion.token_fee == Usdc(0)
        assert payment.tx_hash == payment.inclusion.tx_hash not in (b"", payment.hash)
        told = stage.named("payment_included")
        assert [one.wallet_check for one in told] == ["exact"]
        assert paid_once(stage) == 0


@pytest.mark.parametrize(
    "sponsors",
    [
        pytest.param((1, 0), id="both transactions wait for the same block, and either may be the one: one transfer"),
        pytest.param((1,), id="the seller never does and denies it: paid, and booked as that"),
    ],
)
async def test_what_somebody_else_submits_is_found_as_well(sponsors: tuple[int, ...], tmp_path: Path) -> None:
    """Another holder of the payload hands it to the chain, for these sponsors."""
    denied = sponsors == (1,)
    async with sold(tmp_path, two=denied) as (world, stage):
        seller_of(world).switch_on("payment", "never-settles")
        (payment,) = (await stage.until(State.SENT)).out
        payload, now_s = payload_of(payment), payment.plan.ends_s - WINDOW_S

        def submit() -> None:
            for one in sponsors:
                raw = tempo_transfer.completed(payload, tempo_transfer.SPONSORS[one], USDC_E, now_s)
                world.chain.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
            assert world.chain.pending() == len(sponsors)
            world.chain.mine(world.clock.now_s())

        world.do(submit)
        assert runs(stage, payload) == 1
        topup = await stage.until(State.PAID)
        assert topup.payment is not None
        if denied:
            assert topup.payment.tx_hash.hex() not in {one[2:] for one in seller_of(world).payments}
        assert (topup.payment.token_fee, held(stage, RECIPIENT), len(topup.out)) == (Usdc(0), TEN, 1)


def seller_of(world: World) -> Seller:
    """Return who sells in this world."""
    assert isinstance(world.gateway, Seller)
    return world.gateway


async def test_a_seller_that_keeps_it_to_the_last_second_is_paid_once(tmp_path: Path) -> None:
    """It says 503, and submits it four seconds before its end: nothing else was signed in the meantime."""
    async with sold(tmp_path, two=True, conduct={"settles_late_ms": (WINDOW_S - 7) * 1000}) as (world, stage):
        seller_of(world).switch_on("payment", "settles-late")
        topup = await stage.until(State.DONE)
        assert len(topup.out) == 1
        assert topup.payment is not None
        assert 0 < topup.out[0].plan.ends_s - topup.payment.block_ms // 1000 <= 10
        assert paid_once(stage) == 0


async def given_up(stage: Stage) -> Attempt:
    """Let its time go by; return what was signed."""
    topup = await stage.until(State.SENT)
    (payment,) = topup.out
    stage.world.clock.leap(max(0, (payment.plan.over_s + 5) * 1000 - stage.world.clock.now_ms()))
    mined(stage.world)
    await stage.until(State.DEATHWATCH)
    return payment


async def test_what_was_never_submitted_is_replaced_once_it_is_proven_dead(tmp_path: Path) -> None:
    """Not by its time alone, nor by silence: two owners, a final block past its end, and a log of that time."""
    async with sold(tmp_path, two=True) as (world, stage):
        seller_of(world).switch_on("payment", "never-settles")
        first = await given_up(stage)
        bury(world)
        rest = await stage.rests("deathwatch", passes=5)
        assert "nothing shows that logs are kept" in rest.detail
        assert stage.topup.charges[0].dead is None
        seller_of(world).switch_off("payment")
        stranger_pays(world)
        bury(world)
        topup = await stage.until(State.DONE)
        assert [one.proof for one in stage.named("charge_dead")] == ["deadline"]
        assert [a.charge_seq for a in topup.out] == [1, 2]
        assert topup.out[0].nonce_slot != topup.out[1].nonce_slot
        submitted(
            world,
            tempo_transfer.completed(
                payload_of(first), tempo_transfer.SPONSORS[1], USDC_E, first.plan.ends_s - WINDOW_S
            ),
        )
        mined(world)
        assert runs(stage, payload_of(first)) == 0
        assert paid_once(stage) == 0


async def test_while_one_of_two_hides_the_log_nothing_takes_its_place(tmp_path: Path) -> None:
    """It shows every log but ours, and blocks and receipts as they are: neither paid nor dead, until it stops."""
    with selling() as world:
        hides = world.provider()
        stage = sponsoring(world, tmp_path, TOPUP_RAILS__MPP__RPC_URLS=f"{world.rpc.url},{hides.url}")

        async def answered(method: str, params: list[Any], honest: Next) -> Any:
            told = honest()
            ours = method == "eth_getLogs" and len(params[0]["topics"]) == 4
            return [log for log in told if log["topics"][2][-40:] != RECIPIENT[2:].lower()] if ours else told

        hides.intercept = answered
        payment = await given_up(stage)
        assert held(stage, RECIPIENT) == TEN
        stranger_pays(world)
        bury(world)
        rest = await stage.rests("deathwatch", passes=5)
        assert "the providers disagree" in rest.detail
        assert [a.id for a in stage.topup.out] == [payment.id]
        hides.intercept = None
        topup = await stage.until(State.DONE)
        assert len(topup.out) == len(topup.charges) == 1
        assert paid_once(stage) == 0
        await stage.close()


async def test_after_a_restart_the_same_payload_goes_out_again(tmp_path: Path) -> None:
    """The request was lost and the process died: what is stored is sent, byte for byte, and runs once."""
    with selling() as world:
        first = sponsoring(world, tmp_path, TOPUP_POSTING__RESEND_S="5")
        seller_of(world).switch_on("payment", "reset", times=1)
        topup = await first.until(State.SENT)
        await first.close()
        again = sponsoring(world, tmp_path, TOPUP_POSTING__RESEND_S="5")
        await again.until(State.PAID)
        sent = [post.credential for post in seller_of(world).posts if post.credential is not None]
        assert len(sent) == 2
        assert sent[0] == sent[1]
        assert again.topup.out[0].raw == topup.out[0].raw
        await again.until(State.DONE)
        assert paid_once(again) == 0
        assert runs(again, payload_of(again.topup.out[0])) == 1
        await again.close()


# What sponsors of each version accept: the same payload, to the byte.
VERSIONS: Final = [
    pytest.param("0.11.0", 1, marks=pytest.mark.long),
    pytest.param("0.14.0", 2, marks=pytest.mark.long),
    pytest.param("0.15.1", 2, marks=pytest.mark.long),
    pytest.param("0.16.0", 2),
]


@pytest.mark.machine_time
@pytest.mark.parametrize(("version", "offers"), VERSIONS)
async def test_a_seller_on_pympp_sponsors_it(tmp_path: Path, version: str, offers: int) -> None:
    """It takes the payload, adds itself, and answers 202 with a receipt; nothing of the fee is the wallet's."""
    key, rich = tempo_transfer.SPONSORS[0].to_hex(), tempo_transfer.funds(FUNDS)
    with on_tempo(lambda world, account: Front(account, world.chain), scale=1, funds=rich) as world:
        front: Any = world.gateway
        with pympp_seller(front.chain.url, RECIPIENT, version=version, sponsor=key) as url:
            front.behind = url
            # The package's clock is the machine's: until it is paid nobody leaps over anything.
            stage = sponsoring(world, tmp_path, TOPUP_RAILS__MPP__REALM="localhost", TOPUP_POSTING__PAY_TIMEOUT_S="40")
            await stage.works.cycle.run(PurchaseOrder(Usd.of(10)))
            (payment,) = stage.topup.out
            assert payment.answer.startswith("accepted: 202, receipt for 0x")
            assert payment.plan.sponsored
            await stage.until(State.DONE)
            assert paid_once(stage) == 0
            await stage.close()
        assert sum(line.count('method="tempo"') for line in front.challenged) == offers


# -- what is signed --------------------------------------------------------------------------------------------------


def rail_of(*, sponsored_s: int = 300, ceilings: bool = True, root: bytes = b"") -> mpp.Mpp:
    """The rail before a seller that pays the fee, with a key that may sign for a sponsor or may not."""
    rail = mpp_rail({"feePayer": True}, {}, {})
    rail._terms = replace(rail._terms, sponsored_s=sponsored_s)
    dollar = frozenset({(TEMPO_DOLLAR.chain_id, TEMPO_DOLLAR.token)})
    own = Ceilings(8453, b"\3" * 20, Wei(0), Wei(0), tokens=Usdc(TEN), bridged=dollar, token_fee=Usdc(100_000))
    rail._signer = from_private_key("0x" + KEY.hex(), replace(own, sponsored=ceilings, root=root))
    return rail


async def planned(rail: mpp.Mpp) -> tuple[Plan, Verified]:
    """Prove the challenge, and plan its payment."""
    verified, preflight = await proven(rail, asked(TEMPO_DOLLAR.chain_id))
    return await rail.plan(verified, preflight), verified


def test_what_is_signed_for_a_sponsor_pays_what_was_proven_and_dies_soon() -> None:
    """Read a second time, as a sponsor does: chain, token, recipient, amount, memo, and until when."""
    rail = rail_of(sponsored_s=120)
    plan, verified = asyncio.run(planned(rail))
    raw, key = rail.sign(plan, verified)
    payload = payload_in(raw)
    assert key == keccak(payload)
    assert (plan.sponsored, plan.token_fee, plan.ends_s) == (True, Usdc(0), builders.NOW_S + 120)
    read = decode(tempo_transfer.completed(payload, tempo_transfer.SPONSORS[0], USDC_E, builders.NOW_S))
    assert (read.sponsored, read.sender, read.recipient) == (True, "0x" + PAYER.hex(), "0x" + SOLD_TO.hex())
    assert (read.amount, read.valid_before) == (TEN, plan.ends_s)
    due = verified.demand
    assert isinstance(due, mpp_choice.Due)
    assert read.memo == due.memo
    # The one lane of expiring nonces says nothing of what ran: of two charges neither stands for the other.
    again, _ = asyncio.run(planned(rail_of()))
    assert plan.lane != again.lane
    assert tempo.EXPIRING not in (plan.lane, again.lane)
    # Sponsors want a quarter of a minute: with too little time it is dropped for another, as one that grew too old.
    with pytest.raises(ChargeRefused) as refused:
        asyncio.run(planned(rail_of(sponsored_s=19)))
    assert refused.value.field in DEADLINES


def test_the_end_of_what_is_sponsored_is_what_was_signed_and_a_minute() -> None:
    """Never longer than the seller's own end, and dead a minute past it at the earliest."""
    plan, verified = asyncio.run(planned(rail_of()))
    assert plan.ends_s == verified.demand.deadline == builders.NOW_S + 300
    plan, _ = asyncio.run(planned(rail_of(sponsored_s=28)))
    assert (plan.ends_s, plan.over_s) == (builders.NOW_S + 28, builders.NOW_S + 88)
    assert replace(plan, token_fee=Usdc(1)).over_s == plan.ends_s


@pytest.mark.parametrize(
    ("rail", "change", "said"),
    [
        (rail_of(ceilings=False), {}, "sponsor"),
        (rail_of(), {"ends_s": builders.NOW_S + 301}, "deadline"),
        (rail_of(), {"ends_s": 0}, "deadline"),
        (rail_of(), {"lane": tempo.EXPIRING}, "lane"),
        (rail_of(), {"data": b"\1" * 100}, "call data"),
        (rail_of(), {"tokens": Usdc(TEN + 1)}, "tokens"),
        (rail_of(), {"max_fee_per_gas": Wei(10**12)}, "network fee"),
        (rail_of(), {"token_fee": Usdc(1), "ends_s": builders.NOW_S + 100}, "deadline"),
    ],
    ids=["not told to", "too long", "no end", "a lane", "another call", "more", "dear", "no sponsor, and shorter"],
)
def test_the_key_signs_for_a_sponsor_only_what_fits(rail: mpp.Mpp, change: dict[str, Any], said: str) -> None:
    """Each rule alone refuses."""
    plan, verified = asyncio.run(planned(rail))
    with pytest.raises(SignerError, match=f"refuses to sign: .*{said}"):
        rail.sign(replace(plan, **change), verified)


def test_an_offer_that_pays_its_own_fee_is_not_sponsored_where_gas_is_free() -> None:
    """A chain, or a liar, may ask nothing for gas: what is signed stays on the lane that it is looked for on."""
    rail = mpp_rail({}, {}, {})
    rail._signer = rail_of()._signer

    async def free() -> tuple[Plan, Verified]:
        verified, preflight = await proven(rail, asked(TEMPO_DOLLAR.chain_id))
        return await rail.plan(verified, replace(preflight, base_fee=Wei(0), tip=Wei(0))), verified

    plan, verified = asyncio.run(free())
    assert (plan.sponsored, plan.token_fee) == (False, Usdc(1))
    assert not decode(payload_in(rail.sign(plan, verified)[0])).sponsored
    with pytest.raises(SignerError, match="differ in who pays the network's fee"):
        rail.sign(replace(plan, token_fee=Usdc(0)), verified)


def test_no_access_key_signs_for_a_sponsor() -> None:
    """Sponsors take no such signature, and its limit would count for nothing."""
    rail = rail_of(root=PAYER)
    plan, verified = asyncio.run(planned(rail))
    with pytest.raises(SignerError, match="sponsor"):
        rail.sign(plan, verified)
    own = {"TOPUP_RAILS__MPP__ROOT": "0x" + "11" * 20, "TOPUP_RAILS__USE": "mpp", "TOPUP_CONFIG": "/dev/null"}
    with pytest.raises(SettingsError, match=r"rails\.mpp\.sponsored"):
        load(own | SPONSORED)


@pytest.mark.parametrize("text", ["1", "yes", "", "on", "maybe"])
def test_the_setting_is_true_or_false(text: str) -> None:
    """What reads as neither is no permission."""
    with pytest.raises(SettingsError, match=r"rails\.mpp\.sponsored.*true or false"):
        load({"TOPUP_CONFIG": "/dev/null", "TOPUP_RAILS__MPP__SPONSORED": text})
    for word, meant in (("true", True), ("False", False)):
        told = load({"TOPUP_CONFIG": "/dev/null", "TOPUP_RAILS__MPP__SPONSORED": word})
        assert told.rails.mpp.sponsored is meant


# -- in the ledger's comparison with the chain -----------------------------------------------------------------------


def test_a_sponsored_payment_is_known_by_its_transaction_and_before_that_by_what_it_paid() -> None:
    """Once it was seen by the transaction that carried it; until then one of just that amount and recipient is its."""
    to, token = b"\5" * 20, TEMPO_DOLLAR.token
    data = tempo.transfer_with_memo(to, TEN, b"\6" * 32)
    plan = replace(builders.plan(broadcaster=Broadcaster.SERVER, nonce=0, lane=1), data=data, tokens=Usdc(TEN))
    out = Attempt(1, 1, plan, b"", b"\1" * 32, 1, 1, 1, withdrawn=False, inclusion=None, booked=False)
    there = replace(builders.inclusion(success=True, block_number=5), tx_hash=b"\7" * 32)
    seen = replace(out, id=2, hash=b"\2" * 32, inclusion=there)
    topup = builders.topup(attempts=(out, seen))

    def payment(units: int, tx_hash: bytes) -> Transfer:
        return Transfer(token, topup.wallet, tx_hash + bytes(8), to, units, tx_hash, 5)

    theirs, other, ours = payment(TEN, b"\7" * 32), payment(TEN - 1, b"\x08" * 32), payment(TEN, b"\x09" * 32)
    again = payment(TEN, b"\x0a" * 32)
    keyed = reconciliation.named([(topup, out), (topup, seen)], [theirs, other, ours, again], by_id=False)
    assert keyed == [(seen.hash, theirs), (other.tx_hash, other), (out.hash, ours), (again.tx_hash, again)]
