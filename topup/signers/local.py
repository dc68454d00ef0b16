"""Is this the one thing this key may sign? A key in memory, from a keystore file or given raw.

The door checks for itself, trusting none of the code before it: chain, destination, selector, that the call data
encode exactly the verified charge, that the wallet is the charge's sender, and its own ceilings on value and
network fee. Beside payments it signs cancels, which move nothing. There is no method to sign anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eth_abi.abi import encode
from eth_keys.datatypes import PrivateKey
from eth_keys.exceptions import ValidationError
from eth_typing import Hash32
from eth_utils.crypto import keccak

from topup.domain import tempo, typed_data
from topup.domain.coinbase_charge import K2_PREFIX, Intent, charge_of
from topup.domain.demand import Verified
from topup.domain.errors import SettingsError, SignerError
from topup.domain.lifecycle import NO_TOKENS, Broadcaster, Kind, Plan
from topup.domain.money import Asset, EthPrice, Usdc, Wei, gas_dollars

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

INTENT: Final = "(uint256,uint256,address,address,address,uint256,bytes16,address,bytes,bytes)"
SWAP: Final = keccak(text=f"swapAndTransferUniswapV3Native({INTENT},uint24)")[:4]
TRANSFER: Final = keccak(text=f"transferTokenPreApproved({INTENT})")[:4]
APPROVE: Final = keccak(text="approve(address,uint256)")[:4]

# How a login begins (EIP-4361), which no other message may be taken for.
LOGIN: Final = re.compile(r"[a-z0-9.:-]{1,255} wants you to sign in with your Ethereum account:")
ANY_PRICE: Final = EthPrice(1)


@dataclass(frozen=True)
class Ceilings:
    """What this key signs at most in one payment, and where to."""

    chain_id: int
    contract: bytes
    value: Wei
    network_fee: Wei
    # The lowest plausible price of ETH: no charge is ever paid with more ETH than it is worth at that.
    price_min: EthPrice = ANY_PRICE
    # Which dollar may be paid with, and how much of it; none unless told.
    token: bytes = b""
    tokens: Usdc = NO_TOKENS
    # Of which token an approval may be taken back, whatever is paid with now.
    revocable: bytes = b""
    # For which dollars transfers are authorized that somebody else carries to their chain.
    domains: frozenset[typed_data.Domain] = frozenset()
    # On which chains transactions are signed for a seller to broadcast, in which dollars, and what they may cost.
    bridged: frozenset[tuple[int, bytes]] = frozenset()
    token_fee: Usdc = NO_TOKENS
    # Whether such a transaction may be left open for a sponsor, who pays its fee.
    sponsored: bool = False
    # What the operator of a charge may have signed behind.
    prefixes: frozenset[bytes] = frozenset({K2_PREFIX})
    # The account that pays when this key is one of its access keys.
    root: bytes = b""


class LocalSigner:
    """A secp256k1 key in this process; what is not exactly what a method signs, it refuses with a SignerError."""

    def __init__(self, key: PrivateKey, ceilings: Ceilings) -> None:
        self._key: Callable[[], PrivateKey] = lambda: key  # not the key itself: its `repr` shows it
        self._ceilings = ceilings
        self.address = key.public_key.to_canonical_address()

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"LocalSigner({self._key().public_key.to_checksum_address()})"

    @cached_property
    def _account(self) -> LocalAccount:
        """Return what signs by this key; to load it takes memory that an idle daemon does without."""
        from topup.signers import keystore

        return keystore.account(self._key().to_bytes())

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the planned payment of a verified charge, or the approval of exactly its total, within the ceilings."""
        charge, ceilings = charge_of(verified), self._ceilings
        pays = plan.kind is Kind.PAY
        rules = {
            **self._network(plan),
            "chain": plan.chain_id == ceilings.chain_id == charge.chain_id,
            "sender": self.address == charge.sender == charge.intent.refund_destination,
            "total": verified.total.units > 0,
            "prefix": charge.intent.prefix in ceilings.prefixes,
        }
        if plan.asset is Asset.ETH:
            rules |= {
                "kind": pays,
                "destination": plan.to == ceilings.contract == charge.contract,
                "call data": 0 <= plan.tier < 2**24 and plan.data == _swap(charge.intent, plan.tier),
                "value": Wei(0) < plan.value <= ceilings.value,
                "price": plan.value <= ceilings.price_min.wei_for_up(verified.total),
            }
        else:
            data = _transfer(charge.intent) if pays else _approval(ceilings.contract, verified.total.units)
            rules |= {
                "kind": pays or plan.kind is Kind.APPROVE,
                "asset": plan.asset is Asset.USDC,
                "token": ceilings.token != b"" and charge.intent.recipient_currency == ceilings.token,
                "destination": plan.to == (ceilings.contract if pays else ceilings.token),
                "contract": ceilings.contract == charge.contract,
                "call data": plan.data == data,
                "value": plan.value == Wei(0),
                "tokens": plan.tokens == verified.total <= ceilings.tokens,
            }
        self._refuse(rules)
        return self._signed(plan)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign that the payment contract may take none of the token any more, within the ceiling on network fees."""
        return self._takes_back(plan, Kind.APPROVE, self._ceilings.revocable, _approval(self._ceilings.contract, 0))

    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes:
        """Sign (r, s and v) that exactly the total may be moved to the recipient, once, within the ceilings."""
        demand, ceilings = verified.demand, self._ceilings
        token, nonce = demand.identity
        domain = next((d for d in ceilings.domains if (d.chain_id, d.token) == (demand.chain_id, token)), None)
        self._refuse(
            {
                "kind": plan.kind is Kind.PAY and plan.broadcaster is Broadcaster.SERVER,
                "chain": plan.chain_id == demand.chain_id,
                "token": domain is not None and plan.to == demand.contract == token,
                "sender": self.address == demand.sender,
                "value": plan.value == Wei(0),
                "tokens": NO_TOKENS < plan.tokens == verified.total <= ceilings.tokens,
                "nonce": len(nonce) == 32 and (plan.lane, plan.nonce) == (int.from_bytes(nonce, "big"), 0),
                "deadline": 0 < demand.deadline == plan.ends_s < 2**64,
            }
        )
        assert domain is not None
        authorization = typed_data.Authorization(
            demand.sender, demand.recipient, verified.total.units, 0, demand.deadline, nonce
        )
        return self._signature(typed_data.authorization_digest(domain, authorization))

    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign a Tempo transaction that pays exactly the total, on a lane of its own.

        What is sponsored is left open for a sponsor instead, as what runs once and dies at its end: its payload is
        returned in place of the raw transaction.
        """
        demand, ceilings = verified.demand, self._ceilings
        payer = ceilings.root or self.address
        pays = tempo.transfer_with_memo(demand.recipient, verified.total.units, plan.data[-32:])
        self._refuse(
            {
                "kind": plan.kind is Kind.PAY and plan.broadcaster is Broadcaster.SERVER,
                "chain": plan.chain_id == demand.chain_id,
                "token": (demand.chain_id, plan.to) in ceilings.bridged and plan.to == demand.contract,
                "sender": payer == demand.sender,
                "value": plan.value == Wei(0),
                "call data": plan.data == pays,
                "tokens": NO_TOKENS < plan.tokens == verified.total <= ceilings.tokens,
                "network fee": gas_dollars(plan.max_fee_per_gas, plan.gas_limit) <= ceilings.token_fee,
                "lane": 0 < plan.lane < tempo.EXPIRING and plan.nonce == 0,
                "sponsor": not plan.sponsored or (ceilings.sponsored and not ceilings.root),
                "deadline": 0 < plan.ends_s <= demand.deadline < 2**64
                and (plan.sponsored or plan.ends_s == demand.deadline),
            }
        )
        unsigned = tempo.Transaction(
            plan.chain_id,
            plan.max_fee_per_gas.units,
            plan.gas_limit,
            plan.to,
            plan.data,
            tempo.EXPIRING if plan.sponsored else plan.lane,
            plan.ends_s,
            plan.to,
            plan.sponsored,
        )
        digest = tempo.access_digest(unsigned, payer) if ceilings.root else tempo.digest(unsigned)
        signature = self._signature(digest)
        if plan.sponsored:
            payload = tempo.opened(unsigned, payer, signature)
            return payload, keccak(payload)
        raw = tempo.sealed(unsigned, tempo.access_signature(payer, signature) if ceilings.root else signature)
        return raw, keccak(raw)

    def sign_login(self, text: str) -> bytes:
        """Sign (r, s and v) a message that proves to a seller whose wallet this is, and that no contract can spend."""
        asks, who, *_ = [*text.split("\n"), "", ""]
        self._refuse({"login": LOGIN.fullmatch(asks) is not None and who == self._account.address})
        return self._signature(typed_data.personal_digest(text))

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a transaction that takes a nonce and moves nothing, within the ceiling on network fees."""
        return self._takes_back(plan, Kind.CANCEL, self.address, b"")

    def _takes_back(self, plan: Plan, kind: Kind, to: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Sign what moves nothing: this call to this address, and nothing else."""
        rules = {
            "kind": plan.kind is kind,
            "chain": plan.chain_id == self._ceilings.chain_id,
            "destination": to != b"" and plan.to == to,
            "call data": plan.data == data,
            "value": plan.value == Wei(0),
        }
        self._refuse(rules | self._network(plan))
        return self._signed(plan)

    def _signature(self, digest: bytes) -> bytes:
        return bytes(self._account.unsafe_sign_hash(Hash32(digest)).signature)

    def _signed(self, plan: Plan) -> tuple[bytes, bytes]:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": plan.chain_id,
                "nonce": plan.nonce,
                "to": plan.to,
                "value": plan.value.units,
                "data": plan.data,
                "gas": plan.gas_limit,
                "maxFeePerGas": plan.max_fee_per_gas.units,
                "maxPriorityFeePerGas": plan.max_priority_fee_per_gas.units,
                "accessList": [],
            }
        )
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def _network(self, plan: Plan) -> dict[str, bool]:
        """What holds for whatever is signed: fees and place."""
        return {
            "network fee": plan.max_fee_per_gas.times(plan.gas_limit) + plan.l1_fee <= self._ceilings.network_fee,
            # A negative part would make room for the others under the ceiling.
            "fees": plan.gas_limit > 0 and plan.l1_fee >= Wei(0) and plan.max_fee_per_gas > Wei(0),
            "tip": Wei(0) <= plan.max_priority_fee_per_gas <= plan.max_fee_per_gas,
            "nonce": 0 <= plan.nonce < 2**64 - 1,  # EIP-2681
            "lane": plan.lane == 0,
        }

    @staticmethod
    def _refuse(rules: dict[str, bool]) -> None:
        wrong = [name for name, right in rules.items() if not right]
        if wrong:
            raise SignerError(
                f"the key refuses to sign: {', '.join(wrong)}",
                remedy="for the value see wallet.payment_max_eth, for the fee fees.network_fee_max_eth; else report it",
            )


