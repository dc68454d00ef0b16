"""What does a charge look like when it is signed honestly, and when its signer means harm?

The hash and the digest are written out here a second time, independently of the code that proves charges, so that
one mistake cannot hide in both. Rules: the packed 264 bytes and the prefix rule of the payment protocol.
"""

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from eth_abi.packed import encode_packed
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.sandbox import contracts

USDC_UNITS = Decimal(10) ** 6
K2_PREFIX = bytes.fromhex("4b3220496e666f726d6174696f6e616c204d6573736167653a20333220")
UNKNOWN_PREFIX = b"K3 Informational Message: 32 "
SHORT_LIFE_SECONDS = 60
ABSURD_LIFE_SECONDS = 10 * 365 * 24 * 3600

Charge = dict[str, Any]


def named_address(label: str) -> str:
    """An address nobody has a key for, the same on every machine: the last 20 bytes of keccak(label)."""
    return str(to_checksum_address(keccak(text=label)[-20:]))


STRANGER = named_address("topup sandbox: stranger")
OTHER_CURRENCY = named_address("topup sandbox: other currency")
NO_CODE = named_address("topup sandbox: no code here")


@dataclass(frozen=True)
class Economics:
    """How dollars of credit become units of USDC, as seen in real charges: 1 USD -> 1 039 500 + 10 500."""

    markup: Decimal = Decimal("0.05")  # On top of the credits asked for.
    fee_share: Decimal = Decimal("0.01")  # Of the total, inside it.
    lifetime_seconds: int = 48 * 3600


@dataclass(frozen=True)
class Terms:
    """What every honest charge of one gateway has in common."""

    contract: str = contracts.PAYMENT_PROTOCOL
    currency: str = contracts.USDC
    recipient: str = named_address("topup sandbox: recipient")
    chain_id: int = contracts.CHAIN_ID
    deadline_as: Literal["iso", "unix"] = "iso"
    economics: Economics = Economics()


@dataclass(frozen=True)
class Ask:
    """One request for a charge: USD, payer, chain, and the server's time in unix seconds."""

    amount: Decimal
    sender: str
    chain_id: int
    now: int


@dataclass(frozen=True)
class Draft:
    """Everything a signature covers, plus the prefix; amounts in units of the currency, deadline in unix seconds."""

    recipient_amount: int
    fee_amount: int
    deadline: int
    recipient: str
    currency: str
    refund: str
    id: bytes
    operator: str
    chain_id: int
    sender: str
    contract: str
    prefix: bytes = K2_PREFIX


@dataclass(frozen=True)
class Tricks:
    """What a transformation may draw on besides the honest draft; `now` in unix seconds."""

    now: int
    stranger_operator: str
    seen_id: bytes


def packed_hash(draft: Draft) -> bytes:
    """Keccak of the 264 tightly packed bytes the contract hashes."""
    covered = {
        "recipient_amount": "uint256",
        "deadline": "uint256",
        "recipient": "address",
        "currency": "address",
        "refund": "address",
        "fee_amount": "uint256",
        "id": "bytes16",
        "operator": "address",
        "chain_id": "uint256",
        "sender": "address",
        "contract": "address",
    }
    return bytes(keccak(encode_packed(tuple(covered.values()), [getattr(draft, name) for name in covered])))


def digest(draft: Draft) -> bytes:
    """The 32 bytes that are signed: an empty prefix means EIP-191, any other is put before the hash as it is."""
    return bytes(keccak((draft.prefix or b"\x19Ethereum Signed Message:\n32") + packed_hash(draft)))


Before = Callable[[Draft, Tricks], Draft]
After = Callable[[Charge], None]


def _scaled(draft: Draft, factor: Decimal) -> Draft:
    return replace(
        draft, recipient_amount=int(draft.recipient_amount * factor), fee_amount=int(draft.fee_amount * factor)
    )


