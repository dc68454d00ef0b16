"""Is this charge exactly what we asked for? parse → verify → Verified.

Pure: raw bytes, the request, the pins and the clocks come in; a `Verified` or a `ChargeRefused` that names the
field comes out. Only `verify` can build a `Verified`, and only a `Verified` can be quoted, signed and paid.

The signed message is the payment protocol's (coinbase/commerce-onchain-payment-protocol, Transfers.sol):
keccak256 of the tightly packed fields, 264 bytes, prefixed and hashed again when a prefix is present, signed
EIP-191 style when it is not. Simulation cannot replace this check: a validly signed intent to another
recipient, or over another amount, simulates just as well.

The curve and the hash are loaded by the first proof: the types of this module are wanted by commands and by an
idle daemon that never prove anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Never, Protocol, final

from topup.domain.errors import ChargeRefused
from topup.domain.json_document import NoJson, Twice, Unreadable, read
from topup.domain.money import Bps, Usd, Usdc

# The largest answer that can be a charge; the real ones have about 1.5 kB.
RAW_BYTES_MAX = 64 * 1024
# The order of secp256k1: OpenZeppelin's ECDSA refuses the upper half of s, so two signatures cannot say the same.
SECP256K1_N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
EIP191: Final = b"\x19Ethereum Signed Message:\n32"
# Every charge of the known operator since September 2023 carries it, on all chains.
K2_PREFIX: Final = b"K2 Informational Message: 32 "


# The fields that name until when a charge can be paid: one that was right may grow too old.
DEADLINES: Final = frozenset({"call_data.deadline", "expires"})


@dataclass(frozen=True)
class Intent:
    """What the operator signs over. Addresses are 20 bytes, amounts USDC units, the deadline unix seconds."""

    recipient_amount: int
    deadline: int
    recipient: bytes
    recipient_currency: bytes
    refund_destination: bytes
    fee_amount: int
    id: bytes
    operator: bytes
    signature: bytes
    prefix: bytes

    @property
    def struct(self) -> tuple[object, ...]:
        """Return the fields in the order of the contract's struct TransferIntent."""
        return (
            self.recipient_amount,
            self.deadline,
            self.recipient,
            self.recipient_currency,
            self.refund_destination,
            self.fee_amount,
            self.id,
            self.operator,
            self.signature,
            self.prefix,
        )

    @property
    def total(self) -> Usdc:
        """Return what has to arrive: the recipient's part and the fee part."""
        return Usdc(self.recipient_amount + self.fee_amount)

    @property
    def operator_fee(self) -> Usdc:
        """Return the part the operator keeps."""
        return Usdc(self.fee_amount)


class Demand(Protocol):
    """What a seller demands for credits, as it states it: well-formed, and not yet believed. Each rail has its own.

    Attributes:
        charge_id: what the seller calls it.
        chain_id: where it is to be paid.
        contract: which contract is called to pay it, 20 bytes.
        sender: which wallet pays, 20 bytes.
        identity: whose it is and which: a pair that belongs to one charge for ever.
        total: what has to arrive in all.
        fee: the part of the total that an operator in between keeps.
        recipient: who receives it, 20 bytes.
        deadline: until when it can be paid, by the chain's clock in unix seconds.
    """

    @property
    def charge_id(self) -> str:
        """Return what the seller calls it."""

    @property
    def chain_id(self) -> int:
        """Return where it is to be paid."""

    @property
    def contract(self) -> bytes:
        """Return which contract is called to pay it."""

    @property
    def sender(self) -> bytes:
        """Return which wallet pays."""

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Return whose it is and which."""

    @property
    def total(self) -> Usdc:
        """Return what has to arrive in all."""

    @property
    def fee(self) -> Usdc:
        """Return the part an operator keeps."""

    @property
    def recipient(self) -> bytes:
        """Return who receives it."""

    @property
    def deadline(self) -> int:
        """Return until when it can be paid."""


@dataclass(frozen=True)
class Charge:
    """A Coinbase charge: the `Demand` that carries an operator's signed intent."""

    charge_id: str
    chain_id: int
    contract: bytes
    sender: bytes
    intent: Intent

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Return operator and intent id: the contract pays such a pair once."""
        return self.intent.operator, self.intent.id

    @property
    def total(self) -> Usdc:
        """Return what has to arrive: the recipient's part and the fee part."""
        return self.intent.total

    @property
    def fee(self) -> Usdc:
        """Return the part the operator keeps."""
        return self.intent.operator_fee

    @property
    def recipient(self) -> bytes:
        """Return who receives the rest."""
        return self.intent.recipient

    @property
    def deadline(self) -> int:
        """Return until when the contract takes it."""
        return self.intent.deadline


