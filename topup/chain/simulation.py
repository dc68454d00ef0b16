"""What would this payment do? A dry run on a pinned block, judged at the boundary where the node can show it.

eth_call proves that it does not revert, nothing more. Where the node offers eth_simulateV1, the effects are held
against the charge: our ETH falls by no more than the value, no token or approval of ours changes, recipient and
fee parts arrive exactly, and one Transferred event carries our id and sender.

An approval is run with the payment that it is for: after it in eth_simulateV1, and by eth_call on a state in which the
token's slot says that it stands. That state is believed only where the token itself then answers with what was written.
"""

from dataclasses import dataclass, field
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.chain.blocks import CHAIN_ID, numbered, right_chain, same_block
from topup.chain.contracts import APPROVAL, TRANSFER, encode, known_word, returned, transferred
from topup.chain.preflight import call, reason
from topup.chain.profiles import Profile
from topup.chain.reverts import decoded, said_paused, whose_pause
from topup.chain.rpc import Answer, Query, Rpc, RpcError, count, quantity, unhex, unhexed
from topup.domain.coinbase_charge import Charge
from topup.domain.errors import ChainError, ChainUnknown, PaymentForbidden, Reverted
from topup.domain.money import Usdc, Wei
from topup.domain.reasons import Reason
from topup.ports.chain import UNTRIED, Call, Head, Simulation

# What signature and envelope add to the call data of a signed transaction, generously (measured: about 120 bytes).
ENVELOPE_BYTES = 200
# The pseudo-token under which eth_simulateV1 reports movements of ETH itself.
ETHER = "0x" + "ee" * 20


async def simulate(rpc: Rpc, profile: Profile, payment: Call, demand: Charge, at: Head) -> Simulation:
    """Run the payment dry; see `_simulated`. Where something is paused, ask who it is before it is said."""
    try:
        return await _simulated(rpc, profile, payment, demand, at)
    except Reverted as error:
        if not said_paused(error):
            raise
        try:
            data = encode("payment_protocol", "paused")  # the token's function has the same name
            answers = await rpc.batch([call(asked, data, at.number) for asked in (profile.contract, profile.currency)])
        except ChainError:
            raise error from None
        contract, token = map(_flag, answers)
        raise whose_pause(error, contract=contract, token=token) from None


def _flag(answer: Answer) -> bool | None:
    try:
        return bool(returned(["bool"], answer, "paused()")[0])
    except ChainError:
        return None


async def _simulated(rpc: Rpc, profile: Profile, payment: Call, demand: Charge, at: Head) -> Simulation:
    """Run the payment dry on block `at`, or an approval and the payment that it is for.

    Raises:
        Reverted: it would fail, or that payment would; with the contract's reason.
        PaymentForbidden: it would succeed and do something else than pay this charge.
    """
    answers = await rpc.batch(questions(profile, payment, at))
    right_chain(rpc, answers[3], profile.chain_id)
    same_block(rpc, answers[4], at)
    for answer in answers[:2]:
        if isinstance(answer, RpcError):
            raise reason(answer)
    l1_fee = Wei(known_word(answers[5], "the L1 fee"))
    tried = payment.then is None or not isinstance(answers[2], RpcError)
    if payment.then is not None and unhexed(answers[-2]) == bytes.fromhex(_word(payment.approves)):
        tried = True
        if isinstance(answers[-1], RpcError):
            raise reason(answers[-1])
    proof = _effects(answers[2], payment, demand) + ("" if tried else UNTRIED)
    return Simulation(count(answers[1], "the gas estimate"), l1_fee, proof)


def questions(profile: Profile, payment: Call, at: Head) -> list[Query]:
    """Return what a dry run on block `at` asks, in this order: call, gas, effects, chain, block, and the L1 fee."""
    body, bodies = _body(payment), [_body(sent) for sent in _run(payment)]
    queries: list[Query] = [
        ("eth_call", [body, hex(at.number)]),
        ("eth_estimateGas", [body, hex(at.number)]),
        ("eth_simulateV1", [{"blockStateCalls": [{"calls": bodies}], "traceTransfers": True}, hex(at.number)]),
        CHAIN_ID,
        numbered(at.number),
        l1_fee_query(profile.gas_oracle, len(payment.data) + ENVELOPE_BYTES, at.number),
    ]
    if payment.then is not None:
        queries += _as_if(profile, payment, payment.then, at)
    return queries


def l1_fee_query(gas_oracle: bytes, size: int, at: int | str) -> Query:
    """Ask for the most that a transaction of so many bytes pays for its data on L1."""
    return call(gas_oracle, encode("gas_price_oracle", "getL1FeeUpperBound", size), at)


def _run(payment: Call) -> list[Call]:
    return [payment] if payment.then is None else [payment, payment.then]


def _body(sent: Call) -> dict[str, str]:
    return {
        "from": "0x" + sent.sender.hex(),
        "to": "0x" + sent.to.hex(),
        "data": "0x" + sent.data.hex(),
        "value": hex(sent.value.units),
    }


