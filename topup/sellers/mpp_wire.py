"""What does a 402 of the Payment scheme demand, and how is it answered? Text in, records out, and back, unjudged.

A seller answers an unpaid request with 402 and `WWW-Authenticate: Payment …`, one challenge for each way to pay; the
payer sends the same request again with a credential. A seller keeps nothing and knows its challenge again by what is
echoed to it, so every parameter is kept and goes back as it came. What is read is read strictly: a header that two
readers may read differently is refused as a whole. Amounts are token units, times unix seconds, addresses 20 bytes.
Sources: the drafts `httpauth-payment` and `tempo-charge`, RFC 9110 section 11; pympp 0.16 and mppx 0.11, which the
tests hold this against.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Never

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.domain.errors import ChargeRefused
from topup.domain.json_document import Members, document, read, shown, unhexed

SCHEME: Final = "payment"
FIELD: Final = "WWW-Authenticate"
# All lines together; a real challenge has about 1 kB, and clients have to cope with 4.
CHARACTERS_MAX: Final = 64 * 1024
UNREADABLE: Final = "tell the seller what cannot be read; `topup doctor --rail mpp` shows it whole"
REQUIRED: Final = ("id", "realm", "method", "intent", "request")
# Where a credential goes when the challenge names no header for it.
DEFAULT_HEADER: Final = "Authorization"

MEMO_TAG: Final = keccak(text="mpp")[:4] + b"\x01"
ANONYMOUS: Final = bytes(10)

# An element of the header's list: a scheme, a parameter, or a scheme with its first parameter or its only token. What
# a quantifier has taken it never gives back (`++`), so that no input takes longer than its length deserves.
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - a grammar
_ELEMENT: Final = re.compile(
    rf"(?:(?P<scheme>{_TOKEN})(?: ++|(?=,|$)))?"
    rf'(?:(?P<name>{_TOKEN}) *+= *+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>{_TOKEN}))'
    r"|(?P<token>[0-9A-Za-z._~+/-]++=*+))? *+(?:,|$)[ ,]*+"
)
# RFC 9110 lets a backslash stand before any character; both reference implementations write what lies beyond Latin-1
# as \uXXXX in UTF-16, and read it so.
_ESCAPED: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Challenge:
    """One way to pay, as the seller states it: every name, in lower case, with its value, in the seller's order."""

    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return a parameter's value, "" without one."""
        return dict(self.parameters).get(name, "")

    @property
    def id(self) -> str:
        return self.get("id")

    @property
    def realm(self) -> str:
        return self.get("realm")

    @property
    def header(self) -> str:
        """Return the name of the header that a credential goes into."""
        return self.get("header") or DEFAULT_HEADER


@dataclass(frozen=True)
class TempoCharge:
    """What a challenge of the method `tempo` and the intent `charge` asks for; None and () where it says nothing.

    `fee_payer` says that somebody else pays the fee and signs as well. `splits` are other recipients of parts of the
    amount and `memo` is the memo that the seller wants, as they came; `modes` are the ways to hand the payment over,
    `pull` and `push`, None for any. From `expires` on, rounded down, the challenge is void.
    """

    amount: int
    currency: bytes
    recipient: bytes
    chain_id: int | None
    fee_payer: bool
    splits: tuple[Any, ...]
    memo: str | None
    modes: tuple[str, ...] | None
    expires: int | None


def challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Read the challenges of the Payment scheme from all WWW-Authenticate lines, in their order; possibly none.

    Other schemes beside it are passed over. A challenge that lacks a parameter has one reading, and is of no use:
    whoever reads what it asks for says so, and it spoils none beside it.

    Raises:
        ChargeRefused: a line is malformed, too long or not plain ASCII, or a challenge says a parameter twice.
    """
    whole = tuple(lines)
    length = sum(map(len, whole))
    if length > CHARACTERS_MAX:
        _refuse(FIELD, f"{length} characters", f"at most {CHARACTERS_MAX}")
    return tuple(
        _challenge(parameters) for line in whole for scheme, parameters in _schemes(line) if scheme.lower() == SCHEME
    )


def demanded(challenge: Challenge) -> dict[str, Any]:
    """Return the JSON object in a challenge's `request`; a ChargeRefused where it can be read in no way or two."""
    text = challenge.get("request")
    raw = _base64url(text)
    if raw is None:
        _refuse("request", shown(text), "base64url without padding")
    stated = document(raw, "request", UNREADABLE, fraction=_no_number)
    if not isinstance(stated, dict):
        _refuse("request", shown(stated), "a JSON object")
    return stated