def _dear_fee(draft: Draft, _: Tricks) -> Draft:
    total = draft.recipient_amount + draft.fee_amount
    return replace(draft, recipient_amount=total - total // 2, fee_amount=total // 2)


def _claim_other_chain(charge: Charge) -> None:
    intent_of(charge)["metadata"]["chain_id"] = 1


def _flip_signature(charge: Charge) -> None:
    call = intent_of(charge)["call_data"]
    raw = bytearray(bytes.fromhex(call["signature"][2:]))
    raw[40] ^= 1  # A bit of s, well below its top: still a well-formed signature, of somebody else.
    call["signature"] = "0x" + raw.hex()


# Changed before signing: the signature is good, the contract of the named chain would take most of these.
BEFORE_SIGNING: Mapping[str, Before] = {
    "other-recipient": lambda d, _: replace(d, recipient=STRANGER),
    "inflated-total": lambda d, _: _scaled(d, Decimal(10)),
    "zero-total": lambda d, _: replace(d, recipient_amount=0, fee_amount=0),
    "underpaid-total": lambda d, _: _scaled(d, Decimal("0.5")),
    "fee-part-too-high": _dear_fee,
    "other-currency": lambda d, _: replace(d, currency=OTHER_CURRENCY),
    # WETH has code and takes any call as a deposit: an unchecked payment there succeeds and is lost.
    "other-contract": lambda d, _: replace(d, contract=contracts.WETH),
    "old-contract": lambda d, _: replace(d, contract=contracts.OLD_PAYMENT_PROTOCOL),
    "contract-without-code": lambda d, _: replace(d, contract=NO_CODE),
    "other-sender": lambda d, _: replace(d, sender=STRANGER),
    "refund-elsewhere": lambda d, _: replace(d, refund=STRANGER),
    "expired": lambda d, t: replace(d, deadline=t.now - 1),
    "short-lived": lambda d, t: replace(d, deadline=t.now + SHORT_LIFE_SECONDS),
    "absurd-deadline": lambda d, t: replace(d, deadline=t.now + ABSURD_LIFE_SECONDS),
    "unregistered-operator": lambda d, t: replace(d, operator=t.stranger_operator),
    "duplicate-id": lambda d, t: replace(d, id=t.seen_id),
    "no-prefix": lambda d, _: replace(d, prefix=b""),
    "unknown-prefix": lambda d, _: replace(d, prefix=UNKNOWN_PREFIX),
}
# Changed after signing. The chain id of the metadata is covered by nothing: the real contract would still take it.
AFTER_SIGNING: Mapping[str, After] = {
    "other-chain": _claim_other_chain,
    "bad-signature": _flip_signature,
}
HOSTILE: frozenset[str] = frozenset(BEFORE_SIGNING) | frozenset(AFTER_SIGNING)


class Operator:
    """Signs charges with a fresh key; a second fresh key stands for an operator nobody has pinned."""

    def __init__(self, terms: Terms | None = None, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """`random` gives that many bytes; a seeded one makes every charge repeatable."""
        self.terms = terms or Terms()
        self._random = random
        keys = [PrivateKey(random(32)) for _ in range(2)]
        self._keys = {str(key.public_key.to_checksum_address()): key for key in keys}
        self.address, self.stranger_address = self._keys
        self._first_id: bytes | None = None

    def draft(self, ask: Ask) -> Draft:
        """The honest terms for this request, unsigned, with a new id."""
        total = int((ask.amount * (1 + self.terms.economics.markup) * USDC_UNITS).to_integral_value(ROUND_HALF_UP))
        fee = int(total * self.terms.economics.fee_share)
        return Draft(
            recipient_amount=total - fee,
            fee_amount=fee,
            deadline=ask.now + self.terms.economics.lifetime_seconds,
            recipient=self.terms.recipient,
            currency=self.terms.currency,
            refund=ask.sender,
            id=self._random(16),
            operator=self.address,
            chain_id=ask.chain_id,
            sender=ask.sender,
            contract=self.terms.contract,
        )

    def charge(self, ask: Ask, trick: str = "", *, draft: Draft | None = None) -> Charge:
        """A signed charge, the `data` object of the API's answer: for these terms, else for the honest ones.

        `trick` names what is wrong with it; `duplicate-id` repeats the first charge of this operator. Raises KeyError
        for a name that is not in `HOSTILE`.
        """
        if trick and trick not in HOSTILE:
            raise KeyError(f"no hostile charge is called {trick!r}")
        draft = draft or self.draft(ask)
        self._first_id = self._first_id or draft.id
        if trick in BEFORE_SIGNING:
            draft = BEFORE_SIGNING[trick](draft, Tricks(ask.now, self.stranger_address, self._first_id))
        charge = self._document(draft, ask)
        if trick in AFTER_SIGNING:
            AFTER_SIGNING[trick](charge)
        return charge

    def sign(self, draft: Draft) -> bytes:
        """65 bytes r, s, v with v 27 or 28, by the key of the draft's operator (ours or the stranger's)."""
        signature = self._keys[draft.operator].sign_msg_hash(digest(draft))
        return bytes(signature.to_bytes()[:64]) + bytes([signature.v + 27])

    def _document(self, draft: Draft, ask: Ask) -> Charge:
        deadline = iso(draft.deadline) if self.terms.deadline_as == "iso" else str(draft.deadline)
        return {
            "id": str(uuid.UUID(bytes=self._random(16), version=4)),
            "created_at": iso(ask.now),
            "expires_at": iso(ask.now + self.terms.economics.lifetime_seconds),
            "web3_data": {
                "transfer_intent": {
                    "metadata": {
                        "chain_id": draft.chain_id,
                        "contract_address": draft.contract,
                        "sender": draft.sender,
                    },
                    "call_data": {
                        "recipient_amount": str(draft.recipient_amount),
                        "deadline": deadline,
                        "recipient": draft.recipient,
                        "recipient_currency": draft.currency,
                        "refund_destination": draft.refund,
                        "fee_amount": str(draft.fee_amount),
                        "id": "0x" + draft.id.hex(),
                        "operator": draft.operator.lower(),
                        "signature": "0x" + self.sign(draft).hex(),
                        "prefix": "0x" + draft.prefix.hex(),
                    },
                }
            },
        }


def intent_of(charge: Charge) -> dict[str, dict[str, Any]]:
    """The `transfer_intent` inside a charge: `metadata` and `call_data`."""
    intent: dict[str, dict[str, Any]] = charge["web3_data"]["transfer_intent"]
    return intent


def iso(unix_seconds: int) -> str:
    """Unix seconds as the API writes times: 2025-03-01T06:19:59Z."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
