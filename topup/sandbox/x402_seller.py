"""How would a seller for x402 sell credits whose ways are a record? What the record says is wanted, this one wants.

An unpaid request is answered with offers; a payment that comes back is verified, carried to the chain by the seller's
own facilitator, and credited when the chain shows it. What the chain settles is taken, whatever the answer says; what
it refuses never is. What the record assumes where an answer does not say, this seller does not say. Sources: x402
specification; the API references of Dria and GAIB, of which the latter's sample offers stand beside the honest one: a
second dollar by Permit2 on the same chain.
"""

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

from topup.sandbox.charges import named_address
from topup.sandbox.facilitator import Authorization, Facilitator, Paid, read, unverified
from topup.sandbox.fault import SETTLED
from topup.sandbox.gateway import FAULTS_AT as OF_GATEWAY
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response, answer_of
from topup.sandbox.rpc import Chain, RpcError
from topup.sandbox.seller import Carried, CarryingConduct, ChainSeller, Refused
from topup.sandbox.x402_faults import ANSWERS_INSTEAD, FAULTS_AT, HOSTILE_OFFERS, Offer
from topup.sandbox.x402_wire import (
    EXTENSIONS,
    SOLANA,
    UNITS,
    as_first,
    crowded,
    echoes,
    garbled,
    logged_in,
    matched,
    name_of,
    ordered_usd,
    packed,
    written,
)
from topup.sellers.x402_profile import PROFILES, Profile

Json = Any

RECIPIENT: Final = named_address("topup sandbox: seller for x402")
TETHER: Final = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
TOLD_IN: Final = {"usd": Decimal(1), "cents": Decimal(100), "micro": UNITS}


@dataclass
class X402Conduct(CarryingConduct):
    """How the seller behaves when nothing is wrong; may be changed while it runs.

    Attributes:
        timeout_s: how long an authorization may be good for, in seconds.
        again: what becomes of a payment that was settled before: the first answer once more, or a refusal.
        version: which version of the protocol a seller speaks whose record does not say.
    """

    amount_min_usd: Decimal = Decimal(5)
    amount_max_usd: Decimal = Decimal(10_000)
    timeout_s: int = 300
    again: Literal["answers", "refuses"] = "answers"
    version: Literal[1, 2] = 1


