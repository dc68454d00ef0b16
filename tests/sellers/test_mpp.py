"""Does the mpp rail pay a machine payment once on a real Tempo chain, whatever the seller answers?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.oracles import mppx_seller, pympp_seller
from tests.tools import require
from tests.world.stage import Stage
from topup.accounting.journal import CREDITS, IN_TRANSIT, WALLET, Commodity
from topup.domain.lifecycle import State, TopUp
from topup.domain.money import Asset, Usd, Usdc
from topup.payment.config import PurchaseOrder
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.purchase_wire import PURCHASES
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
from topup.sandbox.tempo import Tempo
from topup.sandbox.world import World

HELD = 25_000_000


@contextmanager
def selling(conduct: MppConduct | None = None) -> Iterator[World]:
    """A world whose chain is Tempo and whose provider sells for machine payments; the wallet holds 25 dollars."""
    anvil = require("anvil")

    def chain(world: World) -> Any:
        return Tempo(anvil, funded={world.wallet: HELD}, block_s=None, now=world.clock.now_s)

    def seller(world: World, account: Any) -> Seller:
        return Seller(account, world.chain, conduct=conduct or MppConduct(posting_delay_ms=10_000))

    with World(chain, scale=10, make_gateway=seller) as world:
        yield world


def stage_of(world: World, directory: Path, **more: str) -> Stage:
    """The program in this world, with one provider of Tempo."""
    own = {
        "TOPUP_RAILS__USE": "mpp",
        "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url,
        "TOPUP_POSTING__PAY_TIMEOUT_S": "5",
        "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
    }
    return Stage(world, directory, world.clock, own | more)


def held(stage: Stage, address: str) -> int:
    """Return an account's USDC.e on the chain."""
    chain: Any = stage.world.chain
    return int(stage.inside(lambda: chain.balance(address)))


def booked(stage: Stage, account: str, commodity: Commodity) -> int:
    """Return what the journal says of one account."""
    lines = [x for e in stage.store.entries("default") if e.topup_id for x in e.lines]
    return sum(x.units for x in lines if (x.account, x.commodity) == (account, commodity))


def paid_once(stage: Stage, topup: TopUp, dollars: int = 10) -> None:
    """The recipient has exactly one payment, the wallet lost that and the fee, and the books say the same."""
    assert held(stage, RECIPIENT) == dollars * 10**6
    payment = topup.paying
    assert payment is not None
    assert payment.inclusion is not None
    assert payment.inclusion.tokens == Usdc(dollars * 10**6)
    left = HELD - held(stage, stage.world.wallet)
    fees = sum(a.inclusion.token_fee.units for a in topup.out if a.inclusion is not None)
    assert left == dollars * 10**6 + fees
    assert booked(stage, WALLET, Commodity.USDC_E) == -left
    assert booked(stage, CREDITS, Commodity.CREDIT) == dollars * 10**6
    assert booked(stage, IN_TRANSIT, Commodity.USDC_E) == 0


async def test_a_machine_payment_buys_credits(tmp_path: Path) -> None:
    """Challenge, credential, settlement on Tempo, credits: one transfer, fee and all in the books to the unit."""
    with selling() as world:
        stage = stage_of(world, tmp_path)
        topup = await stage.until(State.DONE)
        (payment,) = topup.out
        assert payment.plan.asset is Asset.USDC_E
        assert payment.reference.startswith("pi_")
        paid_once(stage, topup)
        await stage.close()


class Front(Seller):
    """An account at a seller that runs on somebody else's package: purchases go through, credits are posted here.

    With `joined` several headers of one name become one, as a proxy may do it; `challenged` keeps what was asked for.
    """

    def __init__(self, account: Account, chain: Any, *, joined: bool = False) -> None:
        super().__init__(account, chain, conduct=MppConduct())
        self.behind = ""
        self.challenged: list[str] = []
        self._joined = joined
        self._posted = 0

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        if request.path != PURCHASES:
            return await super()._answer_own(request, seen)
        passed = {k: v for k, v in request.headers.items() if k not in ("host", "connection", "content-length")}
        async with httpx.AsyncClient(timeout=40) as client:
            told = await client.post(self.behind + PURCHASES, content=request.body, headers=passed)
        hop = ("transfer-encoding", "content-length", "content-encoding", "connection")
        items = told.headers.items() if self._joined else told.headers.multi_items()
        kept = [f"{name}: {value}" for name, value in items if name not in hop]
        self.challenged += [line for line in kept if line.startswith("www-authenticate")]
        lines = [f"HTTP/1.1 {told.status_code} X", *kept, f"content-length: {len(told.content)}"]

        async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + told.content)
            await writer.drain()

        return Raw(write)

    def poll(self) -> None:
        arrived = self.chain.balance(RECIPIENT) // 10**6  # type: ignore[attr-defined]
        self.account.total_credits += arrived - self._posted
        self._posted = arrived


OLD = [pytest.mark.long]
PACKAGES = [
    pytest.param(partial(pympp_seller, version="0.11.0"), "localhost", 1, False, id="pympp 0.11.0", marks=OLD),
    pytest.param(partial(pympp_seller, version="0.14.0"), "localhost", 2, True, id="pympp 0.14.0", marks=OLD),
    pytest.param(partial(pympp_seller, version="0.15.1"), "localhost", 2, False, id="pympp 0.15.1"),
    pytest.param(partial(pympp_seller, version="0.16.0"), "localhost", 2, True, id="pympp 0.16.0"),
    pytest.param(partial(mppx_seller, version="0.8"), "127.0.0.1", 2, False, id="mppx 0.8", marks=OLD),
    pytest.param(partial(mppx_seller, version="0.9"), "127.0.0.1", 2, False, id="mppx 0.9", marks=OLD),
    pytest.param(partial(mppx_seller, version="0.10"), "127.0.0.1", 2, False, id="mppx 0.10"),
    # As it calls itself where the request does not say which host was asked.
    pytest.param(partial(mppx_seller, realm="MPP Payment"), "MPP Payment", 2, False, id="mppx 0.11"),
]


@pytest.mark.machine_time
@pytest.mark.parametrize(("package", "realm", "offers", "joined"), PACKAGES)
async def test_sellers_with_their_own_defaults_are_paid_once(
    tmp_path: Path,
    package: Callable[[str, str], AbstractContextManager[str]],
    realm: str,
    offers: int,
    joined: bool,  # noqa: FBT001
) -> None:
    """Whatever tokens a package's seller offers by itself, in one header or several: USDC.e is paid, once."""
    anvil = require("anvil")

    def chain(world: World) -> Any:
        return Tempo(anvil, funded={world.wallet: HELD}, block_s=None, now=world.clock.now_s)

    with World(chain, scale=8, make_gateway=lambda world, account: Front(account, world.chain, joined=joined)) as world:
        front: Any = world.gateway
        with package(front.chain.url, RECIPIENT) as url:
            front.behind = url
            # Its clock is the machine's: the world's must not run away from a challenge's end.
            stage = stage_of(world, tmp_path, TOPUP_RAILS__MPP__REALM=realm, TOPUP_POSTING__PAY_TIMEOUT_S="40")
            topup = await stage.until(State.DONE, asked=PurchaseOrder(Usd.of(10)))
            assert topup.out[0].answer.startswith("accepted: 202, receipt for 0x")
            paid_once(stage, topup)
            await stage.close()
        assert sum(line.count('method="tempo"') for line in front.challenged) == offers
        # mppx itself writes all of them into one header.
        assert len(front.challenged) == (1 if joined or "mppx" in repr(package) else offers)
