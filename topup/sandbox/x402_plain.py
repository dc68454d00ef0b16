"""How does a seller for x402 behave whose ways are a record? It plays any: what the record says is wanted, it wants.

A request orders dollars, its offer asks for exactly these. What the record assumes where an answer does not say, this
seller does not say. Sources: the API references of Dria and GAIB, of which the latter's sample offers stand beside the
honest one: a second dollar by Permit2 on the same chain.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from topup.sandbox.charges import STRANGER
from topup.sandbox.facilitator import NETWORKS, Paid, Refused
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.rpc import Chain
from topup.sandbox.seller import answer_of
from topup.sandbox.x402_faults import CROWD, FIRST_CROWD, Offer
from topup.sandbox.x402_login import logged_in, presented
from topup.sandbox.x402_seller import UNITS, Settlement, Statement, X402Conduct, X402Seller, written
from topup.sellers.x402_profile import PROFILES, Profile

Json = Any

TETHER: Final = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
SOLANA: Final = {
    "scheme": "exact",
    "network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
    "amount": "5000000",
    "asset": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "payTo": "So11111111111111111111111111111111111111112",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2", "feePayer": "11111111111111111111111111111111"},
}
# How an ordered sum may be written, by the place that names it.
SUMS: Final = {"usd": Decimal(1), "usd_number": Decimal(1), "cents": Decimal("0.01"), "units": 1 / UNITS}
TOLD_IN: Final = {"usd": Decimal(1), "cents": Decimal(100), "micro": UNITS}


class Plain(X402Seller):
    """The seller of a record. Accounts are the key's, or the wallets' where the balance is asked for by wallet."""

    base = "/v1"

    def __init__(
        self,
        account: Account,
        chain: Chain,
        wallet: str,
        *,
        conduct: X402Conduct | None = None,
        record: Profile | None = None,
    ) -> None:
        """Begin with one account; `record` says how this seller wants to be asked, in whose name it is set."""
        super().__init__(account, chain, wallet, conduct=conduct)
        self.record = record or PROFILES["plain"]
        self.profile = self.record.name
        self.version = self.record.sell.version or self.conduct.version
        own = self.record.sell.payment_header
        self.headers = ((own or ("x-payment" if self.version == 1 else "payment-signature")).lower(),)
        self._logins: set[str] = set()

    # Requests.

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        sale, told = self.record.sell, self.record.balance
        target = request.path + (f"?{request.query}" if request.query else "")
        sells = _matched(self.base + sale.path, target)
        tells = _matched(self.base + told.path, target)
        if sells is None and tells is None:
            return answer_of(404, {"error": "Not Found"})
        where = sale if sells is not None else told
        if request.method != where.method:
            return answer_of(405, {"error": "Method Not Allowed"})
        who = self._who(request, where.auth)
        if who is None:
            return answer_of(401, {"error": "Invalid API key"})
        if sells is not None:
            return await self._sell(request, seen)
        assert tells is not None
        return await self._tell(tells.get("wallet", ""), who, seen)

    def _who(self, request: Request, auth: str) -> str | None:
        """Return who asks: a wallet that has logged in, or "" where a key or nobody is wanted; None for a stranger."""
        key, wanted = self.record.key, self.record.login
        if auth == "key":
            right = request.headers.get(key.header.lower(), "") == f"{key.prefix}{self.management_key}"
            return "" if right else None
        if auth == "none":
            return ""
        try:
            proof, chain_id = presented(request.headers, wanted) or "", self.facilitator.chain_id
            return logged_in(proof, wanted, url=self.url, chain_id=chain_id, now_ms=self.now_ms(), used=self._logins)
        except (ValueError, LookupError, TypeError, RecursionError):
            return None

    def _ordered(self, request: Request) -> int:
        sale = self.record.sell
        target = request.path + (f"?{request.query}" if request.query else "")
        said: dict[str, Any] = _matched(self.base + sale.path, target) or {}
        try:
            body = json.loads(request.body, parse_float=Decimal) if sale.body is not None else None
            said |= _read(sale.body, body)
        except (ValueError, LookupError, TypeError, RecursionError):
            said = {}
        usd = next((_sum(said[name], name) for name in SUMS if name in said), Decimal(0))
        least = self.conduct.amount_min_usd if sale.least_usd is None else sale.least_usd
        if not least <= usd <= self.conduct.amount_max_usd:
            raise Refused("INVALID_AMOUNT", "invalid_payload", "an amount of US dollars is wanted")
        return int(usd * UNITS)

    # Offers.

    def _unpaid(self, ordered: int, fault: str = "", error: str = "X-PAYMENT header is required") -> Response:
        document: dict[str, Json] = {"error": error, "accepts": self._accepts(ordered, fault)}
        if self.record.sell.version is None:
            document = {"x402Version": self.version, **document}
        elif self.version == 2:  # as GAIB's sample: another dollar, by Permit2
            permit = {**self._written(self._offer(ordered, fault)), "asset": TETHER}
            document["accepts"].append({**permit, "extra": {"assetTransferMethod": "permit2"}})
        if fault == "crowd" and self.version == 2:
            document["extensions"] = EXTENSIONS
        self.extended.append(document.get("extensions"))
        text = garbled(json.dumps(document), fault)
        if self.version == 1 or self.record.sell.version is not None:
            return Response(402, text.encode())
        header = "%%" if fault == "garbage" else base64.b64encode(text.encode()).decode()
        named = self.record.sell.offer_header
        return Response(402, text.encode(), {"content-type": "application/json", named: header})

    def _accepts(self, ordered: int, fault: str) -> list[Json]:
        honest = [self._written(offer) for offer in self._offers(ordered, fault)]
        if fault == "crowd":
            return crowded(honest, first=self.version == 1)
        other = SOLANA if self.version == 2 else {**SOLANA, "network": "solana", "maxAmountRequired": str(ordered)}
        return honest or [other]

    def _written(self, offer: Offer) -> dict[str, Json]:
        if self.version == 1:
            return _first(offer, f"{self.url}{self.record.sell.path}")
        if self.record.sell.version is None:
            return written(offer)
        return {**_without(written(offer), "maxTimeoutSeconds"), "maxAmountRequired": str(offer.amount)}

    # Payments.

    def _enough(self, paid: Paid, offer: Offer) -> None:
        if paid.authorization.value != offer.amount:
            reason = "invalid_exact_evm_payload_authorization_value"
            raise Refused("INVALID_AMOUNT", reason, f"Pay {offer.amount} units.")

    def _worth(self, usd: Decimal, ordered: int) -> Decimal:
        """An offer that asks for more than was ordered buys no more."""
        return min(usd, Decimal(ordered) / UNITS)

    def _statement(self, payer: str) -> Statement:
        """Return the payer's account where wallets have some; whoever pays, else the key's is filled."""
        if "{wallet}" not in self.record.balance.path:
            return self.statements[self.wallet]
        return self.statements.setdefault(payer, Statement(Account(self.now_ms, Decimal(0))))

    def _refusal(self, status: int, refused: Refused, ordered: int) -> Response:
        """Ask for payment once more where that may help, as the specification's version 1 does."""
        if status in (400, 402) and ordered:
            return self._unpaid(ordered, error=refused.reason)
        return answer_of(status, {"error": refused.reason})

    def _thanks(self, settlement: Settlement) -> Response:
        body = {"credited_usdc": f"{settlement.usd:.2f}", **self._balance(settlement.statement.balance)}
        chain_id = self.facilitator.chain_id
        if self.version == 2:
            return answer_of(200, body, {"PAYMENT-RESPONSE": self._receipt(settlement, f"eip155:{chain_id}")})
        network = next(name for name, one in NETWORKS.items() if one == chain_id)
        return answer_of(200, body, {"X-PAYMENT-RESPONSE": self._receipt(settlement, network)})

    # Balance.

    async def _tell(self, wallet: str, who: str, seen: Seen) -> Response | Raw:
        if wallet and not re.fullmatch(r"0x[0-9a-f]{40}", wallet):
            return answer_of(400, {"error": "Invalid wallet address"})
        if who and wallet != who:
            return answer_of(403, {"error": "Another wallet has logged in"})
        fault = self._spoil("balance", seen)
        honest = answer_of(200, self._balance(self._told(self._statement(wallet), fault)))
        return self._instead(fault, 0, honest.body) or honest

    def _balance(self, balance: Decimal) -> dict[str, Json]:
        """Write a balance where the record has it, and in cents as well, as Dria does."""
        told: Json
        if balance.is_nan():
            told = "NaN"
        elif self.record.balance.unit == "usd":
            told = f"{balance:.2f}"
        else:
            told = int(balance * TOLD_IN[self.record.balance.unit])
        *above, last = self.record.balance.field.split(".")
        document: dict[str, Json] = {last: told}
        for name in reversed(above):
            document = {name: document}
        return {"balance": balance if balance.is_nan() else int(balance * 100), **document}


