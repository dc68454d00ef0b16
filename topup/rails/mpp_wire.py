"""What does a 402 of the Payment scheme demand, and how is it answered? Header lines in, records out, and back.

A seller answers an unpaid request with challenges in `WWW-Authenticate`, one for each way to pay. The payer echoes
every parameter of one of them byte for byte, beside what it has signed: the seller remembers nothing and recognizes its
own seal. What is read is read strictly, and only its form is judged here. Amounts are token units, times unix seconds.
Sources: tempoxyz/mpp-specs, drafts `httpauth-payment` and `tempo-charge`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Never

from eth_utils.crypto import keccak

from topup.errors import ChargeRefused

# The longest header line that is read; clients have to cope with 4 kB.
HEADER_MAX: Final = 64 * 1024
SCHEME: Final = "payment"
OWN_HEADER: Final = "Payment-Authorization"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_QUOTED: Final = re.compile(r'"((?:[^"\\\x00-\x1f\x7f-\uffff]|\\[\x20-\x7e])*)"')
_MEMO_TAG: Final = keccak(text="mpp")[:4] + b"\x01"


@dataclass(frozen=True)
class Challenge:
    """One way to pay as the seller states it: every parameter as it came, names in lower case, in their order."""

    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return a parameter, "" when it is absent."""
        return dict(self.parameters).get(name, "")


@dataclass(frozen=True)
class Terms:
    """What a challenge of method `tempo`, intent `charge` asks for; None where it does not say.

    Attributes:
        amount: units of the token.
        currency: the token, 20 bytes.
        recipient: who receives, 20 bytes.
        chain_id: on which chain; the specification and its implementations disagree on what silence means.
        fee_payer: whether the seller wants to pay the network.
        splits: how many others would receive a part.
        memo: whether it prescribes one.
        modes: in which ways it may be paid; empty when it does not say.
        expires_s: until when.
    """

    amount: int
    currency: bytes
    recipient: bytes
    chain_id: int | None
    fee_payer: bool
    splits: int
    memo: bool
    modes: tuple[str, ...]
    expires_s: int | None


def challenges(lines: Sequence[str]) -> tuple[Challenge, ...]:
    """Read every challenge of the Payment scheme from header lines; other schemes are passed over.

    Raises:
        ChargeRefused: a line is too long or malformed, or a challenge names a parameter twice.
    """
    found: list[Challenge] = []
    for line in lines:
        if len(line) > HEADER_MAX:
            _refuse("WWW-Authenticate", f"{len(line)} characters", f"at most {HEADER_MAX}")
        found += [Challenge(tuple(named)) for scheme, named in _schemes(line) if scheme == SCHEME]
    return tuple(found)


def terms(challenge: Challenge) -> Terms:
    """Read what a challenge asks for.

    Raises:
        ChargeRefused: its `request` or `expires` is malformed.
    """
    request = _document(challenge.get("request"))
    details = request.get("methodDetails", {})
    if not isinstance(details, dict):
        _refuse("request.methodDetails", _shown(details), "an object")
    chain_id, splits, modes = details.get("chainId"), details.get("splits", []), details.get("supportedModes", [])
    if chain_id is not None and type(chain_id) is not int:
        _refuse("request.methodDetails.chainId", _shown(chain_id), "a number")
    if not isinstance(splits, list):
        _refuse("request.methodDetails.splits", _shown(splits), "a list")
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        _refuse("request.methodDetails.supportedModes", _shown(modes), "a list of texts")
    payer = details.get("feePayer", False)
    if type(payer) is not bool:
        _refuse("request.methodDetails.feePayer", _shown(payer), "true or false")
    expires = challenge.get("expires")
    return Terms(
        amount=_units(request.get("amount")),
        currency=_address(request, "currency"),
        recipient=_address(request, "recipient"),
        chain_id=chain_id,
        fee_payer=payer,
        splits=len(splits),
        memo="memo" in details or "memo" in request,
        modes=tuple(modes),
        expires_s=_seconds(expires) if expires else None,
    )


