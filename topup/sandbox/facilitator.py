"""Who carries an authorization of dollars to the chain, and what is made sure of before?

Payment header, typed data and call data are decoded and built here a second time, independently of the code that pays,
so that one mistake cannot hide in both. Amounts are units of USDC, times unix seconds, addresses in lower case.
Sources: x402 specification, versions 1 and 2, scheme `exact`; EIP-3009; the token's own source.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils.crypto import keccak

from topup.sandbox import contracts
from topup.sandbox.postings import ERC20_TRANSFER, tokens, word
from topup.sandbox.rpc import Chain, RpcError
from topup.sandbox.seller import Refused

Json = Any
NETWORKS: Final = {"base": 8453, "base-sepolia": 84532}  # What version 1 calls chains.
FUNDED_WEI: Final = 10**18
GAS: Final = 200_000
UNVERIFIED: Final = "PAYMENT_VERIFICATION_FAILED"
LEFT_S: Final = 6  # What an authorization must have left, or it may expire on the way.
FIELDS: Final = {
    "from": "address",
    "to": "address",
    "value": "uint256",
    "validAfter": "uint256",
    "validBefore": "uint256",
    "nonce": "bytes32",
}
TRANSFER: Final = bytes(keccak(text=f"transferWithAuthorization({','.join(FIELDS.values())},bytes)")[:4])
TYPES: Final = {"TransferWithAuthorization": [{"name": name, "type": kind} for name, kind in FIELDS.items()]}


@dataclass(frozen=True)
class Authorization:
    """What a payer signed, in the order of `FIELDS`, and the signature as it came."""

    sender: str
    recipient: str
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes


@dataclass(frozen=True)
class Paid:
    """A payment header, decoded; `accepted` is the echoed offer, `extensions` beside it: only version 2 has them."""

    version: int
    scheme: str
    chain_id: int
    accepted: Mapping[str, Json] | None
    authorization: Authorization
    extensions: Mapping[str, Json] | None = None


def read(header: str) -> Paid:
    """Decode a payment header of either version. Raises Refused."""
    try:
        document = json.loads(base64.b64decode(header, validate=True))
        version = document["x402Version"]
        # There is no third version, and none of the second without an echo.
        accepted = {1: None, 2: document.get("accepted", ())}[version]
        named = document if accepted is None else accepted
        signed = document["payload"]["authorization"]
        authorization = Authorization(
            sender=_text(r"0x[0-9a-fA-F]{40}", signed["from"]).lower(),
            recipient=_text(r"0x[0-9a-fA-F]{40}", signed["to"]).lower(),
            value=int(_text(r"\d{1,77}", signed["value"])),
            valid_after=int(_text(r"\d{1,20}", signed["validAfter"])),
            valid_before=int(_text(r"\d{1,20}", signed["validBefore"])),
            nonce=bytes.fromhex(_text(r"0x[0-9a-fA-F]{64}", signed["nonce"])[2:]),
            signature=bytes.fromhex(_text(r"0x[0-9a-fA-F]{130}", document["payload"]["signature"])[2:]),
        )
        chain_id, extensions = chain_of(str(named["network"])), document.get("extensions")
        return Paid(version, str(named["scheme"]), chain_id, accepted, authorization, extensions)
    except (ValueError, LookupError, TypeError, RecursionError) as wrong:
        raise Refused(
            400, "invalid_payload", f"The payment cannot be read: {wrong}", "INVALID_PAYMENT_FORMAT"
        ) from wrong


def chain_of(network: str) -> int:
    """Return the chain id of a network by either version's name, 0 for one without an EVM."""
    numbered = re.fullmatch(r"eip155:(\d{1,18})", network)
    return int(numbered[1]) if numbered else NETWORKS.get(network, 0)


def _text(pattern: str, value: Json) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise ValueError(f"{value!r:.80} does not match {pattern}")
    return value


