"""Is this Coinbase charge exactly what we asked for? parse → verify → Verified.

Pure: raw bytes, the request, the pins and the clocks come in; a `Verified` or a `ChargeRefused` that names the field
comes out.

The signed message is the payment protocol's (coinbase/commerce-onchain-payment-protocol, Transfers.sol):
keccak256 of the tightly packed fields, 264 bytes, prefixed and hashed again when a prefix is present, signed
EIP-191 style when it is not. Simulation cannot replace this check: a validly signed intent to another
recipient, or over another amount, simulates just as well.

The curve and the hash are loaded by the first proof, as in `demand`.
"""

from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from topup.domain.demand import (
    Bounds,
    Clocks,
    Finding,
    Request,
    Verified,
    address,
    amount,
    checksummed,
    lifetimes,
    prove,
)
from topup.domain.json_document import Members, document
from topup.domain.money import Bps, Usdc

# The order of secp256k1: OpenZeppelin's ECDSA refuses the upper half of s, so two signatures cannot say the same.
SECP256K1_N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
EIP191: Final = b"\x19Ethereum Signed Message:\n32"
# Every charge of the known operator since September 2023 carries it, on all chains.
K2_PREFIX: Final = b"K2 Informational Message: 32 "


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
    def struct(self) -> tuple[Any, ...]:
        """Return the fields in the order of the contract's struct TransferIntent, which is the order above."""
        return astuple(self)

    @property
    def total(self) -> Usdc:
        """Return what has to arrive: the recipient's part and the fee part."""
        return Usdc(self.recipient_amount + self.fee_amount)

    @property
    def operator_fee(self) -> Usdc:
        """Return the part the operator keeps."""
        return Usdc(self.fee_amount)


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
        return self.intent.total

    @property
    def fee(self) -> Usdc:
        return self.intent.operator_fee

    @property
    def recipient(self) -> bytes:
        return self.intent.recipient

    @property
    def deadline(self) -> int:
        return self.intent.deadline


@dataclass(frozen=True, kw_only=True)
class Pins(Bounds):
    """What a charge must match, beside what binds a demand of any rail. Addresses are 20 bytes.

    `fee_part_ceiling` bounds the part the operator keeps as a share of the total.
    """

    recipients: frozenset[bytes]
    currency: bytes
    operators: frozenset[bytes]
    prefixes: frozenset[bytes]
    fee_part_ceiling: Bps


def charge_of(verified: Verified) -> Charge:
    """Return the Coinbase charge that was proven; a demand of another rail is a TypeError."""
    if not isinstance(verified.demand, Charge):
        raise TypeError(f"{type(verified.demand).__name__} is no Coinbase charge")
    return verified.demand


def parse(raw: bytes) -> Charge:
    """Decode the raw answer of POST /credits/coinbase; a ChargeRefused names a field that is missing or malformed."""
    answer = document(raw)
    data = Members(answer if isinstance(answer, dict) else {}).inner("data")
    intent = data.inner("web3_data").inner("transfer_intent", where="transfer_intent")
    meta, call = intent.inner("metadata", where="metadata"), intent.inner("call_data", where="call_data")
    if not data.word("id").isascii():
        data.refuse("id", "a short text in ASCII")
    return Charge(
        charge_id=data.word("id"),
        chain_id=meta.need("chain_id", int),
        contract=meta.hexed("contract_address", 20),
        sender=meta.hexed("sender", 20),
        intent=Intent(
            recipient_amount=call.units("recipient_amount"),
            deadline=_deadline(call),
            recipient=call.hexed("recipient", 20),
            recipient_currency=call.hexed("recipient_currency", 20),
            refund_destination=call.hexed("refund_destination", 20),
            fee_amount=call.units("fee_amount"),
            id=call.hexed("id", 16),
            operator=call.hexed("operator", 20),
            signature=call.hexed("signature", 65),
            prefix=call.hexed("prefix", None),
        ),
    )


