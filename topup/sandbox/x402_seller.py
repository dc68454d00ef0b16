"""What do sellers for x402 share? Offers, payments that are settled on the chain once, credits, and faults.

An unpaid request is answered with offers; a payment that comes back is verified, carried to the chain by the seller's
own facilitator, and credited when the chain shows it. What the chain settles is taken, whatever the answer says; what
it refuses never is. Sources: x402 specification; Venice's API reference and its page for agents; Dria's API reference.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

from topup.sandbox.charges import named_address
from topup.sandbox.facilitator import Authorization, Facilitator, Paid, Refused, chain_of, read
from topup.sandbox.gateway import Account, Conduct, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.rpc import Chain, RpcError
from topup.sandbox.seller import ChainSeller, answer_of, wait_until
from topup.sandbox.seller_faults import NOT_SERVED, SETTLED
from topup.sandbox.x402_faults import ANSWERS_INSTEAD, FAULTS_AT, HOSTILE_OFFERS, Offer, Place

Json = Any

RECIPIENT: Final = named_address("topup sandbox: seller for x402")
UNITS: Final = Decimal(10**6)


@dataclass
class X402Conduct(Conduct):
    """How the seller behaves when nothing is wrong; may be changed while it runs.

    Attributes:
        timeout_s: how long an authorization may be good for, in seconds.
        wait_s: how long the chain is waited for before the answer is 504, in seconds of the machine, or of a
            stepped world.
        settles_late_ms: how long a payment is kept back by the faults that settle late.
        again: what becomes of a payment that was settled before: the first answer once more, or a refusal.
        version: which version of the protocol a seller speaks whose record does not say.
    """

    amount_min_usd: Decimal = Decimal(5)
    amount_max_usd: Decimal = Decimal(10_000)
    timeout_s: int = 300
    wait_s: float = 10
    settles_late_ms: int = 10_000
    again: Literal["answers", "refuses"] = "answers"
    version: Literal[1, 2] = 1


@dataclass(frozen=True)
class Line:
    """One line of an account's statement, in USD; `amount` is negative for what was used."""

    kind: Literal["TOP_UP", "CHARGE"]
    amount: Decimal
    balance_after: Decimal
    at_ms: int
    name: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass
class Statement:
    """An account and its lines, the oldest first."""

    account: Account
    lines: list[Line] = field(default_factory=list)
    charged: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        """Begin with nothing to charge."""
        self.charged = self.account.total_usage

    @property
    def balance(self) -> Decimal:
        """USD left: credit is never lent."""
        return max(Decimal(0), self.account.total_credits - self.account.total_usage)

    def charge(self) -> None:
        """Write down what was used since the last line."""
        used = self.account.total_usage
        if used > self.charged:
            self.lines.append(Line("CHARGE", self.charged - used, self.balance, self.account.now_ms()))
            self.charged = used

    def credit(self, usd: Decimal) -> None:
        """Add credits that were bought."""
        self.charge()
        self.account.total_credits += usd
        self.lines.append(Line("TOP_UP", usd, self.balance, self.account.now_ms()))


