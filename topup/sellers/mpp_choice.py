"""Which of a seller's challenges is paid? Each is judged alone; those that pass have to ask for the same thing.

Every current SDK offers several ways to pay at once: other tokens, a card, a session. What is not ours to pay drops
out and is named; where more than one is left, and they differ in what would be paid or how, nothing is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.domain import tempo
from topup.domain.demand import Finding
from topup.domain.errors import ChargeRefused
from topup.domain.lifecycle import NO_TOKENS
from topup.domain.money import Asset, Usdc
from topup.sellers.mpp_wire import FIELD, UNREADABLE, Challenge, TempoCharge, memo

OWN_HEADER: Final = "Payment-Authorization"
ID_MAX: Final = 4096
ANOTHER_WAY: Final = "nothing: topup pays this seller by machine payments on Tempo only"
# What a person calls it, and what it would be paid with; anything else a seller may offer is passed over by name.
METHOD: Final = ("tempo", "charge")
DETAILS: Final = "request.methodDetails"


@dataclass(frozen=True)
class Terms:
    """What challenges are held against beside the bounds of every rail: who asks, and the dollar that is paid with.

    `tokens` are the names of those that are known on the chain, by address; `sponsored_s` is for how many seconds what
    is signed for a sponsored offer can be used, 0 where none is paid.
    """

    realm: str
    asset: Asset
    tokens: Mapping[bytes, str]
    sponsored_s: int = 0


@dataclass(frozen=True)
class Due:
    """A challenge with what was chosen for it: the `Demand` of this rail."""

    sender: bytes
    challenge: Challenge
    terms: TempoCharge
    lane: int
    key: str
    seller: str
    path: str
    body: bytes

    @property
    def charge_id(self) -> str:
        return ascii(self.challenge.id)[1:-1][:120]

    @property
    def chain_id(self) -> int:
        """Return the chain, 0 where the challenge names none."""
        return self.terms.chain_id or 0

    @property
    def contract(self) -> bytes:
        return self.terms.currency

    @property
    def identity(self) -> tuple[bytes, bytes]:
        return keccak(text=self.challenge.realm), keccak(text=self.challenge.id)

    @property
    def total(self) -> Usdc:
        return Usdc(self.terms.amount)

    @property
    def fee(self) -> Usdc:
        return NO_TOKENS

    @property
    def recipient(self) -> bytes:
        return self.terms.recipient

    @property
    def deadline(self) -> int:
        """Return until when the challenge is taken, 0 where it does not say."""
        return self.terms.expires or 0

    @property
    def memo(self) -> bytes:
        """Return what binds the transfer to this challenge."""
        return memo(self.challenge.realm, self.challenge.id)

    @property
    def own_lane(self) -> int:
        """Return the lane it is paid on; what is sponsored has none, and is told from all else by its own number."""
        return tempo.lane_of(b"sponsored" + self.key.encode()) if self.terms.fee_payer else self.lane

    @property
    def paid(self) -> tuple[object, ...]:
        """Return what is paid, and how: two challenges that agree in this are the same offer made twice."""
        terms = self.terms
        return terms.chain_id, terms.currency, terms.recipient, terms.amount, terms.fee_payer, "pull"


@dataclass(frozen=True)
class Judged:
    """One challenge: what it asks for, None where that cannot be read, every line of its judgement, and what is wrong.

    `wrong` is None where it can be paid.
    """

    challenge: Challenge
    due: Due | None
    lines: tuple[Finding, ...]
    wrong: ChargeRefused | None


def kind_of(challenge: Challenge) -> tuple[str, str]:
    """Return by which means it is paid, and what the payment is to be; `METHOD` is paid here."""
    return challenge.get("method"), challenge.get("intent")


def judge(challenge: Challenge, made: Callable[[Challenge], Due], lines: Callable[[Due], Sequence[Finding]]) -> Judged:
    """Judge one challenge alone; what cannot be read is no worse than what cannot be paid."""
    if kind_of(challenge) != METHOD:
        other = ascii(" ".join(kind_of(challenge)))[1:-1][:80]
        return Judged(challenge, None, (), ChargeRefused("method", other, " ".join(METHOD), remedy=ANOTHER_WAY))
    try:
        due = made(challenge)
    except ChargeRefused as unreadable:
        return Judged(challenge, None, (), unreadable)
    findings = tuple(lines(due))
    wrong = next((finding.refusal() for finding in findings if not finding.right), None)
    return Judged(challenge, due, findings, wrong)


def choose(judged: Sequence[Judged]) -> Due:
    """Return the first challenge that can be paid, when all that can be paid ask for the same.

    A sponsored one counts only where there is no other: what pays its own fee stands on a lane, and its hash is known.

    Raises:
        ChargeRefused: none can be paid, with what is wrong with each; or those that can be paid differ.
    """
    by_id: dict[str, Challenge] = {}
    for challenge in (candidate.challenge for candidate in judged):
        # One without an id is never what is stored, so that it is mistaken for no other.
        if challenge.id and by_id.setdefault(challenge.id, challenge) != challenge:
            was = f"two challenges of one id {ascii(challenge.id)[:80]}"
            raise ChargeRefused(FIELD, was, "of one reading", remedy=UNREADABLE)
    passing = [candidate.due for candidate in judged if candidate.due is not None and candidate.wrong is None]
    if not passing:
        raise _none(judged)
    passing = [due for due in passing if not due.terms.fee_payer] or passing
    differing = next((due for due in passing if due.paid != passing[0].paid), None)
    if differing is not None:
        was = f"{len(passing)} that could be paid: {offered(passing[0])}, and {offered(differing)}"
        remedy = "pin who is paid in rails.mpp.recipients, or ask the seller which one it means"
        raise ChargeRefused(FIELD, was, "one offer", remedy=remedy)
    return passing[0]


def offered(due: Due) -> str:
    """Return what a challenge asks for in a few words."""
    return f"{due.total.usdc} to {to_checksum_address(due.recipient)} in 0x{due.contract.hex()}"


def _none(judged: Sequence[Judged]) -> ChargeRefused:
    """Say what is wrong with the one challenge of ours, or with each of them."""
    ours = [candidate for candidate in judged if kind_of(candidate.challenge) == METHOD]
    if len(ours) == 1 and ours[0].wrong is not None:
        return ours[0].wrong
    should_be = "one challenge of method tempo, intent charge, that can be paid"
    if ours:
        was = f"{len(ours)} of them, none payable: " + "; ".join(str(candidate.wrong) for candidate in ours)
        last = ours[-1].wrong
        return ChargeRefused(FIELD, was[:600], should_be, remedy=last.remedy if last is not None else "")
    methods = ascii(", ".join(" ".join(kind_of(candidate.challenge)) for candidate in judged))[1:-1]
    return ChargeRefused(FIELD, methods[:120] or "without a challenge", should_be, remedy=ANOTHER_WAY)


def named(terms: Terms, token: bytes) -> str:
    """Return a token's name and address."""
    known = terms.tokens.get(token)
    return f"{known} ({to_checksum_address(token)})" if known else to_checksum_address(token)


