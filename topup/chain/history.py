"""What has this wallet done? Its nonce at a block, the block of a nonce, and one of its transactions in full.

A node keeps no index by sender: without the hash, a transaction is found by bisecting the wallet's nonce over the
blocks, which needs a node that still has their state.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils.crypto import keccak

from topup.accounting.reconciliation import WalletTransaction
from topup.chain.blocks import CHAIN_ID, FINAL, ether_query, head, nonce_query, numbered, right_chain, shown
from topup.chain.contracts import TRANSFER, arguments, transferred
from topup.chain.fees import fallen, l1_fee_shown, l1_fee_told, paid_per_gas
from topup.chain.profiles import Profile
from topup.chain.providers import StateGone
from topup.chain.rpc import Answer, Query, Rpc, RpcError, count, known, quantity, unhex, unhexed
from topup.domain.errors import ChainUnknown
from topup.domain.lifecycle import NO_TOKENS, Inclusion, Kind, Plan
from topup.domain.money import Asset, Usdc, Wei
from topup.ports.chain import Head

# An L1 data fee that only the balance shows is believed up to this; Base's are a thousandth of it.
L1_FEE_BELIEVED: Final = Wei(10**15)
# What nodes say that have thrown old state away, in lower case.
NO_STATE: Final = (
    "missing trie node",
    "state not available",
    "state is not available",
    "no state",
    "pruned",
    "archive",
    "historical state",
    "old state",
    "header not found",
    "block is out of range",
)
# What the contract calls ETH where it names a currency.
NATIVE: Final = bytes(20)


async def standing(rpc: Rpc, chain_id: int, wallet: bytes) -> tuple[int, int]:
    """Return how far the chain is final by one provider, and the wallet's nonce at the newest block."""
    spoken, final, nonce = await rpc.batch([CHAIN_ID, FINAL, nonce_query(wallet, "latest")])
    right_chain(rpc, spoken, chain_id)
    return shown(rpc, final, "final block").number, count(known(nonce, "the nonce"), "the nonce", bare=True)


async def nonce_at(rpc: Rpc, wallet: bytes, number: int) -> int:
    """Return the wallet's nonce after block `number`."""
    return count(await _ask(rpc, nonce_query(wallet, number)), "the nonce", bare=True)


async def balance_at(rpc: Rpc, wallet: bytes, number: int) -> Wei:
    """Return the wallet's balance after block `number`."""
    return Wei(quantity(await _ask(rpc, ether_query(wallet, number)), "the balance", bare=True))


async def block_of_nonce(rpc: Rpc, wallet: bytes, nonce: int, low: int, high: int) -> int:
    """Return the block in which `nonce` was taken, which is above `low` and at most `high`.

    Raises:
        StateGone: the provider lacks the state of a block in between.
        ChainUnknown: it did not say, or `high` is too early.
    """
    if await nonce_at(rpc, wallet, high) <= nonce:
        raise ChainUnknown(f"{rpc.host}: nonce {nonce} is not taken at block {high}")

    async def taken(number: int) -> bool:
        return await nonce_at(rpc, wallet, number) > nonce

    return await _first(low, high, taken)


async def first_block_at(rpc: Rpc, timestamp_s: int, high: int) -> int:
    """Return the first block at or after a unix time, at most `high`."""

    async def reached(number: int) -> bool:
        return head(await _ask(rpc, numbered(number))).timestamp_s >= timestamp_s

    return await _first(-1, high, reached)