def tempo_charge(challenge: Challenge) -> TempoCharge:
    """Read what a challenge asks for; description and what else it says are no part of it.

    Raises:
        ChargeRefused: it is of another method or intent, lacks a parameter, or is malformed.
    """
    for name in REQUIRED:
        if not challenge.get(name):
            _refuse(f"{FIELD}.{name}", "missing", "given once")
    for name, should_be in (("method", "tempo"), ("intent", "charge")):
        if challenge.get(name) != should_be:
            _refuse(name, shown(challenge.get(name)), should_be)
    stated = Members(demanded(challenge), "request", UNREADABLE)
    details = Members(stated.get("methodDetails", dict) or {}, "request.methodDetails", UNREADABLE)
    modes = details.get("supportedModes", list)
    if modes is not None and not all(isinstance(mode, str) for mode in modes):
        details.refuse("supportedModes", "a list of texts")
    return TempoCharge(
        amount=stated.units("amount"),
        currency=stated.hexed("currency", 20),
        recipient=stated.hexed("recipient", 20),
        chain_id=details.get("chainId", int),
        fee_payer=details.get("feePayer", bool) or False,
        splits=tuple(details.get("splits", list) or ()),
        memo=details.get("memo", str),
        modes=None if modes is None else tuple(modes),
        expires=_seconds(challenge.get("expires")) if challenge.get("expires") else None,
    )


def payer(chain_id: int, address: bytes) -> str:
    """Return what a credential calls the wallet that pays."""
    return f"did:pkh:eip155:{chain_id}:{to_checksum_address(address)}"


def credential(challenge: Challenge, payload: Mapping[str, str], source: str) -> str:
    """Return the value of the header that answers a challenge; for a signed transaction it is as good as money.

    The challenge is echoed whole. In the mode `pull` the payload that pays has `type`: `transaction`, and `signature`:
    the raw transaction in hex. `source` is who pays; see `payer`.
    """
    document = {"challenge": dict(challenge.parameters), "payload": dict(payload), "source": source}
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return "Payment " + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def memo(realm: str, challenge_id: str) -> bytes:
    """Return the 32 bytes by which a transfer on the chain names the challenge that it pays."""
    return MEMO_TAG + keccak(text=realm)[:10] + ANONYMOUS + keccak(text=challenge_id)[:7]


def settled(value: str) -> bytes | None:
    """Return the transaction that the header Payment-Receipt names: a hint where to look, never a proof."""
    try:
        text = value.strip().rstrip("=")
        receipt = read(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), twice="last")
    except ValueError:
        return None
    return unhexed(receipt.get("reference"), 32) if isinstance(receipt, dict) else None


def _schemes(line: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if not line.isascii():
        _refuse(FIELD, ascii(line[:40]), "plain ASCII")
    scheme, parameters, may_follow = "", list[tuple[str, str]](), False
    at = len(line) - len(line.lstrip(" ,"))
    while at < len(line):
        element = _ELEMENT.match(line, at)
        if element is None or not (element["scheme"] or (may_follow and element["name"])):
            _refuse(FIELD, ascii(line[at : at + 40]), "a list of challenges")
        if element["scheme"]:
            if scheme:
                yield scheme, parameters
            scheme, parameters = element["scheme"], []
        may_follow = element["name"] is not None
        if may_follow:
            plain = element["plain"]
            parameters.append((element["name"].lower(), _unescaped(element["quoted"]) if plain is None else plain))
        at = element.end()
    if scheme:
        yield scheme, parameters


def _unescaped(quoted: str) -> str:
    units = _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else escape[2], quoted)
    try:
        text = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        _refuse(FIELD, ascii(quoted[:40]), "free of control characters and halves of characters")
    return text


def _challenge(parameters: list[tuple[str, str]]) -> Challenge:
    names = set[str]()
    for name, _ in parameters:
        if name in names:
            _refuse(f"{FIELD}.{name[:40]}", "given twice", "given once")
        names.add(name)
    return Challenge(tuple(parameters))


def _refuse(field: str, was: str, should_be: str) -> Never:
    raise ChargeRefused(field, was, should_be, remedy=UNREADABLE)


def _base64url(text: str) -> bytes | None:
    """Decode it if this is the one way to write these bytes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text else None


def _no_number(text: str) -> Never:
    _refuse("request", text[:80], "free of fractions")


def _seconds(text: str) -> int:
    moment = _MOMENT.fullmatch(text)
    try:
        # Without its fraction, which rounds it down; integers all the way.
        since = datetime.fromisoformat(moment[1] + moment[2]) - datetime(1970, 1, 1, tzinfo=UTC) if moment else None
    except (ValueError, OverflowError):
        since = None
    if since is None or since.days < 0:
        _refuse("expires", ascii(text[:80]), "a moment after 1970 (RFC 3339)")
    return since.days * 86_400 + since.seconds