def credential(challenge: Challenge, payload: Mapping[str, str], source: str) -> str:
    """Return the header's value that answers a challenge: all its parameters untouched, and what was signed.

    Args:
        challenge: as it came.
        payload: what the method wants, for a transaction `{"type": "transaction", "signature": "0x76…"}`.
        source: who pays, as a DID: `did:pkh:eip155:CHAIN:ADDRESS`.
    """
    document = {"challenge": dict(challenge.parameters), "payload": dict(payload), "source": source}
    return "Payment " + _encoded(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def memo(realm: str, challenge_id: str) -> bytes:
    """Return the 32 bytes that bind a transfer to a challenge: the seller takes no other, the chain shows it."""
    return _MEMO_TAG + keccak(text=realm)[:10] + bytes(10) + keccak(text=challenge_id)[:7]


def receipt(value: str) -> str:
    """Return the transaction that a `Payment-Receipt` names, "" when it names none: a hint, never a proof."""
    try:
        told = json.loads(_decoded(value))
        reference = told["reference"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return reference if isinstance(reference, str) and re.fullmatch(r"0x[0-9a-f]{64}", reference) else ""


def _schemes(line: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Take a header line apart (RFC 9110, 11.3): schemes, each with its parameters."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    at = 0
    while at < len(line):
        if line[at] in " \t,":
            at += 1
            continue
        token = _TOKEN.match(line, at)
        if token is None:
            _refuse("WWW-Authenticate", ascii(line[at : at + 40]), "a scheme or a parameter")
        equals = re.compile(r"[ \t]*=[ \t]*(?!=)").match(line, token.end())
        if equals is None or not found:
            found.append((token[0].lower(), []))
            at = token.end()
            single = _TOKEN68.match(line, at + 1)
            if single is not None and re.compile(r"[ \t]*(,|$)").match(line, single.end()):
                at = single.end()  # a scheme with one opaque word instead of parameters
            continue
        value = _QUOTED.match(line, equals.end()) or _TOKEN.match(line, equals.end())
        if value is None:
            _refuse(
                f"WWW-Authenticate, {token[0].lower()}", ascii(line[equals.end() :][:40]), "a quoted text or a token"
            )
        named, name = found[-1][1], token[0].lower()
        if any(name == other for other, _ in named) and found[-1][0] == SCHEME:
            _refuse(name, "given twice", "given once")
        quoted = value.re is _QUOTED
        named.append((name, re.sub(r"\\(.)", r"\1", value[1]) if quoted else value[0]))
        at = value.end()
    return found


def _document(text: str) -> Mapping[str, Any]:
    if not text:
        _refuse("request", "missing", "base64url of a JSON object")
    try:
        document = json.loads(
            _decoded(text).decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
    except (ValueError, RecursionError):
        _refuse("request", ascii(text[:40]), "base64url of a JSON object")
    if not isinstance(document, dict):
        _refuse("request", type(document).__name__, "an object")
    return document


def _decoded(text: str) -> bytes:
    if "=" in text:
        raise ValueError("padded")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _units(value: Any) -> int:
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 38):
        _refuse("request.amount", _shown(value), "a decimal integer in token units, as a text")
    return int(value)


def _address(parent: Mapping[str, Any], name: str) -> bytes:
    value = parent.get(name)
    if not (isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{40}", value)):
        _refuse(f"request.{name}", _shown(value), "0x and 40 hex digits")
    return bytes.fromhex(value[2:])


def _seconds(text: str) -> int:
    """Read a moment of RFC 3339 in unix seconds, rounded down."""
    try:
        moment = datetime.fromisoformat(text) if len(text) <= 40 else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _refuse("expires", ascii(text[:40]), "a moment with a zone (RFC 3339)")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400 + since.seconds


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        _refuse("request", "a name given twice", "each given once")
    return document


def _no_fraction(text: str) -> Never:
    _refuse("request", text[:40], "free of fractions")


def _shown(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:80]


def _refuse(field: str, was: str, should_be: str) -> Never:
    raise ChargeRefused(field, was, should_be)
