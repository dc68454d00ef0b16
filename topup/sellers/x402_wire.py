"""What does a 402 of x402 demand, and how is it answered? Bytes in, records out, and back; nothing is judged here.

A seller answers an unpaid request with 402 and a list of offers: in the body (version 1) or as base64 in the header
PAYMENT-REQUIRED (version 2, which some put into the body as well). The payer signs an authorization for one of them
and sends the same request again with it. What is read is read strictly: a document that two readers may read
differently is refused as a whole, an offer that cannot be read alone. What is not ours to judge is carried unread and
echoed to the digit. Amounts are token units, times unix seconds unless a name says ms, addresses 20 bytes.
Sources: x402 specification, versions 1 and 2; EIP-4361 for the login.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Never

from topup.domain import json_document as plain
from topup.domain.demand import Finding, checksummed
from topup.domain.errors import ChargeRefused
from topup.domain.json_document import Members, document, shown, unhexed
from topup.domain.typed_data import Authorization
from topup.ports.signer import Signer
from topup.wire.verbatim import Numeral, integer, write

# What is echoed to the seller is no deeper than this, its numbers no longer, and of more offers nobody means one.
DEPTH_MAX: Final = 40
NUMBER_LENGTH_MAX: Final = 400
OFFERS_MAX: Final = 100
TELL: Final = "tell the seller; `topup doctor --rail x402` shows its answer as it came"
UNSAID: Final = "a record may say what holds where the seller does not: rails.x402.profile (docs/rails.md)"
# The names that version 1 has for chains; version 2 names them by CAIP-2.
V1_CHAINS: Final[Mapping[str, int]] = {"base": 8453, "base-sepolia": 84532}
_CAIP2 = re.compile(r"eip155:([1-9][0-9]{0,17})")


@dataclass(frozen=True)
class Offer:
    """One way to pay, as the seller states it.

    `index` is its place among the seller's offers, from 0; `version` is that of the protocol, 1 or 2; `network` is the
    chain as the seller writes it. An authorization may be valid for `max_timeout_s`, more than 0. `name` and
    `token_version` are what the token calls itself in signatures, None where the seller does not say. What is echoed
    stands as it came: the offer in `raw`, and in version 2 what is bought and what else the seller speaks.
    """

    index: int
    version: int
    scheme: str
    network: str
    chain_id: int
    asset: bytes
    pay_to: bytes
    amount: int
    max_timeout_s: int
    name: str | None
    token_version: str | None
    raw: Mapping[str, Any]
    resource: Mapping[str, Any] | None
    extensions: Mapping[str, Any] | None


class Assumed(NamedTuple):
    """What holds where an answer does not say: the protocol's version, and for how long an authorization is good."""

    version: int | None = None
    timeout_s: int | None = None


NOTHING: Final = Assumed()


class Login(NamedTuple):
    """Who logs in, on which chain."""

    signer: Signer
    chain_id: int


@dataclass(frozen=True)
class Settlement:
    """What the seller says became of a payment: a hint where to look, never a proof; it may name no transaction."""

    success: bool
    transaction: bytes | None


def demanded(headers: Mapping[str, str], body: bytes, name: str = "payment-required") -> bytes:
    """Return the JSON document of a 402, from the header `name` that version 2 has for it, else the body.

    Raises:
        ChargeRefused: the header is given twice, or is no base64.
    """
    given = _headers(headers, name.lower())
    if len(given) > 1:
        _refuse(name.upper(), "given twice", "given once")
    raw = _base64(given[0]) if given else body
    if raw is None:
        _refuse(name.upper(), shown(given[0]), "base64")
    return raw


