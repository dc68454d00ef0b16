"""What does a gateway that sells for x402 say of its account? The `Api` port where only a balance is told.

Such a gateway knows what is left, not what was ever bought and used. Both totals are kept from one reading to the next:
what the balance rose by was bought, what it fell by was used. Usage within one interval hides as much of a purchase, so
that a posting is told by a rise that may be a little short (`Reading.exact` is False).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Protocol

from topup.charge import Request
from topup.credits import Reading
from topup.errors import ApiGone, ApiUnknown
from topup.exchange import Exchange, fail
from topup.money import Usd
from topup.ports import Key

# How long one login is good for; Venice takes ten minutes.
LOGIN_MS: Final = 300_000
# Less is no purchase (sellers take a dollar at least): two replicas that differ by cents would otherwise be taken for
# purchases and usage in turn, and both totals would climb for ever. What is left is then understated by as much.
RISE_MIN: Final = Usd.of("0.50")


@dataclass(frozen=True)
class Profile:
    """How one gateway tells the balance: the path, where the amount stands, and the words of its login.

    `statement` is None where the gateway wants a key instead of a login by wallet.
    """

    path: str
    where: tuple[str, ...]
    statement: str | None


PROFILES: Final[dict[str, Profile]] = {
    "venice": Profile("/x402/balance/{wallet}", ("data", "balanceUsd"), "Sign in to Venice API"),
    "plain": Profile("/credits/balance", ("balance_usdc",), None),
}


class Login(Protocol):
    """Signs the text that a gateway wants; see `ports.Signer.sign_login`."""

    address: bytes

    def header(
        self, *, domain: str, uri: str, statement: str, nonce: str, now_ms: int, life_ms: int
    ) -> tuple[str, str]:
        """Return name and value of the header that logs in."""


class Prepaid:
    """The account of one wallet, or of one key, at a gateway that sells for x402."""

    def __init__(
        self,
        exchange: Exchange,
        profile: Profile,
        *,
        key: str,
        login: Login | None,
        last: Callable[[], Reading | None],
        now_ms: Callable[[], int],
    ) -> None:
        """Join what is needed; `last` returns the newest believed reading, which the totals go on from."""
        self._exchange = exchange
        self._profile = profile
        self._key = key
        self._login = login
        self._last = last
        self._now_ms = now_ms

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""
        return self._exchange.requests

    @property
    def date(self) -> str:
        """Return the Date header of the newest answer, "" without one."""
        return self._exchange.date

    async def close(self) -> None:
        """Close the connection."""
        await self._exchange.close()

    async def credits(self) -> Reading:
        """Read the balance, and carry the totals on from the last reading.

        Raises:
            ApiError: no usable answer, of the class that says why.
        """
        at_ms, headers = self._now_ms(), self._identity()
        wallet = "0x" + self._login.address.hex() if self._login is not None else ""
        answered = await self._exchange.ask("GET", self._profile.path.format(wallet=wallet), headers=headers)
        if answered.status != 200:
            fail(answered, self._key)
        balance, last = self._balance(answered.body, answered.path), self._last()
        if last is None:
            return Reading(balance, Usd.of(0), at_ms, exact=False)
        moved = balance - last.balance
        if Usd.of(0) <= moved < RISE_MIN:
            return replace(last, at_ms=at_ms, exact=False)
        if moved >= RISE_MIN:
            return replace(last, total_credits=last.total_credits + moved, at_ms=at_ms, exact=False)
        return replace(last, total_usage=last.total_usage - moved, at_ms=at_ms, exact=False)

    async def key(self) -> Key:
        """Say that whoever reads the balance may: there is no lesser key at such a gateway."""
        return Key(management=True, label="")

    async def charge(self, request: Request) -> bytes:  # noqa: ARG002
        """Refuse: there is no charge to ask for here.

        Raises:
            ApiGone: always.
        """
        raise ApiGone(f"{self._exchange.host} sells no Coinbase charges", remedy="set rails.use to x402")

    def _identity(self) -> Mapping[str, str]:
        if self._login is None or self._profile.statement is None:
            return {"authorization": f"Bearer {self._key}"}
        host = self._exchange.host
        scheme = self._exchange.base.partition("://")[0]
        name, value = self._login.header(
            domain=host,
            uri=f"{scheme}://{host}",
            statement=self._profile.statement,
            nonce=secrets.token_hex(8),
            now_ms=self._now_ms(),
            life_ms=LOGIN_MS,
        )
        return {name: value}

    def _balance(self, raw: bytes, path: str) -> Usd:
        try:
            told: Any = json.loads(raw.decode("utf-8"), parse_float=Decimal, object_pairs_hook=_once)
            for name in self._profile.where:
                told = told[name]
            amount = Decimal(told) if isinstance(told, str | int | Decimal) and not isinstance(told, bool) else None
        except (ValueError, ArithmeticError, RecursionError, LookupError, TypeError):
            amount = None
        if amount is None or not amount.is_finite() or amount.adjusted() >= 15 or int(amount.as_tuple().exponent) < -30:
            raise ApiUnknown(f"{path} answered without an amount at {'.'.join(self._profile.where)}")
        return Usd(amount)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name given twice")
    return document