@dataclass
class Settlement(Carried):
    """A payment that was verified, and what became of it."""

    authorization: Authorization
    usd: Decimal
    account: Account
    id: str = field(default_factory=lambda: "x402-" + secrets.token_hex(16))
    tx_hash: str | None = None
    credited_ms: int | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class X402Seller(ChainSeller):
    """The seller of a record. Accounts are the key's, or the wallets' where the balance is asked for by wallet.

    Besides the gateway's `posting`, faults can be switched at `offer` (an unpaid request), `payment` (a paid one) and
    `balance`.

    Attributes:
        record: how this seller wants to be asked, in whose name it is set.
        headers: that a payment may come in, in lower case.
        offered: every offer given out on a chain we can name; all of them can be paid.
        settlements: payments that were verified, by payer and nonce.
        extended: the extensions that stood beside the offers, each time they were given out: they have to come back.
    """

    faults_at: ClassVar = {**OF_GATEWAY, **FAULTS_AT}

    base: ClassVar = "/v1"
    default_record: ClassVar = "plain"

    conduct: X402Conduct

    def __init__(
        self,
        account: Account,
        chain: Chain,
        wallet: str,
        *,
        conduct: X402Conduct | None = None,
        record: Profile | None = None,
    ) -> None:
        """Sell on this chain; `account` is the wallet's, and its clock the seller's. Others open theirs by paying."""
        super().__init__(account, conduct=conduct or X402Conduct())
        self.record = record or PROFILES[self.default_record]
        self.profile = self.record.name
        self.version = self.record.sell.version or self.conduct.version
        own = self.record.sell.payment_header
        self.headers: tuple[str, ...] = ((own or ("x-payment" if self.version == 1 else "payment-signature")).lower(),)
        self.facilitator = Facilitator(chain)
        self.recipient = RECIPIENT
        self.wallet = wallet.lower()
        self.accounts = {self.wallet: account}
        self.offered: list[Offer] = []
        self.settlements: dict[tuple[str, bytes], Settlement] = {}
        self.extended: list[Mapping[str, Json] | None] = []
        self._logins: set[str] = set()
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

    # Requests.

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        sale, balance = self.record.sell, self.record.balance
        target = request.path + (f"?{request.query}" if request.query else "")
        sold, asked = matched(self.base + sale.path, target), matched(self.base + balance.path, target)
        if sold is None and asked is None:
            return answer_of(404, {"error": "Not Found"})
        if request.method != (sale if sold is not None else balance).method:
            return answer_of(405, {"error": "Method Not Allowed"})
        if sold is not None:
            refusal = self._refused_to(request, sale.auth)
            return refusal or await self._sell(request, sold, seen)
        assert asked is not None
        wallet = asked.get("wallet", "").lower()
        fault = self._spoil("balance", seen)
        honest = self._refused_to(request, balance.auth, wallet) or answer_of(200, self._told(wallet, fault))
        return self._instead(fault, honest.body) or honest

    def _refused_to(self, request: Request, auth: str, wallet: str = "") -> Response | None:
        """Return what a stranger is told; None for whoever may ask, about this wallet where there is one."""
        if wallet and not re.fullmatch(r"0x[0-9a-f]{40}", wallet):
            return answer_of(400, {"error": "Invalid wallet address"})
        key, wanted = self.record.key, self.record.login
        if auth == "key":
            right = request.headers.get(key.header.lower(), "") == f"{key.prefix}{self.management_key}"
            return None if right else answer_of(401, {"error": "Invalid API key"})
        if auth == "none":
            return None
        name, chain_id = wanted.header.lower(), self.facilitator.chain_id
        proof = request.headers.get(name, request.headers.get(f"x-{name}"))  # by its name, or by its older one
        if proof is None:
            return answer_of(402, {"x402Version": 2, "error": "Sign in", "accepts": []})
        try:
            who = logged_in(proof, wanted, url=self.url, chain_id=chain_id, now_ms=self.now_ms(), used=self._logins)
        except (ValueError, LookupError, TypeError, RecursionError):
            return answer_of(401, {"error": f"Invalid {wanted.header} signature"})
        if wallet and who != wallet:
            return answer_of(403, {"error": "Wallet address does not match the signed-in wallet"})
        return None

    async def _sell(self, request: Request, places: Mapping[str, str], seen: Seen) -> Response | Raw:
        header = next((request.headers[name] for name in self.headers if name in request.headers), None)
        fault = self._spoil("offer" if header is None else "payment", seen)
        ordered = 0
        try:
            ordered = self._ordered(request, places)
            if header is not None:
                return await self._paid(header, ordered, fault)
        except Refused as refused:
            return self._refusal(refused, ordered)
        return self._spoilt(fault, ordered) or self._unpaid(ordered, fault)

    def _ordered(self, request: Request, places: Mapping[str, str]) -> int:
        """Return the units that an honest offer asks for. Raises Refused."""
        sale = self.record.sell
        usd = ordered_usd(places, sale.body, request.body)
        least = self.conduct.amount_min_usd if sale.least_usd is None else sale.least_usd
        if not least <= usd <= self.conduct.amount_max_usd:
            raise Refused(400, "invalid_payload", "an amount of US dollars is wanted", "INVALID_AMOUNT")
        return int(usd * UNITS)

    def _spoilt(self, fault: str, ordered: int, honest: bytes = b"{}") -> Response | Raw | None:
        """Return what a fault says in place of an honest answer; None for a fault of another kind."""
        if fault == "payment-required-402":
            return self._unpaid(ordered)
        if fault == "failed-402":
            return self._refusal(_failed("Nothing was moved."), ordered)
        return self._instead(fault, honest)

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

    def _offers(self, ordered: int, fault: str) -> list[Json]:
        """Return the offers on chains we can name, and keep them: whatever was offered may be paid."""
        offers = [] if fault == "solana-only" else [self._offer(ordered, fault)]
        if fault == "stranger-too":
            offers.insert(0, self._offer(ordered, "other-recipient"))
        self.offered += [offer for offer in offers if offer not in self.offered]
        documents = [self._written(offer) for offer in offers]
        return crowded(documents, first=self.version == 1) if fault == "crowd" else documents

    def _written(self, offer: Offer) -> dict[str, Json]:
        if self.version == 1:
            resource = {"resource": f"{self.url}{self.record.sell.path}", "mimeType": "application/json"}
            return {**as_first(written(offer)), **resource, "description": offer.description}
        document = written(offer)
        if self.record.sell.version is None:
            return document
        del document["maxTimeoutSeconds"]
        return {**document, "maxAmountRequired": str(offer.amount)}

    def _unpaid(self, ordered: int, fault: str = "", error: str = "X-PAYMENT header is required") -> Response:
        document = self._asking(ordered, fault, error)
        if fault == "crowd" and self.version == 2:
            document["extensions"] = EXTENSIONS
        self.extended.append(document.get("extensions"))
        text = garbled(json.dumps(document), fault)
        if self.version == 1 or self.record.sell.version is not None:
            return Response(402, text.encode())
        header = "%%" if fault == "garbage" else base64.b64encode(text.encode()).decode()
        named = self.record.sell.offer_header
        return Response(402, text.encode(), {"content-type": "application/json", named: header})

    def _asking(self, ordered: int, fault: str, error: str) -> dict[str, Json]:
        other = SOLANA if self.version == 2 else as_first({**SOLANA, "amount": str(ordered)})
        accepts = self._offers(ordered, fault) or [other]
        if self.record.sell.version is None:
            return {"x402Version": self.version, "error": error, "accepts": accepts}
        if self.version == 2:  # as GAIB's sample: another dollar, by Permit2
            permit = {**self._written(self._offer(ordered, fault)), "asset": TETHER}
            accepts.append({**permit, "extra": {"assetTransferMethod": "permit2"}})
        return {"error": error, "accepts": accepts}

    # Payments.

    async def _paid(self, header: str, ordered: int, fault: str) -> Response | Raw:
        if fault in ANSWERS_INSTEAD and (instead := self._spoilt(fault, ordered)) is not None:
            return instead
        settlement = self._verified(read(header), ordered)
        if settlement.turn.locked():
            raise Refused(409, "in_progress", "It is being settled.", "PAYMENT_IN_PROGRESS")
        async with settlement.turn:
            before = settlement.settled_ms is not None
            await self._settle(settlement, fault)
        if settlement.settled_ms is None and fault != "accepts-never-settles":
            if fault == "refuses-settles-late":
                raise _failed("Nothing was moved.")
            raise Refused(504, "settle_timeout", "The transfer may still settle.", "SETTLEMENT_TIMEOUT")
        self._credit_due()
        if before and self.conduct.again == "refuses":
            raise unverified("nonce_already_used", "It was used.")
        return self._answer_after(settlement, ordered, fault)

    def _answer_after(self, settlement: Settlement, ordered: int, fault: str) -> Response | Raw:
        answer = self._thanks(settlement)
        if fault.startswith(SETTLED):
            return self._spoilt(fault.removeprefix(SETTLED), ordered, answer.body) or answer
        if fault in ("no-receipt", "lying-receipt"):
            kept = {name: text for name, text in answer.headers.items() if not name.endswith("PAYMENT-RESPONSE")}
            lie = self._thanks(replace(settlement, tx_hash="0x" + secrets.token_hex(32)))
            return replace(answer, headers=kept if fault == "no-receipt" else lie.headers)
        return answer

    def _refusal(self, refused: Refused, ordered: int) -> Response:
        """Ask for payment once more where that may help, as the specification's version 1 does."""
        if refused.status in (400, 402) and ordered:
            return self._unpaid(ordered, error=refused.reason)
        return answer_of(refused.status, {"error": refused.reason})

    def _thanks(self, settlement: Settlement) -> Response:
        network = f"eip155:{self.facilitator.chain_id}"
        receipt = {
            "success": True,
            "network": network if self.version == 2 else name_of(network),
            "payer": settlement.authorization.sender,
            "transaction": settlement.tx_hash or "0x" + secrets.token_hex(32),
        }
        name = "PAYMENT-RESPONSE" if self.version == 2 else "X-PAYMENT-RESPONSE"
        return answer_of(200, self._credited(settlement), {name: packed(receipt)})

    def _verified(self, paid: Paid, ordered: int) -> Settlement:
        """Return what this payment settles, verified now or before. Raises Refused."""
        authorization = paid.authorization
        key = (authorization.sender, authorization.nonce)
        known = self.settlements.get(key)
        if known is not None and known.authorization == authorization:
            return known
        self._must_pay(paid, self._matching(paid))
        self.facilitator.verify(authorization)
        usd = self._worth(Decimal(authorization.value) / UNITS, ordered)
        settlement = Settlement(authorization, usd, self._account_of(authorization.sender))
        self.settlements[key] = settlement
        return settlement

    def _must_pay(self, paid: Paid, offer: Offer) -> None:
        """Raise Refused unless this much buys what was offered."""
        if paid.authorization.value != offer.amount:
            reason = "invalid_exact_evm_payload_authorization_value"
            raise Refused(400, reason, f"Pay {offer.amount} units.", "INVALID_AMOUNT")

    def _worth(self, usd: Decimal, ordered: int) -> Decimal:
        """An offer that asks for more than was ordered buys no more."""
        return min(usd, Decimal(ordered) / UNITS)

    def _matching(self, paid: Paid) -> Offer:
        """Return the offer that is paid. Raises Refused."""
        to = paid.authorization.recipient
        rules: list[tuple[str, Callable[[Offer], bool]]] = [
            ("UNSUPPORTED_NETWORK", lambda _: paid.chain_id == self.facilitator.chain_id),
            ("UNSUPPORTED_SCHEME", lambda offer: paid.scheme == offer.scheme == "exact"),
            ("INVALID_PAYMENT_RECIPIENT", lambda offer: to == offer.pay_to.lower()),
            ("UNSUPPORTED_TOKEN", lambda offer: offer.asset == self.facilitator.token),
            ("INVALID_PAYMENT", lambda offer: paid.accepted is None or echoes(paid.accepted, self._written(offer))),
            ("INVALID_PAYMENT", lambda _: paid.accepted is None or paid.extensions in (self.extended or [None])),
        ]
        left = list(reversed(self.offered))
        for code, holds in rules:
            left = [offer for offer in left if holds(offer)]
            if not left:
                raise Refused(400, "invalid_payment_requirements", "This was never offered.", code)
        return next((offer for offer in left if offer.amount == paid.authorization.value), left[0])

    # The chain.

    def _carried(self) -> Iterable[Settlement]:
        return self.settlements.values()

    def _submit(self, payment: Settlement, fault: str = "") -> None:
        payment.due_ms, payment.sent = None, True
        chain = self.facilitator.chain
        if payment.tx_hash and chain.rpc("eth_getTransactionByHash", [payment.tx_hash]) is not None:
            return
        try:
            payment.tx_hash = self.facilitator.submit(payment.authorization)
        except RpcError as refused:
            raise _failed(f"The chain refuses it: {refused}") from refused
        if fault == "settles-twice":
            with suppress(RpcError):  # The token takes it once; the second one reverts in its block.
                self.facilitator.submit(payment.authorization)

    def _look(self, payment: Settlement) -> bool:
        """Raise Refused when it was reverted: it may be tried again."""
        if payment.settled_ms is None and payment.tx_hash is not None:
            moved = self.facilitator.outcome(payment.tx_hash, payment.authorization)
            if moved is False:
                payment.tx_hash = None
                self.settlements.pop((payment.authorization.sender, payment.authorization.nonce), None)
                raise _failed("The transaction reverted.")
            payment.settled_ms = self.now_ms() if moved else None
        return payment.settled_ms is not None

    def _credit_due(self) -> None:
        for settlement in self.settlements.values():
            if settlement.credited_ms is None and self._must_credit(settlement.settled_ms, settlement.usd):
                settlement.account.total_credits += settlement.usd
                settlement.credited_ms = self.now_ms()

    # Balance.

    def _account_of(self, payer: str) -> Account:
        """Return the payer's account where wallets have some; whoever pays, else the key's is filled."""
        if "{wallet}" not in self.record.balance.path:
            return self.accounts[self.wallet]
        return self.accounts.setdefault(payer, Account(self.now_ms, Decimal(0)))

    def _credited(self, settlement: Settlement) -> dict[str, Json]:
        return {"credited_usdc": f"{settlement.usd:.2f}", **self._written_balance(settlement.account.balance)}

    def _told(self, wallet: str, fault: str) -> dict[str, Json]:
        return self._written_balance(self._shown(self._account_of(wallet).balance, fault))

    def _shown(self, balance: Decimal, fault: str) -> Decimal:
        if fault == "frozen":
            self._first_balance = balance if self._first_balance is None else self._first_balance
            return self._first_balance
        return {"zero-balance": Decimal(0), "nan": Decimal("NaN")}.get(fault, balance)

    def _written_balance(self, balance: Decimal) -> dict[str, Json]:
        """Write a balance where the record has it, and in cents as well, as Dria does."""
        amount: Json
        if balance.is_nan():
            amount = "NaN"
        elif self.record.balance.unit == "usd":
            amount = f"{balance:.2f}"
        else:
            amount = int(balance * TOLD_IN[self.record.balance.unit])
        *above, last = self.record.balance.field.split(".")
        document: dict[str, Json] = {last: amount}
        for name in reversed(above):
            document = {name: document}
        return {"balance": balance if balance.is_nan() else int(balance * 100), **document}


def _failed(detail: str) -> Refused:
    return Refused(402, "settle_failed", detail, "SETTLEMENT_FAILED")
