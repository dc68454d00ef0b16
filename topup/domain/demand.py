"""Is this demand exactly what was asked for? `prove` decides, for every rail.

Pure: the demand, the request, the bounds and the clocks come in; a `Verified` or a `ChargeRefused` that names the field
comes out. Only `prove` can build a `Verified`, and only a `Verified` can be quoted, signed and paid. What a rail alone
can judge, it hands to `prove` line by line; what holds for every rail is judged after it in any case.

Hashing is loaded by the first proof: the types of this module are wanted by commands and by an idle daemon that never
prove anything.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import InitVar, dataclass, replace
from itertools import chain as chained
from typing import Final, Protocol, final

from topup.domain.errors import ChargeRefused
from topup.domain.money import Bps, Usd, Usdc

# The fields that name until when a charge can be paid: one that was right may grow too old.
DEADLINES: Final = frozenset({"call_data.deadline", "expires"})


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
    def charge_id(self) -> str: ...
    @property
    def chain_id(self) -> int: ...
    @property
    def contract(self) -> bytes: ...
    @property
    def sender(self) -> bytes: ...
    @property
    def identity(self) -> tuple[bytes, bytes]: ...
    @property
    def total(self) -> Usdc: ...
    @property
    def fee(self) -> Usdc: ...
    @property
    def recipient(self) -> bytes: ...
    @property
    def deadline(self) -> int: ...


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
class Clocks:
    """The time as the chain's newest block and this machine tell it, in seconds; both must say it is early."""

    chain_s: int
    local_s: int


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

    def refusal(self) -> ChargeRefused:
        """Return the refusal of a demand in which this is wrong."""
        return ChargeRefused(self.field, self.was, self.should_be, remedy=self.remedy)


class _Seal:
    """Only this module holds one."""


_SEAL: Final = _Seal()


@final
@dataclass(frozen=True)
class Verified:
    """A demand that `prove` has held against request, bounds and clocks. Nothing else can build one.

    The seal is shown to the constructor and not kept, so that `dataclasses.replace` cannot carry it over.
    """

    demand: Demand
    request: Request
    seal: InitVar[_Seal]

    def __post_init__(self, seal: _Seal) -> None:
        if seal is not _SEAL:
            raise TypeError("only topup.domain.demand.prove can build a Verified")

    @property
    def total(self) -> Usdc:
        """Return what has to be paid."""
        return self.demand.total


def prove(
    demand: Demand,
    request: Request,
    bounds: Bounds,
    clocks: Clocks,
    findings: Iterable[Finding],
    *,
    seen: Collection[tuple[bytes, bytes]],
) -> Verified:
    """Hold a demand against what was asked for: what only its rail can judge first, then what holds for every rail.

    `bounds` are known beforehand of the other side; `seen` are the identities that other charges carried before it.

    Raises:
        ChargeRefused: naming the first field that is not as it should be.
    """
    # One after the other: what is judged later may be computed only of what was right so far.
    for finding in chained(findings, common(demand, request, bounds, clocks)):
        if not finding.right:
            raise finding.refusal()
    if demand.identity in seen:
        remedy = "ask again; report to the seller if it stays"
        raise ChargeRefused("id", demand.charge_id, "an id never seen before", remedy=remedy)
    return Verified(demand, request, _SEAL)


def common(demand: Demand, request: Request, bounds: Bounds, clocks: Clocks) -> Iterator[Finding]:
    """Yield what is judged of every rail's demand, line by line, each with the setting that decides it."""
    chain = (str(demand.chain_id), str(request.chain_id))
    yield Finding("chain id", *chain, chain[0] == chain[1], "nothing: topup pays this seller on that chain only")
    yield address("sender", demand.sender, [request.sender], "ask again: it was asked for by another wallet")
    yield address("token", demand.contract, [bounds.contract], "nothing: topup pays this seller in that token only")
    recipient = demand.recipient
    if bounds.recipients is not None:
        remedy = f"find out why before you pin another: {bounds.setting('recipients')} decides"
        yield address("recipient", recipient, bounds.recipients, remedy)
    strange = recipient in (b"\x00" * 20, demand.sender, demand.contract)
    should_be = "neither null, nor this wallet, nor the token itself"
    yield Finding(
        "recipient", checksummed(recipient), should_be, not strange, "tell the seller: nobody is paid by this"
    )
    ceiling = f"raise {bounds.setting('fee_ceiling_bps')} only if the seller documents such a fee"
    yield amount("amount", str(demand.total), demand.total, request, bounds, ceiling)
    for left, finding in lifetimes("expires", demand.deadline, bounds, clocks):
        decides = bounds.setting("life_max_s" if left > bounds.life_max_s else "life_min_s")
        yield replace(finding, remedy=f"check this machine's clock; {decides} is the bound")


def address(field: str, was: bytes, allowed: Collection[bytes], remedy: str = "") -> Finding:
    """Judge whether an address is one of those that are allowed."""
    names = " or ".join(map(checksummed, sorted(allowed))) or "pinned first (nothing is pinned)"
    return Finding(field, checksummed(was), names, was in allowed, remedy)


def amount(field: str, was: str, total: Usdc, request: Request, bounds: Bounds, remedy: str = "") -> Finding:
    """Judge whether a total pays for what was asked for, and for no more than the seller's fee beside it."""
    least, most = request.amount.usdc_up(), request.amount.plus_bps(bounds.fee_ceiling).usdc_up()
    should_be = f"between {least} and {most} for {request.amount} dollars of credit"
    return Finding(field, was, should_be, Usdc(1) <= least <= total <= most, remedy)


def lifetimes(field: str, deadline: int, bounds: Bounds, clocks: Clocks) -> Iterator[tuple[int, Finding]]:
    """Judge by each clock how long a demand can still be paid; yield the seconds beside each judgement."""
    should_be = f"between {bounds.life_min_s} and {bounds.life_max_s} s away"
    for name, now_s in (("the chain's", clocks.chain_s), ("this machine's", clocks.local_s)):
        left = deadline - now_s
        in_time = bounds.life_min_s <= left <= bounds.life_max_s
        yield left, Finding(field, f"{left} s away by {name} clock", should_be, in_time)


def checksummed(address: bytes) -> str:
    """Write an address as people compare it (ERC-55)."""
    from eth_hash.auto import keccak  # eth_utils has this function, and every command would wait 0.2 s for the rest

    digits = address.hex()
    marks = keccak(digits.encode()).hex()
    return "0x" + "".join(d.upper() if int(m, 16) >= 8 else d for d, m in zip(digits, marks, strict=False))


def written(text: str) -> str:
    """Return an address that a person wrote, in small letters; a ValueError where it is none, null or mistyped."""
    if not re.fullmatch("0[xX][0-9a-fA-F]{40}", text):
        raise ValueError("expected 0x and 40 hex digits")
    raw = bytes.fromhex(text[2:])
    if not any(raw):
        raise ValueError("is the null address")
    if text[2:] not in (raw.hex(), raw.hex().upper(), checksummed(raw)[2:]):
        raise ValueError("has a wrong checksum: a digit or a letter's case is mistyped")
    return "0x" + raw.hex()