@dataclass(frozen=True)
class Request:
    """What was asked for: so many dollars of credit, paid by this wallet on this chain.

    `purchase` names what has to be paid once at most, whatever is signed for it; `proven` counts the demands for it
    that were proven before this one.
    """

    amount: Usd
    sender: bytes
    chain_id: int
    purchase: str = ""
    proven: int = 0


@dataclass(frozen=True)
class Pins:
    """What a charge must match. Addresses are 20 bytes.

    `fee_ceiling` bounds total − amount as a share of the amount; `fee_part_ceiling` bounds the part the operator
    keeps as a share of the total. Lifetimes are seconds from now to the deadline.
    """

    contract: bytes
    currency: bytes
    operators: frozenset[bytes]
    recipients: frozenset[bytes]
    prefixes: frozenset[bytes]
    fee_ceiling: Bps
    fee_part_ceiling: Bps
    life_min_s: int
    life_max_s: int


@dataclass(frozen=True)
class Clocks:
    """The time as the chain's newest block and this machine tell it, in seconds; both must say it is early."""

    chain_s: int
    local_s: int


class _Seal:
    """Only this module holds one."""


_SEAL: Final = _Seal()


@final
@dataclass(frozen=True)
class Verified:
    """A charge that `verify` has held against request, pins and clocks. Nothing else can build one.

    The seal is shown to the constructor and not kept, so that `dataclasses.replace` cannot carry it over.
    """

    demand: Demand
    request: Request
    seal: InitVar[_Seal]

    def __post_init__(self, seal: _Seal) -> None:
        """Refuse every other maker."""
        if seal is not _SEAL:
            raise TypeError("only topup.domain.charge.verify can build a Verified")

    @property
    def total(self) -> Usdc:
        """Return what has to be paid."""
        return self.demand.total

    @property
    def charge(self) -> Charge:
        """Return the Coinbase charge that was proven.

        Raises:
            TypeError: it is a demand of another rail.
        """
        if not isinstance(self.demand, Charge):
            raise TypeError(f"{type(self.demand).__name__} is no Coinbase charge")
        return self.demand


def document(raw: bytes) -> Any:
    """Decode what a seller demands from JSON: of bounded size, no name given twice, fractions as Decimal.

    Raises:
        ChargeRefused: it is none.
    """
    if len(raw) > RAW_BYTES_MAX:
        _refuse("answer", f"{len(raw)} bytes", f"at most {RAW_BYTES_MAX} bytes")
    try:
        return read(raw)
    except Twice as error:
        _refuse(ascii(error.name)[1:-1][:80], "given twice", "given once")
    except NoJson:
        _refuse("answer", "no JSON", "a JSON document")
    except Unreadable as error:
        _refuse("answer", str(error), "a JSON document of ordinary size")


def parse(raw: bytes) -> Charge:
    """Decode the raw answer of POST /credits/coinbase.

    Raises:
        ChargeRefused: a field is missing, of another type or malformed.
    """
    data = _object(document(raw), "", "data")
    intent = _object(_object(data, "data", "web3_data"), "data.web3_data", "transfer_intent")
    meta = _object(intent, "transfer_intent", "metadata")
    call = _object(intent, "transfer_intent", "call_data")
    chain_id = meta.get("chain_id")
    if type(chain_id) is not int:
        _refuse("metadata.chain_id", "missing" if chain_id is None else ascii(chain_id)[:80], "a JSON integer")
    charge_id = data.get("id")
    # Printable ASCII: it goes into the ledger and the log, which cannot hold a lone surrogate.
    if not (
        isinstance(charge_id, str) and 0 < len(charge_id) <= 200 and charge_id.isascii() and charge_id.isprintable()
    ):
        _refuse("data.id", "missing" if charge_id is None else ascii(charge_id)[:80], "a short text in ASCII")
    return Charge(
        charge_id=charge_id,
        chain_id=chain_id,
        contract=_bytes(meta, "metadata", "contract_address", 20),
        sender=_bytes(meta, "metadata", "sender", 20),
        intent=Intent(
            recipient_amount=_uint(call, "recipient_amount"),
            deadline=_deadline(call),
            recipient=_bytes(call, "call_data", "recipient", 20),
            recipient_currency=_bytes(call, "call_data", "recipient_currency", 20),
            refund_destination=_bytes(call, "call_data", "refund_destination", 20),
            fee_amount=_uint(call, "fee_amount"),
            id=_bytes(call, "call_data", "id", 16),
            operator=_bytes(call, "call_data", "operator", 20),
            signature=_bytes(call, "call_data", "signature", 65),
            prefix=_bytes(call, "call_data", "prefix", None),
        ),
    )


