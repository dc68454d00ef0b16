"""How are credits bought by machine payment? The rail of `POST /credits/purchases`: method `tempo`, intent `charge`.

The seller answers an unpaid purchase with a challenge; we sign a whole Tempo transaction that pays it and hand it over
with the same request (pull mode), so that nothing is spent before the seller broadcasts. It stands on a nonce lane that
belongs to the purchase: whatever is signed for it later, one at most can run. Where the seller is to pay the fee there
is no such lane: what is signed runs once, dies soon, and is found by its memo. After a credential has left, no answer
means "not paid": only the chain decides, and only the credits end it.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from re import fullmatch
from typing import Any, Final

from topup.domain import tempo
from topup.domain.demand import Clocks, Finding, Request, Verified, common
from topup.domain.errors import ApiError, ApiUnknown, ChargeRefused, SignerError
from topup.domain.json_document import Unreadable, read
from topup.domain.lifecycle import Attempt, Plan, TopUp
from topup.domain.money import Usdc, Wei, gas_dollars
from topup.ports.account import Clock
from topup.ports.chain import AuthorizationUse, Preflight, TokenChain
from topup.ports.rail import Claim
from topup.ports.signer import Signer
from topup.sellers.authorization import Authorized, Seller
from topup.sellers.mpp_choice import METHOD, Due, Judged, Terms, choose, findings, judge, kind_of
from topup.sellers.mpp_fields import OPENROUTER, Fields
from topup.sellers.mpp_wire import FIELD, Challenge, challenges, credential, payer, settled, tempo_charge
from topup.sellers.on_chain import unreadable
from topup.wire.http import Answered
from topup.wire.reading import walled

# What a payment takes at most, whatever the seller's own dry run wants to see; what is not used costs nothing.
GAS_LIMIT: Final = 2_000_000
# What a sponsor pays for at most: his own bound is on gas and price together.
SPONSORED_GAS: Final = 1_000_000
# Sponsors want to have a quarter of a minute left, and the request takes its time.
SPONSORED_LEAST_S: Final = 20


class Mpp(Authorized[Due]):
    """The `Rail` port for machine payments on Tempo."""

    def __init__(
        self,
        seller: Seller,
        chain: TokenChain,
        signer: Signer | None,
        clock: Clock,
        *,
        terms: Terms,
        fields: Fields = OPENROUTER,
    ) -> None:
        """Join the ports; `terms` is what challenges are held against, `fields` how this seller is asked.

        The seller's key is a management key.
        """
        super().__init__(seller, chain, signer, clock)
        self._terms = terms
        self._fields = fields

    @walled("the seller", ApiUnknown)
    async def ask(self, request: Request) -> bytes:
        """Ask what a purchase costs, unpaid; return the challenges, which of them is paid, and all that belongs to it.

        What was chosen is stored with the answer: whoever reads it again, under whatever settings, pays the same one.
        """
        key, path, body = secrets.token_hex(16), self._fields.request_path, self._fields.request(request.amount)
        answered = await self._post(path, body, key, {})
        self._unpaid(answered)
        lane = tempo.lane_of(request.purchase.encode() if request.purchase else bytes.fromhex(key))
        lines = answered.all("www-authenticate")
        kept: dict[str, Any] = {
            "seller": self._seller.exchange.base,
            "path": path,
            "body": body.decode(),
            "key": key,
            "lane": hex(lane),
            "sender": request.sender.hex(),
            "challenges": [line for line in lines if line.isascii()],
            "left_out": sum(not line.isascii() for line in lines),
        }
        try:
            kept["chosen"] = choose(self.judged(json.dumps(kept).encode(), request)).challenge.id
        except ChargeRefused as none:
            kept["refused"] = [none.field, none.was, none.should_be, none.remedy]
        return json.dumps(kept).encode()

    @walled("the answer", unreadable)
    def read(self, raw: bytes) -> Due:
        """Decode what was stored, and return the challenge that was chosen when it came."""
        kept = _stored(raw)
        refused = kept.get("refused")
        if refused is not None:
            field, was, should_be, remedy = map(str, refused)
            raise ChargeRefused(field, was, should_be, remedy=remedy)
        every = challenges(kept["challenges"])
        if "chosen" in kept:
            fitting = [challenge for challenge in every if challenge.id == kept["chosen"]][:1]
        else:  # as it was stored before several were taken
            fitting = [challenge for challenge in every if kind_of(challenge) == METHOD]
        if len(fitting) != 1:
            raise ChargeRefused(FIELD, f"{len(fitting)} challenges to pay", "the one that was chosen")
        return _due(kept, fitting[0])

    def judged(self, raw: bytes, request: Request) -> list[Judged]:
        """Judge every challenge of an answer, for a person to read; the time is this machine's.

        Raises:
            ChargeRefused: the header can be read in two ways, or what was stored cannot be read.
        """
        kept, now_s = _stored(raw), self._clock.now_ms() // 1000

        def lines(due: Due) -> list[Finding]:
            own = self._findings(due, request)
            return [*own, *common(due, request, self._seller.bounds, Clocks(now_s, now_s))]

        return [judge(challenge, partial(_due, kept), lines) for challenge in challenges(kept["challenges"])]

    @walled("the answer", unreadable)
    def _findings(self, demand: Due, request: Request) -> list[Finding]:
        body = demand.body or self._fields.request(request.amount)
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        return findings(demand, self._terms, f"sha-256=:{digest}:")

    async def plan(
        self, verified: Verified, preflight: Preflight, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Plan the transaction on the preflight's block, its transfer run dry; refuse what has too little time."""
        due = verified.demand
        assert isinstance(due, Due)
        price = Wei(preflight.base_fee.units * 3 // 2 + preflight.tip.units)
        plan = replace(
            await self._planned(due, preflight, over, bump=bump, lane=due.own_lane, asset=self._terms.asset),
            data=tempo.transfer_with_memo(due.recipient, due.total.units, due.memo),
            max_fee_per_gas=price,
        )
        if due.terms.fee_payer:
            now_s = preflight.head.timestamp_s
            ends_s = min(due.deadline, now_s + self._terms.sponsored_s)
            if ends_s - now_s < SPONSORED_LEAST_S:
                raise ChargeRefused("expires", f"{ends_s - now_s} s left", f"at least {SPONSORED_LEAST_S} s")
            return replace(plan, gas_limit=SPONSORED_GAS, ends_s=ends_s)
        return replace(
            plan,
            gas_limit=GAS_LIMIT,
            # At least one unit: that nothing is paid for the network is what tells a sponsored plan.
            token_fee=max(Usdc(1), gas_dollars(price, GAS_LIMIT)),
        )

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the transaction; return the credential that carries it, and its hash.

        The hash of what is sponsored is that of what was signed: the transaction's own is the sponsor's doing.
        """
        due = verified.demand
        assert isinstance(due, Due)
        raw, tx_hash = self._key().sign_tempo(plan, verified)
        if plan.sponsored != due.terms.fee_payer:  # it would be looked for as what it is not
            raise SignerError("the plan and the challenge differ in who pays the network's fee")
        payload = {"type": "transaction", "signature": "0x" + raw.hex()}
        return credential(due.challenge, payload, payer(due.chain_id, due.sender)).encode(), tx_hash

    async def _present(self, topup: TopUp, demand: Due, paying: str) -> Answered:
        # The same bytes as were asked with, whatever the settings say by now; earlier ledgers hold none.
        body = demand.body or self._fields.request(topup.amount)
        header = {demand.challenge.header.lower(): paying}
        return await self._post(demand.path, body, demand.key, header, timeout_s=self._seller.pay_timeout_s)

    def _receipt(self, answered: Answered) -> tuple[str, str]:
        """Return what it says; what it calls the purchase stands in a path, in the body, or in an error's metadata.

        It is kept and shown, so that nothing which repeats a secret of ours, however written, is taken for it.
        """
        hint = settled(answered.first("payment-receipt"))
        document = _told(answered.body, self._fields)
        error = document.get("error")
        metadata = error.get("metadata") if isinstance(error, dict) else None
        said = metadata.get("purchase_id") if isinstance(metadata, dict) else document.get(self._fields.id_field)
        name = (answered.first("location").rpartition("/")[2] if answered.status in self.taken else "") or said
        if not isinstance(name, str) or not fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
            name = ""
        leaks = self._seller.ours(name) != name
        return f", receipt for 0x{hint.hex()}" if hint else "", "" if leaks else name

    async def claim(self, topup: TopUp) -> Claim:
        paid, fields = topup.paying, self._fields
        if paid is None or not paid.reference or not fields.purchase_path:
            return Claim.SILENT
        if self.read(topup.raw_of(paid)).seller != self._seller.exchange.base:
            return Claim.SILENT
        path = fields.purchase_path.replace("{id}", paid.reference)
        try:
            answered = await self._seller.exchange.ask("GET", path, headers=self._bearer())
        except ApiError:
            return Claim.SILENT
        status = _told(answered.body, fields).get(fields.status_field) if answered.status == 200 else None
        if not isinstance(status, str):
            return Claim.SILENT
        ended = {**dict.fromkeys(fields.credited, Claim.CREDITED), **dict.fromkeys(fields.failed, Claim.FAILED)}
        return ended.get(status, Claim.PENDING)

    @walled("the seller", ApiUnknown)
    async def texts(self) -> dict[str, str]:
        """Return what the seller has written for machines, by path; "" for one that it does not give."""
        answers = [await self._seller.exchange.ask("GET", path, headers={}) for path in self._fields.texts]
        return {a.who: a.body.decode("utf-8", "replace") if a.status == 200 else "" for a in answers}

    def _access_key(self, sender: bytes) -> bytes | None:
        own = self._signer.address if self._signer is not None else sender
        return None if own == sender else own

    def _use(self, demand: Due, key: bytes, first: int) -> AuthorizationUse:
        sponsored = demand.terms.fee_payer
        return AuthorizationUse(
            key=key,
            hash=None if sponsored else key or None,
            mark=None if sponsored else (tempo.NONCES, tempo.lane_call(demand.sender, demand.lane)),
            log=(demand.contract, tempo.memo_topics(demand.sender, demand.recipient, demand.memo)),
            token=demand.contract,
            sender=demand.sender,
            recipient=demand.recipient,
            tokens=demand.total,
            since=first,
            pays_fee=not sponsored,
        )

    async def _post(
        self, path: str, body: bytes, key: str, paying: dict[str, str], *, timeout_s: float | None = None
    ) -> Answered:
        # Where the credential has to stand in Authorization, the key has a header of its own.
        own = {"x-api-key": self._seller.key} if "authorization" in paying else self._bearer()
        headers = {**own, "idempotency-key": key, **paying}
        return await self._seller.exchange.ask("POST", path, headers=headers, body=body, timeout_s=timeout_s)

    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._seller.key}"}


def _stored(raw: bytes) -> dict[str, Any]:
    """Decode what `ask` has stored, or refuse what is something else."""
    try:
        kept = dict(read(raw))
        return kept | {
            "challenges": list(kept["challenges"]),
            "key": str(kept["key"]),
            "seller": str(kept["seller"]),
            "sender": bytes.fromhex(kept["sender"]),
            "lane": int(kept["lane"], 16),
            "path": str(kept.get("path", OPENROUTER.request_path)),
            "body": str(kept.get("body", "")).encode(),
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ChargeRefused("answer", "not what was stored", "as it was stored", remedy="restore the ledger") from None


def _due(kept: dict[str, Any], challenge: Challenge) -> Due:
    terms = tempo_charge(challenge)
    return Due(kept["sender"], challenge, terms, kept["lane"], kept["key"], kept["seller"], kept["path"], kept["body"])


def _told(body: bytes, fields: Fields) -> dict[str, Any]:
    try:
        document = read(body, twice="last")
    except Unreadable:
        return {}
    inner = document.get(fields.envelope) if isinstance(document, dict) else None
    document = inner if isinstance(inner, dict) else document
    return document if isinstance(document, dict) else {}