async def _first(low: int, high: int, holds: Callable[[int], Awaitable[bool]]) -> int:
    """Return the first block above `low` of which it holds, as of all that follow, up to `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if await holds(middle) else (middle, high)
    return high


async def hash_at_nonce(rpc: Rpc, wallet: bytes, nonce: int, number: int) -> bytes | None:
    """Return the transaction of the wallet with this nonce in block `number`; None when another's took the nonce.

    An authorization to act for the wallet (EIP-7702) takes a nonce without a transaction of its own.
    """
    block = await _ask(rpc, ("eth_getBlockByNumber", [hex(number), True]))
    listed = block.get("transactions") if isinstance(block, dict) else None
    if not isinstance(listed, list):
        raise ChainUnknown(f"{rpc.host}: block {number} lists no transactions")
    for sent in listed:
        if not isinstance(sent, dict):
            raise ChainUnknown(f"{rpc.host}: block {number} lists hashes where transactions were asked for")
        if unhexed(sent.get("from")) == wallet and count(sent.get("nonce"), "a nonce") == nonce:
            return unhex(sent.get("hash"), "a hash")
    return None


async def transaction(
    rpc: Rpc, profile: Profile, tx_hash: bytes, wallet: bytes, final: int
) -> WalletTransaction | None:
    """Read one transaction of the wallet in full; None when no canonical block up to `final` holds it."""
    named = "0x" + tx_hash.hex()
    sent, receipt = await rpc.batch([("eth_getTransactionByHash", [named]), ("eth_getTransactionReceipt", [named])])
    sent, receipt = known(sent, "a transaction"), known(receipt, "a receipt")
    if not isinstance(sent, dict) or not isinstance(receipt, dict) or not receipt.get("blockHash"):
        return None
    number = count(receipt.get("blockNumber"), "the receipt's block")
    if number > final:
        return None
    if unhexed(sent.get("from")) != wallet:
        raise ChainUnknown(f"{rpc.host}: {named} was sent by {str(sent.get('from'))[:42]}, not by the wallet")
    before_it, after_it = ether_query(wallet, max(0, number - 1)), ether_query(wallet, number)
    stood, before, after = await rpc.batch([numbered(number), before_it, after_it])
    block = known(stood, "a block")
    at = head(block)
    if at.hash != unhex(receipt["blockHash"], "a block hash"):
        return None
    # Older forms name one price, which is all that they pay.
    max_fee, tip = (
        Wei(quantity(sent.get(name) or sent.get("gasPrice"), name)) for name in ("maxFeePerGas", "maxPriorityFeePerGas")
    )
    price = paid_per_gas(receipt, block, (max_fee, tip))
    if price is None:
        raise ChainUnknown(f"{rpc.host}: neither receipt nor block tells what gas has cost")
    gas = price.times(count(receipt.get("gasUsed"), "gasUsed"))
    return _done(sent, receipt, at, tx_hash, (wallet, profile), (max_fee, tip, gas, before, after))


def _done(
    sent: dict[str, Any],
    receipt: dict[str, Any],
    at: Head,
    tx_hash: bytes,
    parties: tuple[bytes, Profile],
    costs: tuple[Wei, Wei, Wei, Answer, Answer],
) -> WalletTransaction:
    (wallet, profile), (max_fee, tip, gas, before, after) = parties, costs
    events = [e for e in transferred(receipt, profile.contract) if bytes.fromhex(e["sender"][2:]) == wallet]
    success = quantity(receipt.get("status"), "the receipt's status") == 1
    spent = sum((Wei(int(e["spentAmount"])) for e in events if _currency(e) == NATIVE), Wei(0))
    value, data = Wei(quantity(sent.get("value"), "the value")), unhex(sent.get("input"), "the call data")
    to = unhex(sent["to"], "the receiver") if sent.get("to") else b""
    moved = Wei(0) if not success else spent if events else value
    tokens = _tokens_out(receipt, profile.currency, wallet) if success else NO_TOKENS
    l1_fee = l1_fee_told(receipt)
    if l1_fee is None:
        l1_fee, _ = l1_fee_shown(fallen(before, after), gas + moved, None, L1_FEE_BELIEVED)
    paid = _paid(data, profile.currency) if to == profile.contract and len(events) == 1 else None
    if paid is not None and not _as_said(paid, events[0], profile.currency, tokens):
        paid = None
    allowed = _allowed(data, profile.contract) if to == profile.currency and success and not events else None
    in_tokens = allowed is not None or (paid is not None and paid.asset is Asset.USDC)
    plan = Plan(
        kind=Kind.PAY if allowed is None else Kind.APPROVE,
        to=to,
        data=data,
        value=value,
        gas_limit=count(sent.get("gas"), "the gas limit"),
        max_fee_per_gas=max_fee,
        max_priority_fee_per_gas=tip,
        l1_fee=l1_fee,
        lane=0,
        nonce=count(sent.get("nonce"), "the nonce"),
        chain_id=count(sent["chainId"], "the chain id") if sent.get("chainId") else 0,
        quote=spent,
        tier=paid.tier if paid is not None else 0,
        block_number=max(0, at.number - 1),
        proof="the chain",
        asset=Asset.USDC if in_tokens else Asset.ETH,
        tokens=allowed if allowed is not None else tokens if in_tokens else NO_TOKENS,
    )
    inclusion = Inclusion(at.number, at.hash, at.timestamp_s * 1000, success, gas, l1_fee, spent, tokens=tokens)
    intent, total = (paid.intent, paid.total) if paid is not None else (None, None)
    return WalletTransaction(plan, tx_hash, _signed(sent, tx_hash, wallet), inclusion, intent, total, len(events))


@dataclass(frozen=True)
class _Paid:
    """What call data of the payment contract says: which charge, what arrives, in what, and through which pool."""

    intent: tuple[bytes, bytes]
    total: Usdc
    asset: Asset
    tier: int


def _paid(data: bytes, currency: bytes) -> _Paid | None:
    """Read call data of the payment contract; None for what pays no charge in dollars."""
    swap = arguments("payment_protocol", "swapAndTransferUniswapV3Native", data)
    called = swap or arguments("payment_protocol", "transferTokenPreApproved", data)
    if called is None:
        return None
    amount, _, _, token, _, fee, intent_id, operator, _, _ = called[0]
    if bytes.fromhex(token[2:]) != currency:
        return None  # not dollars
    intent, total = (bytes.fromhex(operator[2:]), bytes(intent_id)), Usdc(amount + fee)
    return _Paid(intent, total, Asset.USDC, 0) if swap is None else _Paid(intent, total, Asset.ETH, int(swap[1]))


def _as_said(paid: _Paid, event: dict[str, Any], currency: bytes, tokens: Usdc) -> bool:
    if paid.intent != (bytes.fromhex(event["operator"][2:]), bytes(event["id"])):
        return False
    if paid.asset is Asset.ETH:
        return _currency(event) == NATIVE
    return _currency(event) == currency and Usdc(int(event["spentAmount"])) == paid.total == tokens


def _currency(event: dict[str, Any]) -> bytes:
    return bytes.fromhex(event["spentCurrency"][2:])


def _allowed(data: bytes, contract: bytes) -> Usdc | None:
    called = arguments("erc20", "approve", data)
    return Usdc(int(called[1])) if called is not None and bytes.fromhex(called[0][2:]) == contract else None


def _tokens_out(receipt: dict[str, Any], currency: bytes, wallet: bytes) -> Usdc:
    wanted = ["0x" + TRANSFER.hex(), "0x" + wallet.rjust(32, b"\0").hex()]
    out = 0
    for log in receipt["logs"]:
        topics = log.get("topics")
        if not isinstance(topics, list) or unhexed(log.get("address")) != currency:
            continue
        if [str(t).lower() for t in topics[:2]] == wanted:
            out += int.from_bytes(unhex(log.get("data"), "an amount"), "big")
    return Usdc(out)


def _signed(sent: dict[str, Any], tx_hash: bytes, wallet: bytes) -> bytes | None:
    """Rebuild the signed bytes and prove them by hash and signature; None for kinds unknown here.

    Raises:
        ChainUnknown: the wallet did not sign this: the provider does not tell the truth.
    """

    def number(name: str) -> int:
        return quantity(sent.get(name), name)

    kind = number("type") if sent.get("type") is not None else 0
    to = unhex(sent["to"], "the receiver") if sent.get("to") else b""
    body: list[Any] = [number("gas"), to, number("value"), unhex(sent.get("input"), "the call data")]
    parity = number("yParity") if sent.get("yParity") is not None else number("v")
    head_of, ends, last = b"", [], parity
    if kind == 0:
        # EIP-155 signs the chain id too, and hides it in v; without it v is 27 or 28.
        body = [number("nonce"), number("gasPrice"), *body]
        last = number("v")
        ends = [(last - 35) // 2, 0, 0] if last >= 35 else []
        parity = (last - 35) % 2 if last >= 35 else last - 27
    elif kind in (1, 2):
        fees = [number("gasPrice")] if kind == 1 else [number("maxPriorityFeePerGas"), number("maxFeePerGas")]
        body = [number("chainId"), number("nonce"), *fees, *body, _accesses(sent.get("accessList") or [])]
        head_of = bytes([kind])
    else:
        return None
    r, s = number("r"), number("s")
    raw: bytes = head_of + rlp.encode([*body, last, r, s])
    if keccak(raw) != tx_hash:
        raise ChainUnknown("a transaction's fields do not have its hash")
    if _signer(keccak(head_of + rlp.encode([*body, *ends])), (parity, r, s)) != wallet:
        raise ChainUnknown("a transaction was not signed by the wallet")
    return raw


def _accesses(listed: object) -> list[Any]:
    try:
        return [[unhex(a["address"], "an address"), [unhex(k, "a key") for k in a["storageKeys"]]] for a in listed]  # type: ignore[attr-defined]
    except (KeyError, TypeError):
        raise ChainUnknown("an access list cannot be read") from None


def _signer(digest: bytes, vrs: tuple[int, int, int]) -> bytes | None:
    try:
        return Signature(vrs=vrs).recover_public_key_from_msg_hash(digest).to_canonical_address()
    except (BadSignature, ValidationError):
        return None


async def _ask(rpc: Rpc, query: Query) -> Any:
    method, params = query
    try:
        return await rpc.read(method, *params)
    except RpcError as error:
        failure = f"{rpc.host}: {method}: {error.message}"
        gone = any(words in error.message.lower() for words in NO_STATE)
        raise (StateGone if gone else ChainUnknown)(failure) from None