def listed(raw: bytes, assumed: Assumed = NOTHING) -> tuple[Offer | Finding, ...]:
    """Read every offer of a document by itself, in the seller's order, or what is wrong with one that cannot be read.

    Raises:
        ChargeRefused: it is no JSON document of version 1 or 2 with a list of offers.
    """
    stated = document(raw, remedy=TELL, integer=integer, fraction=Numeral)
    if not isinstance(stated, dict):
        _refuse("answer", type(stated).__name__, "an object")
    version = stated.get("x402Version", assumed.version)
    if type(version) is not int or version not in (1, 2):
        remedy = UNSAID if version is None else TELL
        raise ChargeRefused("x402Version", shown(version), "1 or 2", remedy=remedy)
    accepts = Members(stated, remedy=TELL).need("accepts", list)
    if len(accepts) > OFFERS_MAX:
        _refuse("accepts", f"{len(accepts)} offers", f"at most {OFFERS_MAX}")
    shared = {name: _echo(stated, name) if version == 2 else None for name in ("resource", "extensions")}
    return tuple(_one(index, offer, version, assumed.timeout_s, **shared) for index, offer in enumerate(accepts))


def payment_header(
    offer: Offer, authorization: Authorization, signature: bytes, name: str | None = None
) -> tuple[str, str]:
    """Return name and value of the header that pays an offer.

    Where the offer's amount is a minimum, the authorization's larger value is echoed as the accepted one. The signature
    is r, s and v, 65 bytes; `name` is that of the header, when not the one that the offer's version has.
    """
    assert authorization.recipient == offer.pay_to, "what was signed pays whom the offer names"
    payload = {
        "authorization": {
            "from": checksummed(authorization.sender),
            "to": offer.raw["payTo"],
            "value": str(authorization.value),
            "validAfter": str(authorization.valid_after),
            "validBefore": str(authorization.valid_before),
            "nonce": "0x" + authorization.nonce.hex(),
        },
        "signature": "0x" + signature.hex(),
    }
    if offer.version == 1:
        named = {"x402Version": 1, "scheme": offer.scheme, "network": offer.network}
        return name or "X-PAYMENT", _encoded({**named, "payload": payload})
    accepted = dict(offer.raw)
    if authorization.value != offer.amount:
        accepted |= {name: str(authorization.value) for name in ("amount", "maxAmountRequired") if name in accepted}
    document: dict[str, Any] = {"x402Version": 2, "payload": payload, "accepted": accepted}
    if offer.resource is not None:
        document["resource"] = offer.resource
    if offer.extensions:
        document["extensions"] = offer.extensions
    return name or "PAYMENT-SIGNATURE", _encoded(document)


def settled(headers: Mapping[str, str]) -> Settlement | None:
    """Read what the seller says of the settlement, by either version's header; None where it says nothing readable."""
    for name in ("payment-response", "x-payment-response"):
        for value in _headers(headers, name):
            try:
                receipt = plain.read(_base64(value) or b"", twice="last")
            except plain.Unreadable:
                continue
            if isinstance(receipt, dict):
                return Settlement(receipt.get("success") is True, unhexed(receipt.get("transaction"), 32))
    return None


def login_message(login: Login, *, domain: str, uri: str, statement: str, nonce: str, times_ms: tuple[int, int]) -> str:
    """Return the text that a wallet signs to log in (EIP-4361).

    `domain` is the host that asks for it, `uri` what it is for, `statement` one line that the seller wants to stand
    there; `nonce` has at least eight letters and digits, never used before. It holds from and until `times_ms`, since
    the epoch.
    """
    issued, expires = map(_moment, times_ms)
    return (
        f"{domain} wants you to sign in with your Ethereum account:\n{checksummed(login.signer.address)}\n\n"
        f"{statement}\n\nURI: {uri}\nVersion: 1\nChain ID: {login.chain_id}\nNonce: {nonce}\n"
        f"Issued At: {issued}\nExpiration Time: {expires}"
    )


def login_header(login: Login, message: str, now_ms: int) -> str:
    """Return the value of the header SIGN-IN-WITH-X that presents a login, signed here, as Venice reads it."""
    return _encoded(
        {
            "address": checksummed(login.signer.address),
            "message": message,
            "signature": "0x" + login.signer.sign_login(message).hex(),
            "timestamp": now_ms,
            "chainId": login.chain_id,
        }
    )