def verify(
    demand: Charge, request: Request, pins: Pins, clocks: Clocks, *, seen: Collection[tuple[bytes, bytes]]
) -> Verified:
    """Hold a charge against what was asked for, as `prove` does; `pins` is what is known beforehand of the other side.

    Raises:
        ChargeRefused: naming the first field that is not as it should be.
    """
    return prove(demand, request, pins, clocks, _findings(demand, request, pins, clocks, seen), seen=seen)


def _findings(
    demand: Charge, request: Request, pins: Pins, clocks: Clocks, seen: Collection[tuple[bytes, bytes]]
) -> Iterator[Finding]:
    """Judge a charge under the names of its own fields; the signature last, because it costs the most."""
    intent, total = demand.intent, demand.total
    chain = (str(demand.chain_id), str(request.chain_id))
    yield Finding("metadata.chain_id", *chain, chain[0] == chain[1])
    yield address("metadata.contract_address", demand.contract, [pins.contract])
    yield address("metadata.sender", demand.sender, [request.sender])
    yield address("call_data.recipient_currency", intent.recipient_currency, [pins.currency])
    remedy = "pin the operator in [rails.coinbase] only if your gateway documents it"
    yield address("call_data.operator", intent.operator, pins.operators, remedy)
    remedy = "run `topup pin` to learn and pin a recipient by hand"
    yield address("call_data.recipient", intent.recipient, pins.recipients, remedy)
    yield address("call_data.refund_destination", intent.refund_destination, [request.sender])
    yield amount("call_data.recipient_amount", f"{total} with the fee", total, request, pins)
    within = intent.fee_amount * 10_000 <= total.units * pins.fee_part_ceiling.bps
    yield Finding("call_data.fee_amount", str(demand.fee), f"at most {pins.fee_part_ceiling} of {total}", within)
    yield Finding("call_data.recipient_amount", "0", "more than the fee alone", intent.recipient_amount != 0)
    for _, finding in lifetimes("call_data.deadline", intent.deadline, pins, clocks):
        yield finding
    new = demand.identity not in seen
    yield Finding("call_data.id", "0x" + intent.id.hex(), "an id never seen before", new)
    prefixes = " or ".join(map(_shown, sorted(pins.prefixes)))
    remedy = "ask the gateway how its operator signs; rails.coinbase.prefixes says what is allowed"
    yield Finding("call_data.prefix", _shown(intent.prefix), prefixes, intent.prefix in pins.prefixes, remedy)
    signer = recover(demand)
    was = "no valid signature" if signer is None else f"signed by {checksummed(signer)}"
    should_be = f"signed by the operator {checksummed(intent.operator)}"
    yield Finding("call_data.signature", was, should_be, signer == intent.operator)


def intent_hash(demand: Charge) -> bytes:
    """Return keccak256 of the 264 packed bytes the operator signs over, for the demand's own chain and sender."""
    from eth_utils.crypto import keccak

    *fields, _signature, _prefix = demand.intent.struct
    signed = (*fields, demand.chain_id, demand.sender, demand.contract)
    return keccak(b"".join(x.to_bytes(32, "big") if isinstance(x, int) else x for x in signed))


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


def _deadline(call: Members) -> int:
    # It is signed as a number; which unit it is told in, only a text says.
    text, should_be = call.values.get("deadline"), "a text: unix seconds, or ISO 8601 in whole seconds with a zone"
    if not isinstance(text, str):
        call.refuse("deadline", should_be)
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text) if len(text) <= 40 else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.microsecond:
        call.refuse("deadline", should_be)
    # Integers all the way: total_seconds() would pass through a float, and this number is signed over.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if since.days < 0:
        call.refuse("deadline", "after 1970")
    return since.days * 86_400 + since.seconds


def _shown(prefix: bytes) -> str:
    return "0x" + prefix.hex() if prefix else "empty"