def verify(
    demand: Charge, request: Request, pins: Pins, clocks: Clocks, *, seen: Callable[[bytes, bytes], bool]
) -> Verified:
    """Hold a demand against what was asked for.

    Args:
        demand: the decoded answer.
        request: what was asked for.
        pins: what is known beforehand of the other side.
        clocks: the chain's time and ours.
        seen: tells for (operator, id) whether another charge already carried this id.

    Raises:
        ChargeRefused: naming the first field that is not as it should be.
    """
    intent = demand.intent
    _equal("metadata.chain_id", demand.chain_id, request.chain_id)
    _address("metadata.contract_address", demand.contract, [pins.contract])
    _address("metadata.sender", demand.sender, [request.sender])
    _address("call_data.recipient_currency", intent.recipient_currency, [pins.currency])
    _address(
        "call_data.operator",
        intent.operator,
        pins.operators,
        remedy="pin the operator in [rails.coinbase] only if your gateway documents it",
    )
    _address(
        "call_data.recipient",
        intent.recipient,
        pins.recipients,
        remedy="run `topup pin` to learn and pin a recipient by hand",
    )
    _address("call_data.refund_destination", intent.refund_destination, [request.sender])
    _amounts(intent, request, pins)
    _lifetime(intent.deadline, pins, clocks)
    if seen(intent.operator, intent.id):
        _refuse("call_data.id", "0x" + intent.id.hex(), "an id never seen before")
    if intent.prefix not in pins.prefixes:
        _refuse(
            "call_data.prefix",
            _shown(intent.prefix),
            " or ".join(map(_shown, sorted(pins.prefixes))),
            remedy="ask the gateway how its operator signs; rails.coinbase.prefixes says what is allowed",
        )
    signer = recover(demand)
    if signer != intent.operator:
        was = "no valid signature" if signer is None else f"signed by {_checksummed(signer)}"
        _refuse("call_data.signature", was, f"signed by the operator {_checksummed(intent.operator)}")
    return Verified(demand, request, _SEAL)


@dataclass(frozen=True)
class Bounds:
    """What a demand of any rail has to keep to. `recipients` None: the rail cannot know them beforehand.

    `fee_ceiling` bounds total − amount as a share of the amount. Lifetimes are seconds from now to the deadline.
    `section` is where in the settings these bounds stand, for the remedy.
    """

    contract: bytes
    recipients: frozenset[bytes] | None
    fee_ceiling: Bps
    life_min_s: int
    life_max_s: int
    section: str = ""

    def setting(self, name: str) -> str:
        """Return the whole name of a setting."""
        return f"{self.section}.{name}" if self.section else name


@dataclass(frozen=True)
class Finding:
    """One line of a proof: a field as it was found, as it should be, and whether that is so."""

    field: str
    was: str
    should_be: str
    right: bool
    remedy: str = ""