def _one(
    index: int, stated: Any, version: int, timeout_s: int | None, **shared: Mapping[str, Any] | None
) -> Offer | Finding:
    try:
        return _offer(index, stated, version, timeout_s, **shared)
    except ChargeRefused as refused:
        unsaid = refused.field.endswith("maxTimeoutSeconds") and refused.was == "missing"
        remedy = UNSAID if unsaid else "nothing decides it: this offer is passed over, and spoils no other"
        return Finding(refused.field, refused.was, refused.should_be, right=False, remedy=remedy)


def _offer(index: int, stated: Any, version: int, timeout_s: int | None, **shared: Mapping[str, Any] | None) -> Offer:
    where = f"accepts[{index}]"
    if not isinstance(stated, dict):
        _refuse(where, shown(stated), "an object")
    offer = Members(stated, where, TELL)
    network = offer.word("network")
    chain_id = _chain_id(version, network)
    if chain_id is None:
        version_1 = "a chain by version 1's name, such as base"
        offer.refuse("network", version_1 if version == 1 else "eip155: and a chain's number")
    seconds = stated.get("maxTimeoutSeconds", timeout_s)
    if type(seconds) is not int or not 0 < seconds < 2**32:
        offer.refuse("maxTimeoutSeconds", "a number of seconds above 0")
    extra = Members({}) if stated.get("extra") is None else offer.inner("extra")
    return Offer(
        index=index,
        version=version,
        scheme=offer.word("scheme"),
        network=network,
        chain_id=chain_id,
        asset=offer.hexed("asset", 20),
        pay_to=offer.hexed("payTo", 20),
        amount=_amount(version, offer),
        max_timeout_s=seconds,
        name=extra.word("name") if "name" in extra.values else None,
        token_version=extra.word("version") if "version" in extra.values else None,
        raw=_echoable(stated, where),
        **shared,
    )


def _amount(version: int, offer: Members) -> int:
    """Return the units, by the name that the version has for them, or else the other's; both must say the same."""
    own, other = ("maxAmountRequired", "amount") if version == 1 else ("amount", "maxAmountRequired")
    name = other if own not in offer.values and other in offer.values else own
    units = offer.units(name)
    if name == own and other in offer.values and offer.units(other) != units:
        offer.refuse(other, f"the same as {own}, {units}")
    return units


def _chain_id(version: int, network: str) -> int | None:
    if version == 1:
        return V1_CHAINS.get(network)
    chain = _CAIP2.fullmatch(network)
    return int(chain[1]) if chain else None


def _refuse(field: str, was: str, should_be: str) -> Never:
    raise ChargeRefused(field, was, should_be, remedy=TELL)


def _echo(document: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    if document.get(name) is None:
        return None
    value: Mapping[str, Any] = _echoable(Members(document, remedy=TELL).need(name, dict), name)
    return value


def _echoable(value: Any, where: str, depth: int = 0) -> Any:
    """Return a value that is written as it was read: no lone surrogate, not too deep, no number without end."""
    if depth > DEPTH_MAX:
        _refuse(where, "deeply nested", f"at most {DEPTH_MAX} deep")
    if isinstance(value, Numeral) and len(value.text) > NUMBER_LENGTH_MAX:
        _refuse(where, f"a number of {len(value.text)} characters", f"numbers of at most {NUMBER_LENGTH_MAX}")
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        _refuse(where, shown(value), "text in UTF-8")
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _echoable(part, where, depth + 1)
    return value


def _headers(headers: Mapping[str, str], name: str) -> list[str]:
    return [value for given, value in headers.items() if given.lower() == name]


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)  # strict: what is skipped here might be read elsewhere
    except (binascii.Error, ValueError):
        return None


def _encoded(document: Mapping[str, Any]) -> str:
    return base64.b64encode(write(document).encode()).decode()


def _moment(ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