@dataclass
class Settlement:
    """A payment that was verified, and what became of it; `due_ms` when it is still to be sent to the chain."""

    authorization: Authorization
    version: int
    usd: Decimal
    statement: Statement
    id: str = field(default_factory=lambda: "x402-" + secrets.token_hex(16))
    tx_hash: str | None = None
    due_ms: int | None = None
    settled_ms: int | None = None
    credited_ms: int | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class X402Seller(ChainSeller):
    """What both sellers share. `start` it, and call `poll` on a timer.

    Besides the gateway's `posting`, faults can be switched at `offer` (an unpaid request), `payment` (a paid one),
    `balance` and `transactions`.

    Attributes:
        asked: requests by place, answered or not.
        offered: every offer given out on a chain we can name; all of them can be paid.
        settlements: payments that were verified, by payer and nonce.
        extended: the extensions that stood beside the offers, each time they were given out: they have to come back.
    """

    faults_at = FAULTS_AT

    base: ClassVar[str]

    profile: str
    headers: tuple[str, ...]  # That a payment may come in.

    conduct: X402Conduct

    def __init__(self, account: Account, chain: Chain, wallet: str, *, conduct: X402Conduct | None = None) -> None:
        """Sell on this chain; `account` is the wallet's, and its clock the seller's."""
        super().__init__(account, conduct=conduct or X402Conduct())
        self.facilitator = Facilitator(chain)
        self.recipient = RECIPIENT
        self.wallet = wallet.lower()
        self.statements = {self.wallet: Statement(account)}
        self.asked: Counter[str] = Counter()
        self.offered: list[Offer] = []
        self.settlements: dict[tuple[str, bytes], Settlement] = {}
        self.extended: list[Mapping[str, Json] | None] = []
        self._first_balance: Decimal | None = None

    @property
    def url(self) -> str:
        """The base as a client is configured with."""
        return self._server.url + self.base

    def environment(self) -> dict[str, str]:
        """Return the settings that differ from the world's own when this seller sells."""
        return {
            "TOPUP_RAILS__USE": "x402",
            "TOPUP_RAILS__X402__PROFILE": self.profile,
            "TOPUP_RAILS__X402__RECIPIENTS": self.recipient,
            "TOPUP_API__KIND": "x402",
            "TOPUP_API__URL": self.url,
            "TOPUP_API__KEY": self.management_key,
        }

    def count(self, place: Place) -> int:
        """How many requests one endpoint has had, answered or not."""
        return self.asked[place]

    # Faults.

    def _spoil(self, place: str, seen: Seen) -> str:
        self.asked[place] += 1
        return super()._spoil(place, seen)

    # What the two do differently.

    def _ordered(self, request: Request) -> int:
        """Return the units that an honest offer asks for. Raises Refused."""
        raise NotImplementedError

    def _enough(self, paid: Paid, offer: Offer) -> None:
        """Raise Refused unless this much buys what was offered."""
        raise NotImplementedError

    def _statement(self, payer: str) -> Statement:
        """Return whose account this payer fills."""
        raise NotImplementedError

    def _unpaid(self, ordered: int, fault: str = "", error: str = "Payment required") -> Response:
        """Return the 402 with its offers."""
        raise NotImplementedError

    def _refusal(self, status: int, refused: Refused, ordered: int) -> Response:
        """Return what is said of a payment that is not taken."""
        raise NotImplementedError

    def _thanks(self, settlement: Settlement) -> Response:
        """Return what is said of a payment that was taken."""
        raise NotImplementedError

    async def _read(self, request: Request, seen: Seen) -> Response | Raw:
        """Answer whatever is not the endpoint that sells."""
        raise NotImplementedError

    # Requests.

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        return await (self._sell(request, seen) if request.method == "POST" else self._read(request, seen))

    async def _sell(self, request: Request, seen: Seen) -> Response | Raw:
        header = next((request.headers[name] for name in self.headers if name in request.headers), None)
        fault = self._spoil("offer" if header is None else "payment", seen)
        ordered = 0
        try:
            ordered = self._ordered(request)
            if header is not None:
                return await self._paid(header, ordered, fault)
        except Refused as refused:
            return self._refusal(400, refused, ordered)
        return self._instead(fault, ordered) or self._unpaid(ordered, fault)

    def _instead(self, fault: str, ordered: int, honest: bytes = b"{}") -> Response | Raw | None:
        """Return what a fault says in place of an honest answer; None for a fault of another kind."""
        if fault in NOT_SERVED:
            status, title = NOT_SERVED[fault]
            return answer_of(status, {"error": title})
        if fault == "redirect-307":
            return self._redirect(self.base)
        if fault == "payment-required-402":
            return self._unpaid(ordered)
        if fault == "failed-402":
            return self._refusal(402, _failed("Nothing was moved."), ordered)
        return self._wired(fault, honest)

    # Offers.

    def _offer(self, ordered: int, fault: str) -> Offer:
        offer = Offer(
            chain_id=self.facilitator.chain_id,
            asset=self.facilitator.token,
            pay_to=self.recipient,
            amount=ordered,
            timeout_s=self.conduct.timeout_s,
            description="Credits",
            extra={"name": "USD Coin", "version": "2"},
        )
        return HOSTILE_OFFERS[fault](offer) if fault in HOSTILE_OFFERS else offer

    def _offers(self, ordered: int, fault: str) -> list[Offer]:
        """Return the offers on chains we can name, and keep them: whatever was offered may be paid."""
        offers = [] if fault == "solana-only" else [self._offer(ordered, fault)]
        if fault == "stranger-too":
            offers.insert(0, self._offer(ordered, "other-recipient"))
        self.offered += [offer for offer in offers if offer not in self.offered]
        return offers

    def _written(self, offer: Offer) -> dict[str, Json]:
        """Write an offer as this seller does."""
        return written(offer)

    # Payments.

    async def _paid(self, header: str, ordered: int, fault: str) -> Response | Raw:
        if fault in ANSWERS_INSTEAD and (said := self._instead(fault, ordered)) is not None:
            return said
        settlement = self._taken(read(header), ordered)
        if settlement.turn.locked():
            return self._refusal(409, Refused("PAYMENT_IN_PROGRESS", "in_progress", "It is being settled."), ordered)
        async with settlement.turn:
            before = settlement.settled_ms is not None
            try:
                await self._settle(settlement, fault)
            except Refused as refused:
                return self._refusal(402, refused, ordered)
        if settlement.settled_ms is None and fault != "accepts-never-settles":
            late = Refused("SETTLEMENT_TIMEOUT", "settle_timeout", "The transfer may still settle.")
            return self._instead("failed-402" if fault == "refuses-settles-late" else "", ordered) or self._refusal(
                504, late, ordered
            )
        self._credit_due()
        if before and self.conduct.again == "refuses":
            raise Refused("PAYMENT_VERIFICATION_FAILED", "invalid_exact_evm_nonce_already_used", "It was used.")
        answer = self._thanks(settlement)
        if fault.startswith(SETTLED):
            return self._instead(fault.removeprefix(SETTLED), ordered, answer.body) or answer
        if fault in ("no-receipt", "lying-receipt"):
            kept = {name: one for name, one in answer.headers.items() if not name.lower().endswith("payment-response")}
            lie = self._thanks(replace(settlement, tx_hash="0x" + secrets.token_hex(32)))
            return replace(answer, headers=kept if fault == "no-receipt" else lie.headers)
        return answer

    def _taken(self, paid: Paid, ordered: int) -> Settlement:
        """Return what this payment settles, verified now or before. Raises Refused."""
        authorization = paid.authorization
        known = self.settlements.get((authorization.sender, authorization.nonce))
        if known is not None and known.authorization == authorization:
            return known
        offer = self._matching(paid)
        self._enough(paid, offer)
        self.facilitator.verify(authorization)
        usd = Decimal(authorization.value) / UNITS
        settlement = Settlement(
            authorization, paid.version, self._worth(usd, ordered), self._statement(authorization.sender)
        )
        self.settlements[authorization.sender, authorization.nonce] = settlement
        return settlement

    def _worth(self, usd: Decimal, ordered: int) -> Decimal:  # noqa: ARG002 - where the payer chooses, he ordered nothing
        return usd

    def _matching(self, paid: Paid) -> Offer:
        """Return the offer that is paid. Raises Refused."""
        to = paid.authorization.recipient
        rules: list[tuple[str, Callable[[Offer], bool]]] = [
            ("UNSUPPORTED_NETWORK", lambda _: paid.chain_id == self.facilitator.chain_id),
            ("UNSUPPORTED_SCHEME", lambda offer: paid.scheme == offer.scheme == "exact"),
            ("INVALID_PAYMENT_RECIPIENT", lambda offer: to == offer.pay_to.lower()),
            ("UNSUPPORTED_TOKEN", lambda offer: offer.asset == self.facilitator.token),
            ("INVALID_PAYMENT", lambda offer: paid.accepted is None or _echoes(paid.accepted, self._written(offer))),
            ("INVALID_PAYMENT", lambda _: paid.accepted is None or paid.extensions in (self.extended or [None])),
        ]
        left = list(reversed(self.offered))
        for code, holds in rules:
            left = [offer for offer in left if holds(offer)]
            if not left:
                raise Refused(code, "invalid_payment_requirements", "This was never offered.")
        return next((one for one in left if one.amount == paid.authorization.value), left[0])

    async def _settle(self, settlement: Settlement, fault: str) -> None:
        """Send it to the chain and wait until the chain has it, or not. Raises Refused for what it will not have."""
        if settlement.settled_ms is not None or fault in ("never-settles", "accepts-never-settles"):
            return
        if fault in ("settles-late", "refuses-settles-late") and settlement.tx_hash is None:
            settlement.due_ms = settlement.due_ms or self.now_ms() + self.conduct.settles_late_ms
            return
        self._submit(settlement)
        if fault == "settles-twice":
            with suppress(RpcError):  # The token takes it once; the second one reverts in its block.
                self.facilitator.submit(settlement.authorization)
        await wait_until(lambda: self._look(settlement), self.conduct.wait_s, self.sleep)

    def _submit(self, settlement: Settlement) -> None:
        settlement.due_ms = None
        chain = self.facilitator.chain
        if settlement.tx_hash and chain.rpc("eth_getTransactionByHash", [settlement.tx_hash]) is not None:
            return
        try:
            settlement.tx_hash = self.facilitator.submit(settlement.authorization)
        except RpcError as refused:
            raise _failed(f"The chain refuses it: {refused}") from refused

    def _look(self, settlement: Settlement) -> bool:
        """Tell whether the chain has settled it. Raises Refused when it was reverted: it may be tried again."""
        if settlement.settled_ms is None and settlement.tx_hash is not None:
            moved = self.facilitator.outcome(settlement.tx_hash, settlement.authorization)
            if moved is False:
                settlement.tx_hash = None
                self.settlements.pop((settlement.authorization.sender, settlement.authorization.nonce), None)
                raise _failed("The transaction reverted.")
            settlement.settled_ms = self.now_ms() if moved else None
        return settlement.settled_ms is not None

    def poll(self) -> None:
        """Send what was kept back, look for what was not confirmed, and post the credits that are due."""
        for settlement in list(self.settlements.values()):
            with suppress(Refused):  # Nobody is left to be told; it will not settle.
                if settlement.due_ms is not None and settlement.due_ms <= self.now_ms():
                    self._submit(settlement)
                self._look(settlement)
        self._credit_due()

    def _credit_due(self) -> None:
        for settlement in self.settlements.values():
            if settlement.credited_ms is None and self._must_credit(settlement.settled_ms, settlement.usd):
                settlement.statement.credit(settlement.usd)
                settlement.credited_ms = self.now_ms()

    def _receipt(self, settlement: Settlement, network: str) -> str:
        return packed(
            {
                "success": True,
                "network": network,
                "payer": settlement.authorization.sender,
                "transaction": settlement.tx_hash or "0x" + secrets.token_hex(32),
            }
        )

    def _told(self, statement: Statement, fault: str) -> Decimal:
        """Return the balance as it is told, in USD."""
        if fault == "zero-balance":
            return Decimal(0)
        if fault == "nan":
            return Decimal("NaN")
        if fault == "frozen":
            self._first_balance = statement.balance if self._first_balance is None else self._first_balance
            return self._first_balance
        return statement.balance


def packed(document: Mapping[str, Json]) -> str:
    """Return base64 of JSON, as headers carry it."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def _failed(detail: str) -> Refused:
    return Refused("SETTLEMENT_FAILED", "settle_failed", detail)


def written(offer: Offer) -> dict[str, Json]:
    """Write an offer as version 2 does."""
    return {
        "scheme": offer.scheme,
        "network": f"eip155:{offer.chain_id}",
        "amount": str(offer.amount),
        "asset": offer.asset,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": offer.timeout_s,
        **({} if offer.extra is None else {"extra": dict(offer.extra)}),
    }


def _echoes(accepted: Mapping[str, Json], stated: Mapping[str, Json]) -> bool:
    """Tell whether an offer is echoed as it was written, but for the amount and the network's other name."""
    network = f"eip155:{chain_of(str(accepted.get('network')))}"
    return {**accepted, "network": network, "amount": ""} == {**stated, "amount": ""}