def _swap(intent: Intent, tier: int) -> bytes:
    return SWAP + encode([INTENT, "uint24"], [intent.struct, tier])


def _transfer(intent: Intent) -> bytes:
    return TRANSFER + encode([INTENT], [intent.struct])


def _approval(contract: bytes, units: int) -> bytes:
    return APPROVE + encode(["address", "uint256"], [contract, units])


def from_keystore(path: Path, password: str, ceilings: Ceilings) -> LocalSigner:
    """Open the wallet's keystore, which fails as `keystore.opened` does."""
    from topup.signers import keystore

    return LocalSigner(PrivateKey(bytes(keystore.opened(path, password, "wallet.keystore").key)), ceilings)


def from_private_key(text: str, ceilings: Ceilings) -> LocalSigner:
    """Use a raw private key, as `private_key` reads it."""
    return LocalSigner(private_key(text, "wallet.private_key"), ceilings)


def private_key(text: str, named: str) -> PrivateKey:
    """Read a raw private key of 32 bytes in hex; a SettingsError where it is none, or no number of the curve."""
    digits = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{64})", text.strip())
    try:
        # The library would also take fewer digits, and open another wallet.
        key = PrivateKey(bytes.fromhex(digits[1])) if digits else None
    except (ValueError, ValidationError):
        key = None
    if key is None:  # not raised inside the handler: what the library says may hold the key
        raise SettingsError(f"{named} is no private key", remedy="give 0x and 64 hex digits, or better a keystore")
    return key
