"""Do the contracts of the embedded world behave as the payment protocol's facts say?

Run on py-evm directly, without a node: gas costs nothing here, so balances tell the price alone. The last tests hold
the interfaces of `abi/` and the compiled artefacts against their sources.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from eth.constants import BLANK_ROOT_HASH
from eth.db.atomic import AtomicDB
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth.vm.spoof import SpoofTransaction
from eth_abi import decode
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_typing import BlockNumber, Hash32
from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from tests import tools
from tests.compile_contracts import ARTIFACTS, compile_contracts, render
from tests.sandbox.paying import (
    ENOUGH,
    ETH_USD,
    FEE_DESTINATION,
    HONEST,
    INTENT,
    NOW,
    OPERATOR,
    PAYER,
    PAYER_KEY,
    PRE_APPROVED,
    REAL,
    REAL_SIGNATURE,
    RECIPIENT,
    SWAP_FAILURES,
    TOO_MUCH,
    TOTAL,
    TRANSFERRED,
    Log,
    Outcome,
    World,
    abi,
    calldata,
    genesis,
    intent,
    quote_data,
    reason,
    selector_of,
    sign,
    signature_of,
    swap_data,
)
from tests.world.stage import AUTHORIZATION, authorized
from topup.sandbox import contracts as world
from topup.sandbox.charges import Draft


class Evm(World):
    """One block of the embedded world, to which calls are added one by one."""

    def __init__(self, accounts: dict[str, world.Account]) -> None:
        self._db = AtomicDB()
        self._enter(NOW, BLANK_ROOT_HASH)
        for address, account in accounts.items():
            raw = to_canonical_address(address)
            self.state.set_balance(raw, account.balance)
            self.state.set_nonce(raw, account.nonce)
            self.state.set_code(raw, account.code)
            for slot, value in account.storage.items():
                self.state.set_storage(raw, slot, value)

    def at(self, timestamp: int) -> None:
        """Go to that time in unix seconds; what was written stays."""
        self.state.persist()
        self._enter(timestamp, self.state.state_root)

    def _enter(self, timestamp: int, root: bytes) -> None:
        header = PragueBlockHeader(
            difficulty=0,
            block_number=BlockNumber(1),
            gas_limit=60_000_000,
            timestamp=timestamp,
            state_root=Hash32(root),
            base_fee_per_gas=0,
        )
        self.state = PragueVM.build_state(self._db, header, ChainContext(world.CHAIN_ID))

    def write(self, writes: Sequence[world.StorageWrite]) -> None:
        for address, slot, value in writes:
            self.state.set_storage(to_canonical_address(address), slot, value)

    def balance(self, address: str) -> int:
        return int(self.state.get_balance(to_canonical_address(address)))

    def storage(self, address: str, slot: int) -> int:
        return int(self.state.get_storage(to_canonical_address(address), slot))

    def fund(self, address: str, wei: int) -> None:
        self.state.set_balance(to_canonical_address(address), wei)

    def put_code(self, address: str, code: bytes) -> None:
        self.state.set_code(to_canonical_address(address), code)

    def send(self, to: str, data: bytes, *, sender: str = PAYER, value: int = 0, gas: int = 3_000_000) -> Outcome:
        """Run a transaction whose gas is free and keep what it changed."""
        account = to_canonical_address(sender)
        unsigned = PragueVM.create_unsigned_transaction(
            nonce=self.state.get_nonce(account),
            gas_price=0,
            gas=gas,
            to=to_canonical_address(to),
            value=value,
            data=data,
        )
        transaction: Any = SpoofTransaction(unsigned, from_=account)
        computation = self.state.apply_transaction(transaction)
        used = gas - computation.get_gas_remaining()
        used -= min(computation.get_gas_refund(), used // 5)
        logs = tuple(
            Log(str(to_checksum_address(address)), tuple(topics), data)
            for address, topics, data in computation.get_log_entries()
        )
        return Outcome(computation.is_success, computation.output, used, logs)

    def call(self, to: str, data: bytes, *, sender: str = PAYER, value: int = 0, gas: int = 3_000_000) -> Outcome:
        """Run a transaction and undo it."""
        before = self.state.snapshot()
        try:
            return self.send(to, data, sender=sender, value=value, gas=gas)
        finally:
            self.state.revert(before)

    def pay(self, draft: Draft = HONEST, *, value: int = ENOUGH, fee: int = 500, **more: Any) -> Outcome:
        return self.send(world.PAYMENT_PROTOCOL, swap_data(draft, fee), value=value, **more)


@pytest.fixture
def evm() -> Evm:
    return Evm(genesis(NOW - 60, l1_fee_per_byte=1_000, usdc={PAYER: 50_000_000}))


# The happy path


FIELDS = ["bytes16", "address", "address", "uint256", "address"]


def test_payment(evm: Evm) -> None:
    """Both parts arrive exactly, the rest of the ETH comes back, nothing stays in contract or router."""
    slot = world.processed_slot(OPERATOR, HONEST.id)
    assert evm.storage(world.PAYMENT_PROTOCOL, slot) == 0
    quoted = evm.quote()
    # ETH that lay in the router goes to the payer, and is no part of what was spent.
    evm.fund(world.UNIVERSAL_ROUTER, 12_345)
    outcome = evm.pay()
    assert reason(outcome) == "ok"
    assert evm.dollars(RECIPIENT) == HONEST.recipient_amount
    assert evm.dollars(FEE_DESTINATION) == HONEST.fee_amount
    assert evm.balance(PAYER) == 10**18 - quoted + 12_345
    assert evm.balance(world.PAYMENT_PROTOCOL) == evm.balance(world.UNIVERSAL_ROUTER) == 0
    assert evm.balance(HONEST.refund) == 0  # signed, and never read by the contract
    # A paid id is a 1 in the storage slot from which evidence is read.
    assert evm.storage(world.PAYMENT_PROTOCOL, slot) == 1
    # The last of eight logs names operator, id, recipient, sender, the ETH really spent, and ETH as its currency.
    assert len(outcome.logs) == 8
    last = outcome.logs[-1]
    assert last.address == world.PAYMENT_PROTOCOL
    assert last.topics == (int.from_bytes(TRANSFERRED, "big"), int(OPERATOR, 16))
    assert last.data[:16] == HONEST.id and len(last.data) == 5 * 32
    assert decode(FIELDS, last.data) == (HONEST.id, RECIPIENT.lower(), PAYER.lower(), quoted, "0x" + "00" * 20)


@pytest.mark.parametrize("fee", [500, 3000])
@pytest.mark.parametrize("total", [1_050_000, TOTAL, 2_100_000_000])
def test_quote_is_exact(evm: Evm, fee: int, total: int) -> None:
    """A payment of exactly the quote succeeds and spends all of it; one wei less reverts."""
    draft = replace(HONEST, recipient_amount=total - total // 100, fee_amount=total // 100)
    quoted = evm.quote(total, fee)
    short = evm.call(world.PAYMENT_PROTOCOL, swap_data(draft, fee), value=quoted - 1)
    assert reason(short) == "SwapFailedString(V3TooMuchRequested)"
    evm.pay(draft, value=quoted, fee=fee)
    assert evm.balance(PAYER) == 10**18 - quoted


def test_price(evm: Evm) -> None:
    """10.5 dollars at 3,000 through the 0.05 % pool cost what they cost on the real one: 0.0035017(5) ETH."""
    assert abs(evm.quote() - 3_501_750_000_000_000) < 10**10
    evm.write(world.eth_price(1_500 * 10**8))
    assert abs(evm.quote() - 2 * 3_501_750_000_000_000) < 2 * 10**10
    # A missing tier reverts without data; a pool that holds too little says that something is wrong.
    assert evm.call(world.QUOTER_V2, quote_data(TOTAL, 10_000)).output == b""
    evm.write(world.usdc_balance(world.POOLS[500], TOTAL - 1))
    assert reason(evm.call(world.QUOTER_V2, quote_data(TOTAL, 500))) == "Error(Unexpected error)"


def test_pre_approved(evm: Evm) -> None:
    """With dollars in hand the same intent is paid without a swap, once the contract may take them."""
    data = calldata(PRE_APPROVED, [INTENT], [intent(HONEST)])
    assert reason(evm.call(world.PAYMENT_PROTOCOL, data)) == f"InsufficientAllowance({TOTAL})"
    evm.write(world.usdc_balance(PAYER, TOTAL - 1))
    assert reason(evm.call(world.PAYMENT_PROTOCOL, data)) == "InsufficientBalance(1)"
    evm.write(world.usdc_balance(PAYER, TOTAL + 1))
    approve = calldata("approve(address,uint256)", ["address", "uint256"], [world.PAYMENT_PROTOCOL, TOTAL])
    assert evm.send(world.USDC, approve).ok
    outcome = evm.send(world.PAYMENT_PROTOCOL, data)
    assert reason(outcome) == "ok"
    assert evm.dollars(PAYER) == 1
    assert (evm.dollars(RECIPIENT), evm.dollars(FEE_DESTINATION)) == (HONEST.recipient_amount, HONEST.fee_amount)
    fields = decode(FIELDS, outcome.logs[-1].data)
    assert fields[3:] == (TOTAL, world.USDC.lower())
    assert reason(evm.pay()) == "AlreadyProcessed()"


# The checks, in their order


def test_reentrancy(evm: Evm) -> None:
    """The lock is the first check: it wins over a pause."""
    evm.write([world.StorageWrite(world.PAYMENT_PROTOCOL, 1, 2), *world.payments_paused(paused=True)])
    assert reason(evm.pay()) == "Error(ReentrancyGuard: reentrant call)"


def test_paused(evm: Evm) -> None:
    """A pause comes before the signature, and passes; so does one of the dollar."""
    evm.write(world.payments_paused(paused=True))
    assert evm.read(world.PAYMENT_PROTOCOL, "paused()", [], [], ["bool"]) is True
    assert reason(evm.pay(replace(HONEST, deadline=0))) == "Error(Pausable: paused)"
    evm.write(world.payments_paused(paused=False))
    evm.write([*world.usdc_paused(paused=True), *world.usdc_paused(paused=False)])
    assert evm.pay().ok


def high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s[:64], "Error(ECDSA: invalid signature length)"),
        (high_s, "Error(ECDSA: invalid signature 's' value)"),
        (lambda s: s[:64] + b"\x1d", "Error(ECDSA: invalid signature)"),
        (lambda s: bytes([s[0] ^ 1]) + s[1:], None),
    ],
)
def test_malformed_signature(evm: Evm, spoil: Callable[[bytes], bytes], words: str | None) -> None:
    """A malformed signature is refused in OpenZeppelin's words; a flipped bit in those or as another's signature."""
    data = swap_data(replace(HONEST, deadline=0), signature=spoil(sign(replace(HONEST, deadline=0))))
    said = reason(evm.call(world.PAYMENT_PROTOCOL, data, value=ENOUGH))
    assert said in ({words} if words else {"InvalidSignature()", "Error(ECDSA: invalid signature)"})


ALTERED: dict[str, Any] = {
    "recipient_amount": 1,
    "fee_amount": 1,
    "deadline": NOW + 7200,
    "recipient": FEE_DESTINATION,
    "currency": world.WETH,
    "refund": PAYER,
    "id": b"another sixteen!",
    "operator": PAYER,
    "prefix": b"K3 Informational Message: 32 ",
    "chain_id": 1,
    "sender": RECIPIENT,
    "contract": world.OLD_PAYMENT_PROTOCOL,
}


def test_altered_field(evm: Evm) -> None:
    """Whatever the signature covers cannot be changed after signing."""
    for field, value in ALTERED.items():
        other = replace(HONEST, **{field: value})
        data = swap_data(other, signature=sign(HONEST))
        if field in ("chain_id", "sender", "contract"):  # not in the calldata: sign over another one instead
            data = swap_data(HONEST, signature=sign(other))
        assert reason(evm.call(world.PAYMENT_PROTOCOL, data, value=ENOUGH)) == "InvalidSignature()", field
    # Without a prefix the signature is an EIP-191 one, and pays as well.
    assert reason(evm.pay(replace(HONEST, prefix=b""))) == "ok"


def test_deadline(evm: Evm) -> None:
    """The very second of the deadline still passes, the next does not."""
    evm.at(HONEST.deadline)
    assert evm.pay().ok
    assert reason(evm.pay()) == "AlreadyProcessed()"
    evm.at(HONEST.deadline + 1)
    assert reason(evm.pay(replace(HONEST, id=b"another sixteen!"))) == "ExpiredIntent()"
    # After its deadline a paid intent says Expired, not AlreadyProcessed: a call proves nothing, the slot does.
    assert reason(evm.pay()) == "ExpiredIntent()"
    assert evm.storage(world.PAYMENT_PROTOCOL, world.processed_slot(OPERATOR, HONEST.id)) == 1


def test_order_of_the_rest(evm: Evm) -> None:
    """Deadline, recipient, id, operator, currency: each is seen only when those before it are in order."""
    draft = replace(HONEST, deadline=0, recipient="0x" + "00" * 20, currency=world.WETH)
    evm.write([*world.processed(OPERATOR, HONEST.id), *world.fee_destination(OPERATOR, None)])
    assert reason(evm.pay(draft)) == "ExpiredIntent()"
    draft = replace(draft, deadline=NOW)
    assert reason(evm.pay(draft)) == "NullRecipient()"
    draft = replace(draft, recipient=RECIPIENT)
    assert reason(evm.pay(draft)) == "AlreadyProcessed()"
    evm.write(world.processed(OPERATOR, HONEST.id, paid=False))
    assert reason(evm.pay(draft)) == "OperatorNotRegistered()"
    evm.write(world.fee_destination(OPERATOR, FEE_DESTINATION))
    assert reason(evm.pay(draft)) == f"IncorrectCurrency({'0x' + '00' * 20})"
    assert reason(evm.pay(replace(draft, currency="0x" + "00" * 20))) == f"IncorrectCurrency({'0x' + '00' * 20})"
    assert evm.pay(replace(draft, currency=world.USDC)).ok


def test_registration(evm: Evm) -> None:
    """Any operator that is registered can sign and be paid: registration proves nothing about who signed."""
    key = PrivateKey(b"\x07" * 32)
    stranger = key.public_key.to_checksum_address()
    draft = replace(HONEST, operator=stranger)
    data = swap_data(draft, signature=sign(draft, key))
    assert reason(evm.call(world.PAYMENT_PROTOCOL, data, value=ENOUGH)) == "OperatorNotRegistered()"
    evm.write(world.fee_destination(stranger, stranger))
    assert evm.call(world.PAYMENT_PROTOCOL, data, value=ENOUGH).ok
    evm.write(world.fee_destination(stranger, None))
    assert reason(evm.call(world.PAYMENT_PROTOCOL, data, value=ENOUGH)) == "OperatorNotRegistered()"


# The swap's own failures


# What only our own pools can be made to do.
OWN_FAILURES = [
    (world.eth_price(2_000 * 10**8), ENOUGH, 500, TOO_MUCH),
    (world.usdc_balance(world.POOLS[500], TOTAL - 1), ENOUGH, 500, "SwapFailedString(V3InvalidAmountOut)"),
]


@pytest.mark.parametrize(("writes", "value", "fee", "words"), SWAP_FAILURES + OWN_FAILURES)
def test_swap_failures(evm: Evm, writes: list[world.StorageWrite], value: int, fee: int, words: str) -> None:
    """Each way in which a swap fails has its own words, and costs nothing but gas."""
    evm.write(writes)
    outcome = evm.pay(value=value, fee=fee)
    assert reason(outcome) == words
    assert evm.balance(PAYER) == 10**18
    assert evm.storage(world.PAYMENT_PROTOCOL, world.processed_slot(OPERATOR, HONEST.id)) == 0
    if words == TOO_MUCH:  # the bytes of the commonest failure are the ones seen on the published contract
        text = b"V3TooMuchRequested"
        padded = text.hex().ljust(64, "0")
        assert outcome.output.hex() == "8a627c16" + f"{32:064x}" + f"{len(text):064x}" + padded
    if words == "SwapFailedBytes(b'')":
        assert outcome.output.hex() == "917827e1" + f"{32:064x}" + f"{0:064x}"


def test_what_can_never_be_paid(evm: Evm) -> None:
    """An intent whose two parts go to one account can never arrive exactly."""
    assert reason(evm.pay(replace(HONEST, recipient=FEE_DESTINATION))) == "InexactTransfer()"
    # A currency that is no contract reverts without any data.
    outcome = evm.pay(replace(HONEST, currency="0x" + "CC" * 20))
    assert (outcome.ok, outcome.output) == (False, b"")
    # The contract takes no ETH that comes by itself.
    assert reason(evm.send(world.PAYMENT_PROTOCOL, b"", value=1)) == "Error(only payable for unwrapping)"


def test_contract_without_code(evm: Evm) -> None:
    """At an address without code the call succeeds, and the ETH is simply gone."""
    outcome = evm.send("0x" + "00" * 19 + "99", swap_data(HONEST), value=ENOUGH)
    assert outcome.ok and outcome.logs == ()
    assert evm.balance("0x" + "00" * 19 + "99") == ENOUGH
    # The older deployment takes an intent signed for it just as well.
    draft = replace(HONEST, contract=world.OLD_PAYMENT_PROTOCOL)
    assert evm.send(world.OLD_PAYMENT_PROTOCOL, swap_data(draft), value=ENOUGH).ok


def test_payer_that_refuses_ether(evm: Evm) -> None:
    """A payer that is a contract and takes no refund cannot pay with more than the exact price."""
    wallet = "0x" + "77" * 20
    # Without calldata revert, else forward calldata and value to the contract, and answer as it does.
    forward = (
        f"36600857 5f5ffd 00 5b 365f5f37 5f5f365f34 73{world.PAYMENT_PROTOCOL[2:]} 5af1 3d5f5f3e 603357 3d5ffd 5b3d5ff3"
    )
    evm.put_code(wallet, bytes.fromhex(forward))
    draft = replace(HONEST, sender=wallet)
    refused = evm.call(wallet, swap_data(draft), value=ENOUGH)
    assert reason(refused) == "SwapFailedString(ETH_TRANSFER_FAILED)"
    assert evm.call(wallet, swap_data(draft), value=evm.quote()).ok


def try_with(evm: Evm, gas: int) -> Outcome:
    return evm.call(world.PAYMENT_PROTOCOL, swap_data(HONEST), value=ENOUGH, gas=gas)


def test_gas_too_low(evm: Evm) -> None:
    """With too little gas the swap seems to meet a missing pool or a broken token: only the gas used tells."""
    enough = next(gas for gas in range(100_000, 600_000, 2_000) if try_with(evm, gas).ok)
    low = {reason(try_with(evm, gas)): gas for gas in range(90_000, enough, 4_000)}
    misleading = low.keys() & {"SwapFailedBytes(b'')", "SwapFailedString(TF)", "SwapFailedString(TRANSFER_FAILED)"}
    assert misleading
    for words in misleading:
        assert try_with(evm, low[words]).gas_used >= low[words] * 0.97


# The traps


def test_zero_total(evm: Evm) -> None:
    """An intent over nothing succeeds, marks its id, says it spent nothing, and keeps all the ETH for ever."""
    outcome = evm.pay(replace(HONEST, recipient_amount=0, fee_amount=0))
    assert outcome.ok
    assert evm.balance(PAYER) == 10**18 - ENOUGH
    assert evm.balance(world.PAYMENT_PROTOCOL) == ENOUGH
    assert decode(FIELDS, outcome.logs[-1].data)[3] == 0
    assert evm.storage(world.PAYMENT_PROTOCOL, world.processed_slot(OPERATOR, HONEST.id)) == 1


# The rest of the world


def read_feed(evm: Evm, feed: str) -> tuple[int, ...]:
    types = ["uint80", "int256", "uint256", "uint256", "uint80"]
    return tuple(evm.read(feed, "latestRoundData()", [], [], types))


def test_feeds(evm: Evm) -> None:
    """Prices are fresh and confirmed at every heartbeat; the sequencer has been up for a month."""
    assert read_feed(evm, world.ETH_USD_FEED) == (1, ETH_USD, NOW - 60, NOW - 60, 1)
    assert evm.read(world.ETH_USD_FEED, "decimals()", [], [], ["uint8"]) == 8
    since = NOW - 60 - world.SEQUENCER_UP_FOR
    assert read_feed(evm, world.SEQUENCER_FEED) == (1, 0, since, since, 1)
    evm.at(NOW - 60 + 3 * world.ETH_USD_HEARTBEAT + 5)
    assert read_feed(evm, world.ETH_USD_FEED)[3] == NOW - 60 + 3 * world.ETH_USD_HEARTBEAT
    # A feed can go stale, be wrong, carry an answer over, and report the sequencer down.
    evm.write([*world.feed_updated_at(world.ETH_USD_FEED, 5), *world.feed_answer(world.ETH_USD_FEED, -1)])
    evm.write(world.feed_round(world.ETH_USD_FEED, 9, 8))
    number, answer, _, updated, answered_in = read_feed(evm, world.ETH_USD_FEED)
    assert (number, answer, updated, answered_in) == (9, -1, 5, 8)
    evm.write(world.sequencer(up=False, since=NOW - 7))
    assert read_feed(evm, world.SEQUENCER_FEED)[1:3] == (1, NOW - 7)


def test_l1_fee(evm: Evm) -> None:
    """The upper bound, asked with the unsigned size, is never below the fee of those bytes."""
    for size in (0, 254, 255, 600, 5_000):
        fee = evm.read(world.GAS_PRICE_ORACLE, "getL1Fee(bytes)", ["bytes"], [b"\1" * size], ["uint256"])
        bound = evm.read(world.GAS_PRICE_ORACLE, "getL1FeeUpperBound(uint256)", ["uint256"], [size], ["uint256"])
        assert fee == 1_000 * (size + 68)
        assert bound == 1_000 * (size + size // 255 + 16 + 68)
    evm.write(world.l1_price(7))
    assert evm.read(world.GAS_PRICE_ORACLE, "getL1Fee(bytes)", ["bytes"], [b""], ["uint256"]) == 7 * 68


def test_supplies(evm: Evm) -> None:
    """Every dollar of the genesis is held by somebody, and every wrapped ether is backed."""
    holders = [*world.POOLS.values(), PAYER]
    supply = evm.read(world.USDC, "totalSupply()", [], [], ["uint256"])
    assert supply == sum(map(evm.dollars, holders))
    wrapped = [
        evm.read(world.WETH, "balanceOf(address)", ["address"], [pool], ["uint256"]) for pool in world.POOLS.values()
    ]
    assert evm.balance(world.WETH) == sum(wrapped)


def authorization(evm: Evm, valid_before: int = NOW + 60) -> tuple[list[Any], bytes]:
    values: list[Any] = [PAYER, RECIPIENT, 7_000_000, NOW - 60, valid_before, b"\5" * 32]
    message = authorized(values)
    assert evm.read(world.USDC, "DOMAIN_SEPARATOR()", [], [], ["bytes32"]) == message.header
    return values, bytes(Account.sign_message(message, PAYER_KEY.to_bytes()).signature)


WHOLE = f"transferWithAuthorization({','.join([*AUTHORIZATION.values(), 'bytes'])})"
SPLIT = f"transferWithAuthorization({','.join([*AUTHORIZATION.values(), 'uint8', 'bytes32', 'bytes32'])})"


@pytest.mark.parametrize("form", [SPLIT, WHOLE], ids=["v r s", "bytes"])
def test_authorized_transfer(evm: Evm, form: str) -> None:
    """Dollars move on a signature that anybody may hand in, once."""

    def handed(values: list[Any], signature: bytes) -> bytes:
        tail = [signature] if form == WHOLE else [signature[64], signature[:32], signature[32:64]]
        return calldata(form, form.partition("(")[2][:-1].split(","), [*values, *tail])

    # One that has expired, and one whose signature is another's, move nothing.
    expired = evm.call(world.USDC, handed(*authorization(evm, valid_before=NOW)))
    assert reason(expired) == "Error(FiatTokenV2: authorization is expired)"
    values, signature = authorization(evm)
    forged = evm.call(world.USDC, handed([*values[:2], values[2] + 1, *values[3:]], signature))
    assert reason(forged) == "Error(FiatTokenV2: invalid signature)"
    assert evm.send(world.USDC, handed(values, signature), sender=RECIPIENT).ok
    assert (evm.dollars(RECIPIENT), evm.dollars(PAYER)) == (7_000_000, 43_000_000)
    state = ("authorizationState(address,bytes32)", ["address", "bytes32"], [PAYER, b"\5" * 32], ["bool"])
    assert evm.read(world.USDC, *state) is True
    again = evm.send(world.USDC, handed(values, signature))
    assert reason(again) == "Error(FiatTokenV2: authorization is used or canceled)"


# A real charge, the interfaces, the artefacts


def test_real_charge(evm: Evm) -> None:
    """A charge that Coinbase signed on 27 February 2025 is accepted and paid, as it was on Base."""
    draft, signature = REAL, REAL_SIGNATURE
    evm.write(world.fee_destination(draft.operator, FEE_DESTINATION))
    evm.fund(draft.sender, ENOUGH)
    evm.at(draft.deadline - 60)
    data = swap_data(draft, signature=signature)
    assert reason(evm.send(world.PAYMENT_PROTOCOL, data, sender=draft.sender, value=ENOUGH)) == "ok"
    assert evm.dollars(draft.recipient) == 9_900


SELECTORS = {
    "InvalidSignature()": "8baa579f",
    "ExpiredIntent()": "0080add4",
    "NullRecipient()": "df99255c",
    "AlreadyProcessed()": "57eee766",
    "OperatorNotRegistered()": "25ec6c1f",
    "IncorrectCurrency(address)": "6453b66b",
    "SwapFailedString(string)": "8a627c16",
    "SwapFailedBytes(bytes)": "917827e1",
    "InexactTransfer()": "ee20c618",
    "InvalidNativeAmount(int256)": "b06a5d51",
    "InvalidTransferDetails()": "ed5c6561",
    "InsufficientBalance(uint256)": "92665351",
    "InsufficientAllowance(uint256)": "f96fb071",
    "NativeTransferFailed(address,uint256,bool,bytes)": "28688b55",
    "PermitCallFailed()": "06105145",
}


def test_errors_and_event_of_the_interface() -> None:
    """The interface names every error of the deployed contract, each with the selector seen there."""
    found = {signature_of(e): selector_of(e).hex() for e in abi("payment_protocol") if e["type"] == "error"}
    assert found == SELECTORS
    # Transferred has six fields, of which only the operator is indexed.
    (event,) = [entry for entry in abi("payment_protocol") if entry["name"] == "Transferred"]
    assert keccak(text=signature_of(event)).hex() == "b7ee4fafa10d16ee883a136a3dcc9179d8e6041ba71cc29c2b0bce4f7bdd6e86"
    assert [field["name"] for field in event["inputs"] if field["indexed"]] == ["operator"]


UNUSED = {"InvalidNativeAmount", "InvalidTransferDetails", "NativeTransferFailed", "PermitCallFailed"}


@pytest.mark.parametrize(
    ("interface", "contract", "only_elsewhere"),
    [
        (
            "payment_protocol",
            "PaymentProtocol",
            UNUSED
            | {"OwnershipTransferred", "OperatorRegistered", "OperatorUnregistered", "Paused", "Unpaused"}
            | {"pause", "unpause", "registerOperator", "registerOperatorWithFeeDestination", "unregisterOperator"},
        ),
        ("quoter_v2", "QuoterV2", set()),
        ("erc20", "Usdc", set()),
        ("gas_price_oracle", "GasPriceOracle", set()),
        ("aggregator_v3", "Feed", set()),
    ],
)
def test_interfaces_fit_the_contracts(interface: str, contract: str, only_elsewhere: set[str]) -> None:
    """Everything an interface names is in our contract too, but for what other methods of the original use."""

    def facts(entries: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
        return {
            (entry["type"], signature_of(entry)): (
                [field.get("indexed") for field in entry["inputs"]],
                [field["type"] for field in entry.get("outputs", [])],
                entry.get("stateMutability"),
            )
            for entry in entries
            if entry["type"] in {"function", "event", "error"}
        }

    ours = facts(json.loads(ARTIFACTS.read_text())[contract]["abi"])
    wanted = facts([entry for entry in abi(interface) if entry["name"] not in only_elsewhere])
    constants = {key: (*value[:2], "view") for key, value in ours.items() if value[2] == "pure"}
    assert wanted.items() <= (ours | constants).items()


def test_artifacts_are_what_the_source_compiles_to() -> None:
    """The committed bytes are the compiler's, to the byte: `python -m tests.compile_contracts` writes them anew."""
    node, solc = tools.require("node"), tools.require("solc")
    assert render(compile_contracts(str(node), solc)) == ARTIFACTS.read_text()