# What decides each line of a challenge's judgement.
REMEDIES: Final = {
    "realm": "set rails.mpp.realm to what the challenge says, once you know that it is the seller's own",
    "digest": "see rails.mpp.fields: the seller read another request than the one that was sent",
    "token": "rails.mpp.pay_with names the dollar, usdc.e or pathusd; another one cannot pay the fee",
    f"{DETAILS}.feePayer": "rails.mpp.sponsored = true pays an offer whose fee the seller pays: what is signed is"
    " completed by the seller, so that it is found by its memo, and has to be proven dead before anything takes its"
    " place",
}


def findings(due: Due, terms: Terms, digest: str) -> list[Finding]:
    """Judge what only this rail knows; `digest` is that of the body the challenge was asked for with."""
    charge, realm, ident = due.terms, due.challenge.realm, due.challenge.id
    header, body = due.challenge.get("header"), due.challenge.get("digest")
    modes = ascii(", ".join(charge.modes))[1:-1][:80] if charge.modes is not None else "any"
    pulled = charge.modes is None or "pull" in charge.modes
    own = next((address for address, name in terms.tokens.items() if name == terms.asset), b"")
    paid_in = named(terms, own) if own else str(terms.asset)
    payer, sponsored = str(charge.fee_payer).lower(), terms.sponsored_s > 0
    payers = "false or true" if sponsored else "false"

    def line(field: str, was: str, should_be: str, *, right: bool) -> Finding:
        remedy = REMEDIES.get(field, "nothing: topup pays nothing of this kind; tell the seller")
        return Finding(field, was, should_be, right, remedy)

    return [
        line("realm", ascii(realm)[1:-1][:80], terms.realm, right=realm == terms.realm),
        line("id", ascii(ident)[:80], f"a text of up to {ID_MAX} characters", right=len(ident) <= ID_MAX),
        line("header", ascii(header)[:80], OWN_HEADER, right=header.lower() in ("", OWN_HEADER.lower())),
        line("digest", ascii(body)[:80], digest, right=body in ("", digest)),
        line(f"{DETAILS}.chainId", _said(charge.chain_id), "named", right=charge.chain_id is not None),
        line("token", named(terms, due.contract), paid_in, right=not own or due.contract == own),
        line(f"{DETAILS}.feePayer", payer, payers, right=sponsored or not charge.fee_payer),
        line(f"{DETAILS}.splits", f"{len(charge.splits)} of them", "none", right=not charge.splits),
        line(f"{DETAILS}.memo", "none" if charge.memo is None else "theirs", "none", right=charge.memo is None),
        line(f"{DETAILS}.supportedModes", modes, "pull among them", right=pulled),
        line("expires", _said(charge.expires), "named", right=charge.expires is not None),
    ]


def _said(value: int | None) -> str:
    return "missing" if value is None else str(value)
