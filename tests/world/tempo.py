"""Who lives where machine payments are made? Worlds on a real Tempo chain, and topup in them."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.tools import require
from tests.world.stage import Stage
from topup.accounting.journal import CREDITS, IN_TRANSIT, WALLET, Commodity
from topup.domain.money import Usdc
from topup.sandbox.gateway import Account, Gateway, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.mpp_wire import PURCHASES
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
from topup.sandbox.tempo import USDC_E, Tempo
from topup.sandbox.world import STEPPED, World

HELD: Final = 25_000_000


def on_tempo(
    make_gateway: Callable[[World, Account], Gateway],
    *,
    scale: int = STEPPED,
    funds: Mapping[str, int] | None = None,
    token: str = USDC_E,
    holds: int = HELD,
    **terms: Any,
) -> World:
    """Return a world whose chain is Tempo; its wallet `holds` so much of a token, and others what `funds` says."""
    anvil = require("anvil")

    def chain(world: World) -> Any:
        made = Tempo(anvil, funded=dict(funds or {}), block_s=None, now=world.clock.now_s)
        if holds:
            made.fund(world.wallet, holds, token)
        return made

    return World(chain, scale=scale, make_gateway=make_gateway, **terms)


def selling(conduct: MppConduct | None = None, *, scale: int = 10, **how: Any) -> World:
    """A world on Tempo whose provider sells for machine payments; `how` is as `on_tempo` takes it."""

    def seller(world: World, account: Any) -> Seller:
        return Seller(account, world.chain, conduct=conduct or MppConduct(posting_delay_ms=10_000))

    return on_tempo(seller, scale=scale, **how)


def buying(*urls: str) -> dict[str, str]:
    """Return the settings by which such a seller is paid, through these providers."""
    return {
        "TOPUP_RAILS__USE": "mpp",
        "TOPUP_RAILS__MPP__RPC_URLS": ",".join(urls),
        "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
    }


def stage_of(world: World, directory: Path, **more: str) -> Stage:
    """The program in this world, with one provider of Tempo."""
    own = {"TOPUP_POSTING__PAY_TIMEOUT_S": "30"} | more
    return Stage(world, directory, world.clock, buying(world.rpc.url) | own)


def held(stage: Stage, address: str, token: str = USDC_E) -> int:
    chain: Any = stage.world.chain
    return int(stage.inside(lambda: chain.balance(address, token)))


def paid_once(stage: Stage) -> int:
    """The seller has ten dollars, once; the wallet lost that and the fee, which is returned; the books say the same."""
    paid, left = held(stage, RECIPIENT), HELD - held(stage, stage.world.wallet)
    assert paid == 10_000_000
    assert stage.topup.payment is not None
    assert stage.topup.payment.tokens == Usdc(paid)
    fees = sum(a.inclusion.token_fee.units for a in stage.topup.out if a.inclusion is not None)
    assert left == paid + fees
    assert stage.in_books(WALLET, Commodity.USDC_E) == -left
    assert stage.in_books(CREDITS, Commodity.CREDIT) == paid
    assert stage.in_books(IN_TRANSIT, Commodity.USDC_E) == 0
    return fees


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