class Facilitator:
    """An account that pays the gas of other people's transfers of one token."""

    def __init__(self, chain: Chain, token: str = contracts.USDC) -> None:
        """Draw a key, and give its account ether on this chain."""
        self.chain = chain
        self.token = token
        self._account: Any = Account.create()
        self.address = str(self._account.address)
        chain.set_balance(self.address, FUNDED_WEI)

    @property
    def chain_id(self) -> int:
        """The chain it works on."""
        return int(self.chain.rpc("eth_chainId", []), 16)

    def verify(self, authorization: Authorization) -> None:
        """Make sure that the token would take it now. Raises Refused."""
        now_s = int(self.chain.rpc("eth_getBlockByNumber", ["latest", False])["timestamp"], 16)
        holder = authorization.sender
        after, before = authorization.valid_after, authorization.valid_before
        if after > now_s:
            raise unverified("payload_authorization_valid_after", f"It is valid after {after}, now {now_s}.")
        if before < now_s + LEFT_S:
            raise unverified("payload_authorization_valid_before", f"It ended {before}, now {now_s}.")
        if self._signer(authorization) != holder:
            raise unverified("payload_signature", "The signature is not the payer's.")
        used = self._call("authorizationState(address,bytes32)", ("address", "bytes32"), (holder, authorization.nonce))
        if any(used):
            raise unverified("nonce_already_used", "It was used or cancelled.")
        held = tokens(self.chain, self.token, holder)
        if held < authorization.value:
            raise Refused(400, "insufficient_funds", f"The payer holds {held} units.", UNVERIFIED)

    def submit(self, authorization: Authorization) -> str:
        """Send it to the chain; return the transaction's hash. Raises RpcError."""
        price = int(self.chain.rpc("eth_gasPrice", []), 16)
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": int(self.chain.rpc("eth_getTransactionCount", [self.address, "pending"]), 16),
                "to": self.token,
                "value": 0,
                "data": TRANSFER + encode((*FIELDS.values(), "bytes"), astuple(authorization)),
                "gas": GAS,
                "maxFeePerGas": 3 * price,
                "maxPriorityFeePerGas": price // 10,
            }
        )
        return str(self.chain.rpc("eth_sendRawTransaction", ["0x" + signed.raw_transaction.hex()]))

    def outcome(self, tx_hash: str, authorization: Authorization) -> bool | None:
        """Tell whether a transaction moved these dollars; None while it is in no block."""
        receipt = self.chain.rpc("eth_getTransactionReceipt", [tx_hash])
        if receipt is None:
            return None
        topics = [ERC20_TRANSFER, word(authorization.sender), word(authorization.recipient)]
        return int(receipt["status"], 16) == 1 and any(
            log["address"].lower() == self.token.lower()
            and log["topics"] == topics
            and int(log["data"], 16) == authorization.value
            for log in receipt["logs"]
        )

    def _signer(self, authorization: Authorization) -> str:
        """Return who signed, by the name and version that the token gives itself; "" where nobody can have."""
        signable = encode_typed_data(
            {
                "name": self._name("name()"),
                "version": self._name("version()"),
                "chainId": self.chain_id,
                "verifyingContract": self.token,
            },
            TYPES,
            dict(zip(FIELDS, astuple(authorization), strict=False)),
        )
        return recovered(signable, authorization.signature)

    def _call(self, signature: str, kinds: tuple[str, ...] = (), values: tuple[Json, ...] = ()) -> bytes:
        data = bytes(keccak(text=signature)[:4]) + encode(kinds, values)
        return bytes.fromhex(self.chain.rpc("eth_call", [{"to": self.token, "data": "0x" + data.hex()}, "latest"])[2:])

    def _name(self, signature: str) -> str:
        try:
            return str(decode(["string"], self._call(signature))[0])
        except (DecodingError, RpcError) as wrong:
            raise Refused(
                400, "invalid_payment_requirements", "There is no such token.", "UNSUPPORTED_TOKEN"
            ) from wrong


def recovered(signable: Any, signature: bytes) -> str:
    """Return who signed a message of eth_account, in lower case; "" where nobody can have."""
    try:
        return str(Account.recover_message(signable, signature=signature)).lower()
    except (BadSignature, ValidationError, ValueError):
        return ""


def unverified(reason: str, detail: str) -> Refused:
    """Return the refusal of an authorization that the token would not take."""
    return Refused(400, f"invalid_exact_evm_{reason}", detail, UNVERIFIED)