def prove(
    demand: Demand,
    request: Request,
    bounds: Bounds,
    clocks: Clocks,
    findings: Iterable[Finding],
    *,
    seen: Callable[[bytes, bytes], bool],
) -> Verified:
    """Hold a demand against what was asked for: what its rail found first, then what holds for every rail.

    Args:
        demand: the decoded answer.
        request: what was asked for.
        bounds: what is known beforehand of the other side.
        clocks: the chain's time and ours.
        findings: what only the rail itself can judge, line by line.
        seen: tells for an identity whether another charge already carried it.

    Raises:
        ChargeRefused: naming the first field that is not as it should be.
    """
    for finding in (*findings, *common(demand, request, bounds, clocks)):
        if not finding.right:
            _refuse(finding.field, finding.was, finding.should_be, remedy=finding.remedy)
    if seen(*demand.identity):
        _refuse("id", demand.charge_id, "an id never seen before", remedy="ask again; report to the seller if it stays")
    return Verified(demand, request, _SEAL)


def common(demand: Demand, request: Request, bounds: Bounds, clocks: Clocks) -> Iterator[Finding]:
    """Yield what is judged of every rail's demand, line by line, each with the setting that decides it."""

    def address(field: str, was: bytes, allowed: Collection[bytes], remedy: str) -> Finding:
        names = " or ".join(map(_checksummed, sorted(allowed))) or "pinned first (nothing is pinned)"
        return Finding(field, _checksummed(was), names, was in allowed, remedy)

    chain = (str(demand.chain_id), str(request.chain_id))
    yield Finding("chain id", *chain, chain[0] == chain[1], "nothing: topup pays this seller on that chain only")
    yield address("sender", demand.sender, [request.sender], "ask again: it was asked for by another wallet")
    yield address("token", demand.contract, [bounds.contract], "nothing: topup pays this seller in that token only")
    whom = demand.recipient
    if bounds.recipients is not None:
        remedy = f"find out why before you pin another: {bounds.setting('recipients')} decides"
        yield address("recipient", whom, bounds.recipients, remedy)
    strange = whom in (b"\x00" * 20, demand.sender, demand.contract)
    should_be = "neither null, nor this wallet, nor the token itself"
    yield Finding("recipient", _checksummed(whom), should_be, not strange, "tell the seller: nobody is paid by this")
    least, most = request.amount.usdc_up(), request.amount.plus_bps(bounds.fee_ceiling).usdc_up()
    wanted = f"between {least} and {most} for {request.amount} dollars of credit"
    right = Usdc(1) <= least <= demand.total <= most
    ceiling = f"raise {bounds.setting('fee_ceiling_bps')} only if the seller documents such a fee"
    yield Finding("amount", str(demand.total), wanted, right, ceiling)
    life = f"between {bounds.life_min_s} and {bounds.life_max_s} s away"
    for name, now in (("the chain's", clocks.chain_s), ("this machine's", clocks.local_s)):
        left = demand.deadline - now
        in_time = bounds.life_min_s <= left <= bounds.life_max_s
        decides = bounds.setting("life_max_s" if left > bounds.life_max_s else "life_min_s")
        remedy = f"check this machine's clock; {decides} is the bound"
        yield Finding("expires", f"{left} s away by {name} clock", life, in_time, remedy)


def intent_hash(demand: Charge) -> bytes:
    """Return keccak256 of the 264 packed bytes the operator signs over, for the demand's own chain and sender."""
    from eth_utils.crypto import keccak

    intent = demand.intent
    packed = b"".join(
        (
            intent.recipient_amount.to_bytes(32, "big"),
            intent.deadline.to_bytes(32, "big"),
            intent.recipient,
            intent.recipient_currency,
            intent.refund_destination,
            intent.fee_amount.to_bytes(32, "big"),
            intent.id,
            intent.operator,
            demand.chain_id.to_bytes(32, "big"),
            demand.sender,
            demand.contract,
        )
    )
    return keccak(packed)


def recover(demand: Charge) -> bytes | None:
    """Return the address that signed the demand, or None when the contract would not accept the signature's form."""
    from eth_keys.datatypes import Signature
    from eth_keys.exceptions import BadSignature, ValidationError
    from eth_utils.crypto import keccak

    signature = demand.intent.signature
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28) or not 0 < s <= SECP256K1_N // 2:
        return None
    digest = keccak((demand.intent.prefix or EIP191) + intent_hash(demand))
    try:
        return Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest).to_canonical_address()
    except (BadSignature, ValidationError):
        return None


