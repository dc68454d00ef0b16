"""What is a rail before a seller who says one thing? No seller listens: what one says is handed over in memory."""

import base64
import json
from typing import Any

from eth_keys.datatypes import PrivateKey

from tests.world import builders, simulated
from tests.world.simulated import SELLER, answer
from topup.domain.demand import Bounds, Request, Verified
from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLAR, TEMPO_TOKENS, Dollar
from topup.domain.money import Bps, Usd, Usdc, Wei
from topup.domain.nonpayment import ChargeStatus
from topup.ports.chain import AuthorizationUse, Head, Preflight
from topup.sellers import authorization, mpp, x402
from topup.sellers.mpp_choice import Terms
from topup.sellers.mpp_fields import OPENROUTER, Fields
from topup.sellers.x402_profile import PROFILES
from topup.wire.http import Answered
from topup.wire.secrets import NOTHING, Masker

KEY = b"\x09" * 32
PAYER = PrivateKey(KEY).public_key.to_canonical_address()
SOLD_TO = builders.address(SELLER)
TEN = 10_000_000
HEAD = Head(100, b"\x01" * 32, builders.NOW_S)
Json = dict[str, Any]
REALM = "seller.example"


class Standing:
    """A clock that stands still, a chain on which nothing was used, and a seller that says one thing."""

    chain_id = 0
    owners = 2
    requests = 0
    base = "https://seller.example"

    def __init__(self, answer: Answered) -> None:
        self._answer = answer
        self.fated = ChargeStatus(200, builders.NOW_S + 10**6, flag=True, payers=frozenset(), witnesses=2)

    def now_ms(self) -> int:
        return builders.NOW_MS

    def monotonic_ms(self) -> int:
        return builders.NOW_MS

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)

    async def ask(self, method: str, path: str, **_: Any) -> Answered:
        return self._answer

    async def preflight(self, wallet: bytes, token: bytes, uses: Any = (), *, key: bytes | None = None) -> Preflight:
        return Preflight(HEAD, Wei(0), 0, 0, Wei(1), Wei(1), b"", {}, None, tokens=Usdc(10 * TEN))

    async def simulate(self, *_: Any) -> None:
        return None

    async def payment_status(self, use: AuthorizationUse) -> ChargeStatus:
        return self.fated


def asked(chain_id: int, purchase: str = "t1") -> Request:
    return Request(Usd.of(10), PAYER, chain_id, purchase)


def x402_rail(signer: Any = None, **changes: Any) -> tuple[x402.X402, Any]:
    """The rail, before a seller whose one offer differs from an honest one by `changes`."""
    return x402_before([changes], signer)


def x402_before(
    offers: list[Json], signer: Any = None, *, pinned: frozenset[bytes] = frozenset({SOLD_TO})
) -> tuple[x402.X402, Any]:
    """The rail, before a seller with offers that differ from an honest one by these changes."""
    world: Any = Standing(answer("/credits/topup", 402, simulated.offers(TEN, *offers)))
    one = BASE_DOLLAR
    bounds = Bounds(one.token, pinned, Bps(600), 30, 900)
    told = authorization.Seller(world, "", bounds, 1, NOTHING)
    rail = x402.X402(told, world, signer, world, profile=PROFILES["plain"], token=one)
    return rail, world


async def proven(rail: Any, request: Request) -> tuple[Verified, Preflight]:
    proof: tuple[Verified, Preflight] = await rail.prove(await rail.ask(request), request, seen=())
    return proof


def challenge(name: str = "one", *, request: Json | None = None, details: Json | None = None, **shown: str) -> str:
    """Write one challenge of a seller on Tempo, honest but for what is given."""
    told: Json = {"amount": str(TEN), "currency": "0x" + TEMPO_DOLLAR.token.hex(), "recipient": SELLER}
    told |= {"methodDetails": {"chainId": TEMPO_DOLLAR.chain_id} | (details or {})} | (request or {})
    packed = base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
    named = {"id": name, "realm": REALM, "method": "tempo", "intent": "charge", "request": packed}
    named |= {"expires": "2026-09-21T14:18:20Z"} | shown
    return "Payment " + ", ".join(f'{key}="{value}"' for key, value in named.items())


def unpaid(*lines: str) -> Answered:
    """What a seller answers with these headers."""
    return Answered("/credits/purchases", 402, tuple(("www-authenticate", line) for line in lines), b"")


def mpp_rail(details: Json, told: Json, shown: dict[str, str], *, key: str = "k-e-y") -> mpp.Mpp:
    """The rail, before a seller whose one challenge differs from an honest one."""
    return mpp_before(Standing(unpaid(challenge(request=told, details=details, **shown))), key=key)


def mpp_before(
    seller: Any,
    *,
    key: str = "k-e-y",
    pinned: frozenset[bytes] | None = frozenset({SOLD_TO}),
    dollar: Dollar = TEMPO_DOLLAR,
    fields: Fields = OPENROUTER,
) -> mpp.Mpp:
    """The rail before this seller, who is the clock and the chain as well."""
    bounds = Bounds(dollar.token, pinned, Bps(600), 30, 900, "rails.mpp")
    told = authorization.Seller(seller, key, bounds, 1, Masker([key]))
    terms = Terms(REALM, dollar.asset, TEMPO_TOKENS)
    return mpp.Mpp(told, seller, None, seller, terms=terms, fields=fields)
