"""What does a gateway that sells for x402 say of its account? The `Api` port where only a balance is told.

Such a gateway knows what is left, not what was ever bought and used. Both totals are kept from one reading to the next:
what the balance rose by was bought, what it fell by was used. Usage within one interval hides as much of a purchase, so
that a posting is told by a rise that may be a little short (`Reading.exact` is False).
"""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, Never

from topup.domain import json_document
from topup.domain.credits import Reading
from topup.domain.demand import Request
from topup.domain.errors import ApiGone, ApiUnauthorized, ApiUnknown
from topup.domain.money import Usd
from topup.ports.account import Key
from topup.sellers.x402_profile import Profile, identity
from topup.sellers.x402_wire import Login
from topup.wire.exchange import Asked, Exchange, fail
from topup.wire.http import Answered
from topup.wire.reading import walled

# Less is no purchase (sellers take a dollar at least): two replicas that differ by cents would otherwise be taken for
# purchases and usage in turn, and both totals would climb for ever. What is left is then understated by as much.
RISE_MIN: Final = Usd.of("0.50")


class Prepaid(Asked):
    """The account of one wallet, or of one key, at a gateway that sells for x402."""

    def __init__(
        self,
        exchange: Exchange,
        profile: Profile,
        *,
        key: str,
        login: Login | None,
        wallet: bytes,
        last: Callable[[], Reading | None],
        now_ms: Callable[[], int],
    ) -> None:
        """Join what is needed; `last` returns the newest believed reading, which the totals go on from.

        `wallet` is the account where the seller keeps one for each wallet, b"" where the key alone tells it.
        """
        super().__init__(exchange)
        self._profile = profile
        self._key = key
        self._login = login
        self._wallet = wallet
        self._last = last
        self._now_ms = now_ms

    @walled("the balance", ApiUnknown)
    async def credits(self) -> Reading:
        """Read the balance, and carry the totals on from the last reading."""
        at_ms, path, source = self._now_ms(), self._profile.account(self._wallet), self._profile.balance
        url = self._exchange.base + path
        who = identity(self._profile, source.auth, url, at_ms, key=self._key, login=self._login)
        answered = await self._exchange.ask(source.method, path, headers=who)
        if answered.status != 200:
            self._refused(answered)
        balance, last = self._balance(answered.body, answered.who), self._last()
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
        return Key(management=True)

    async def charge(self, request: Request) -> bytes:
        """Refuse: there is no charge to ask for here."""
        raise ApiGone(f"{self._exchange.host} sells no Coinbase charges", remedy="set rails.use to x402")

    def _refused(self, answered: Answered) -> Never:
        """Raise what an answer means that tells no balance."""
        try:
            fail(answered, self._key)
        except ApiUnauthorized as error:
            if self._profile.balance.auth != "login":
                raise
            # No key was sent that could be wrong. The sentence that is signed is what the sellers' pages differ in.
            signed = self._profile.login.statement
            raise ApiUnauthorized(
                f"{error}; the login signs {signed!r}, of which rails.x402.profile has others (venice, venice-ai)",
                remedy="choose the text that the seller wants in rails.x402.profile, and set this machine's clock",
            ) from None

    def _balance(self, raw: bytes, path: str) -> Usd:
        try:
            value: Any = json_document.read(raw)
            for name in self._profile.balance.field.split("."):
                value = value[int(name) if isinstance(value, list) else name]
            amount = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else None
        except (ValueError, ArithmeticError, RecursionError, LookupError, TypeError):
            amount = None
        if amount is None or not amount.is_finite() or amount.adjusted() >= 15 or int(amount.as_tuple().exponent) < -30:
            raise ApiUnknown(f"{path} answered without an amount at {self._profile.balance.field}")
        return Usd(self._profile.usd(amount))