def _amounts(intent: Intent, request: Request, pins: Pins) -> None:
    total = intent.total
    least, most = request.amount.usdc_up(), request.amount.plus_bps(pins.fee_ceiling).usdc_up()
    if total.units == 0:
        _refuse(
            "call_data.recipient_amount",
            "0 together with the fee",
            f"at least {least}: a zero total would strand the ETH sent",
        )
    if not least <= total <= most:
        _refuse(
            "call_data.recipient_amount",
            f"{total} with the fee",
            f"between {least} and {most} for {request.amount} dollars of credit",
        )
    if intent.fee_amount * 10_000 > total.units * pins.fee_part_ceiling.bps:
        _refuse("call_data.fee_amount", str(Usdc(intent.fee_amount)), f"at most {pins.fee_part_ceiling} of {total}")
    if intent.recipient_amount == 0:
        _refuse("call_data.recipient_amount", "0", "more than the fee alone")


def _lifetime(deadline: int, pins: Pins, clocks: Clocks) -> None:
    for name, now in (("the chain's", clocks.chain_s), ("this machine's", clocks.local_s)):
        left = deadline - now
        if not pins.life_min_s <= left <= pins.life_max_s:
            _refuse(
                "call_data.deadline",
                f"{left} s away by {name} clock",
                f"between {pins.life_min_s} and {pins.life_max_s} s away",
            )


def _refuse(field: str, was: str, should_be: str, *, remedy: str = "") -> Never:
    raise ChargeRefused(field, was, should_be, remedy=remedy)


def _equal(field: str, was: int, should_be: int) -> None:
    if was != should_be:
        _refuse(field, str(was), str(should_be))


def _address(field: str, was: bytes, allowed: Collection[bytes], *, remedy: str = "") -> None:
    if was not in allowed:
        names = " or ".join(map(_checksummed, sorted(allowed))) or "pinned first (nothing is pinned)"
        _refuse(field, _checksummed(was), names, remedy=remedy)


def _checksummed(address: bytes) -> str:
    from eth_utils.address import to_checksum_address

    return to_checksum_address(address)


def _object(parent: Any, where: str, name: str) -> Mapping[str, Any]:
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        _refuse(f"{where}.{name}".lstrip("."), "missing" if value is None else type(value).__name__, "an object")
    return value


def _text(parent: Mapping[str, Any], where: str, name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str):
        _refuse(f"{where}.{name}", "missing" if value is None else type(value).__name__, "a text")
    return value


def _bytes(parent: Mapping[str, Any], where: str, name: str, length: int | None) -> bytes:
    text = _text(parent, where, name)
    should_be = f"0x and {length * 2} hex digits" if length is not None else "0x and hex digits"
    digits = text[2:]
    hexadecimal = text.startswith("0x") and len(digits) % 2 == 0 and all(c in "0123456789abcdefABCDEF" for c in digits)
    if not hexadecimal or (length is not None and len(digits) != 2 * length) or len(digits) > 2048:
        _refuse(f"{where}.{name}", ascii(text[:80]), should_be)
    return bytes.fromhex(digits)


def _uint(call: Mapping[str, Any], name: str) -> int:
    text = _text(call, "call_data", name)
    if not (text.isascii() and text.isdigit() and len(text) <= 78):
        _refuse(f"call_data.{name}", ascii(text[:80]), "a decimal integer in token units")
    number = int(text)
    if number >= 2**256:
        _refuse(f"call_data.{name}", text, "below 2^256")
    return number


def _deadline(call: Mapping[str, Any]) -> int:
    if type(call.get("deadline")) is int:  # signed as a number, and told as one: which unit, only a text says
        was = f"the JSON number {call['deadline']}" if abs(call["deadline"]) < 10**15 else "a huge JSON number"
        _refuse("call_data.deadline", was, "a text: unix seconds, or ISO 8601 in whole seconds with a zone")
    text = _text(call, "call_data", "deadline")
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text) if len(text) <= 40 else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.microsecond:
        _refuse("call_data.deadline", ascii(text[:80]), "unix seconds, or ISO 8601 in whole seconds with a zone")
    # Integers all the way: total_seconds() would pass through a float, and this number is signed over.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if since.days < 0:
        _refuse("call_data.deadline", ascii(text[:80]), "after 1970")
    return since.days * 86_400 + since.seconds


def _shown(prefix: bytes) -> str:
    return "0x" + prefix.hex() if prefix else "empty"