def _as_if(profile: Profile, approval: Call, payment: Call, at: Head) -> list[Query]:
    """Ask what the token says is allowed, and what the payment does, where the approval's slot is written already.

    A node that knows no such third parameter ignores or refuses it, a token that keeps it elsewhere answers otherwise.
    """
    owner = keccak(approval.sender.rjust(32, b"\0") + profile.allowance_slot.to_bytes(32, "big"))
    slot = keccak(payment.to.rjust(32, b"\0") + owner)
    written = {"0x" + approval.to.hex(): {"stateDiff": {"0x" + slot.hex(): "0x" + _word(approval.approves)}}}
    parties = (to_checksum_address(approval.sender), to_checksum_address(payment.to))
    _, (read, _) = call(approval.to, encode("erc20", "allowance", *parties), at.number)
    return [
        ("eth_call", [read, hex(at.number), written]),
        ("eth_call", [_body(payment), hex(at.number), written]),
    ]


def _word(units: Usdc | None) -> str:
    return f"{units.units if units is not None else 0:064x}"


@dataclass
class Effects:
    """What the simulated logs add up to for one wallet: wei out, units in by holder, and its own tokens touched."""

    outflow: int = 0
    tokens: int = 0
    approved: list[tuple[bytes, int]] = field(default_factory=list)
    arrived: dict[bytes, int] = field(default_factory=dict)
    amounts: list[tuple[bytes, int]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def add(self, log: dict[str, Any], me: bytes, currency: bytes, paying: Usdc | None) -> None:
        """Count one log; `paying` is None where no dollar of ours may move."""
        topics = [str(t).lower() for t in log.get("topics", [])]
        # Three topics are a token's, four (with the id) a collectible's.
        event = unhexed(topics[0]) if len(topics) >= 3 else None
        if event not in (TRANSFER, APPROVAL):
            return
        token = str(log["address"]).lower()
        source, target = bytes.fromhex(topics[1][-40:]), bytes.fromhex(topics[2][-40:])
        units = int.from_bytes(unhex(log["data"], "a log")[:32], "big")
        if event == TRANSFER and token == ETHER:
            self.outflow += units * ((source == me) - (target == me))
        elif token != "0x" + currency.hex():
            if me in (source, target):
                self.touched.append(token)
        elif event == APPROVAL:
            if source == me:
                self.approved.append((target, units))
        else:
            self.tokens += units * ((source == me) - (target == me))
            if me in (source, target) and paying is None:
                self.touched.append(token)
            self.arrived[target] = self.arrived.get(target, 0) + units
            self.amounts.append((target, units))


def _effects(answer: Answer, payment: Call, demand: Charge) -> str:
    if isinstance(answer, RpcError):
        return "eth_call"  # the node knows no eth_simulateV1
    for index, sent in enumerate(_run(payment)):
        try:
            result = answer[0]["calls"][index]
            status, failed = quantity(result["status"], "the simulated status"), result.get("error") or {}
            effects, logs = Effects(), result["logs"] if status == 1 else []
            for log in logs:
                effects.add(log, sent.sender, demand.intent.recipient_currency, sent.tokens)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise ChainUnknown("eth_simulateV1 answered in an unknown form") from None
        if status != 1 and index:
            raise decoded(unhex(failed.get("data") or "0x", "a revert"))
        if status != 1:
            raise ChainUnknown("eth_simulateV1 reverts where eth_call does not")
        _own(effects, sent, demand.contract)
        if sent.approves is None:
            _pays(effects, logs, sent, demand)
    return "eth_simulateV1"


def _pays(effects: Effects, logs: list[dict[str, Any]], payment: Call, demand: Charge) -> None:
    """Judge what would arrive: recipient and fee parts exactly, and one event that says so."""
    intent = demand.intent
    arrived = effects.arrived.get(intent.recipient, 0)
    if arrived != intent.recipient_amount:
        _forbid(f"the recipient would receive {arrived} units, not {intent.recipient_amount}")
    if intent.fee_amount and not any(u == intent.fee_amount and t != intent.recipient for t, u in effects.amounts):
        _forbid(f"nobody would receive the fee part of {intent.fee_amount} units")
    if [is_payment(e, demand) for e in transferred({"logs": logs}, payment.to)] != [True]:
        _forbid("there would not be exactly one Transferred event with this id, operator, recipient and sender")


def _own(effects: Effects, payment: Call, contract: bytes) -> None:
    """Judge what would become of the wallet's own money: exactly what was meant, and nothing else."""
    wanted = [] if payment.approves is None else [(contract, payment.approves.units)]
    if effects.touched or (effects.approved and not wanted):
        where = effects.touched[0] if effects.touched else "its dollars"
        _forbid(f"it would move or approve a token of the wallet at {where}")
    if effects.approved != wanted:
        _forbid(f"it would not approve {payment.approves} to the payment contract")
    if effects.outflow > payment.value.units:
        _forbid(f"{Wei(effects.outflow)} would leave the wallet, more than the value of {payment.value}")
    due = payment.tokens or Usdc(0)
    if effects.tokens != due.units:
        _forbid(f"{Usdc(effects.tokens)} would leave the wallet, not {due}")


def is_payment(event: dict[str, Any], demand: Charge) -> bool:
    """Tell whether the arguments of a Transferred event say that this demand was paid by its sender."""
    intent = demand.intent
    return (
        bytes(event["id"]) == intent.id
        and bytes.fromhex(event["operator"][2:]) == intent.operator
        and bytes.fromhex(event["recipient"][2:]) == intent.recipient
        and bytes.fromhex(event["sender"][2:]) == demand.sender
    )


def _forbid(what: str) -> None:
    raise PaymentForbidden(Reason.SIMULATION, what, remedy="do not pay it; see docs/security.md")