EXTENSIONS: Final[Mapping[str, Json]] = {
    "bazaar": {"info": {"output": {"example": {"price": 22.5, "tiny": 1e-07}}}, "schema": {"maximum": 0.5}}
}


def crowded(honest: list[Json], *, first: bool) -> list[Json]:
    """Return an honest offer in the middle of five that nobody here can read or pay."""
    others = FIRST_CROWD if first else CROWD
    return [*others[:3], *honest, *others[3:]]


def _matched(pattern: str, target: str) -> dict[str, str] | None:
    """Return what stands in the places of a path; None where it is another path."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = "".join(re.escape(one) if n % 2 == 0 else f"(?P<{one}>[^/?&]+)" for n, one in enumerate(parts))
    found = re.fullmatch(text, target)
    return None if found is None else found.groupdict()


def _read(wanted: Json, said: Json) -> dict[str, Json]:
    """Return what stands in the places of a body. Raises ValueError where it is another body."""
    if isinstance(wanted, Mapping):
        if not isinstance(said, Mapping) or set(wanted) != set(said):
            raise ValueError("other fields")
        found: dict[str, Json] = {}
        for name, one in wanted.items():
            found |= _read(one, said[name])
        return found
    place = re.fullmatch(r"\{(\w+)\}", wanted) if isinstance(wanted, str) else None
    if place is None:
        if said != wanted:
            raise ValueError("another constant")
        return {}
    # A text where a number is wanted, and the other way round, is as wrong to these sellers as nothing.
    if isinstance(said, str) is not (place[1] in ("usd", "wallet")) or isinstance(said, bool):
        raise ValueError("another type")
    return {place[1]: said}


def _sum(said: Json, place: str) -> Decimal:
    text = str(said)
    return Decimal(text) * SUMS[place] if re.fullmatch(r"\d{1,10}(\.\d{1,6})?", text) else Decimal(0)


def _without(document: dict[str, Json], name: str) -> dict[str, Json]:
    return {key: one for key, one in document.items() if key != name}


def _first(offer: Offer, resource: str) -> dict[str, Json]:
    """Write an offer as version 1 does."""
    first = written(offer)
    first["maxAmountRequired"] = first.pop("amount")
    first["network"] = next(name for name, one in NETWORKS.items() if one == offer.chain_id)
    return {**first, "resource": resource, "description": offer.description, "mimeType": "application/json"}


def garbled(text: str, fault: str) -> str:
    """Return a document as two faults of an offer spoil it."""
    if fault == "duplicate-keys":
        return text.replace('"payTo":', f'"payTo": "{STRANGER}", "payTo":', 1)
    return text[:-1] if fault == "garbage" else text
