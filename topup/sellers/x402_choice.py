"""Which of a seller's offers is paid? Each is judged by itself; of those that pass, one may be meant.

An offer that cannot be read or paid (another scheme, chain, token or recipient, an allowance instead of a transfer)
drops out and spoils nothing. Offers that pass and mean the same payment are one; where several differ nobody knows
which was meant, and the settings have to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from topup.domain.demand import Bounds, Finding, Request, address, amount, checksummed
from topup.domain.dollars import Dollar
from topup.domain.errors import ChargeRefused
from topup.domain.money import Usdc
from topup.sellers.x402_wire import Offer

# So many offers are told of in one sentence.
TOLD_MAX: Final = 4


@dataclass(frozen=True)
class Wanted:
    """What an offer is held against.

    `minimum` says that the offer's amount is the least that is taken, and the payer chooses. `least` and `most` is what
    the seller sells, as far as is known; `seller` is the name of its record.
    """

    token: Dollar
    request: Request
    minimum: bool
    bounds: Bounds
    least: Decimal | None = None
    most: Decimal | None = None
    seller: str = ""

    def total(self, offer: Offer) -> Usdc:
        return self.request.amount.usdc_up() if self.minimum else Usdc(offer.amount)


@dataclass(frozen=True)
class Judged:
    """An offer, or what stands in its place, with every line of the judgement on it."""

    index: int
    offer: Offer | None
    lines: tuple[Finding, ...]

    @property
    def payable(self) -> bool:
        return all(line.right for line in self.lines)


def judged(listed: Sequence[Offer | Finding], wanted: Wanted) -> tuple[Judged, ...]:
    """Judge each offer by itself."""
    return tuple(
        Judged(index, offer, tuple(judge(offer, wanted))) if isinstance(offer, Offer) else Judged(index, None, (offer,))
        for index, offer in enumerate(listed)
    )


def chosen(each: Sequence[Judged], wanted: Wanted) -> int | None:
    """Return the place of the offer that is meant: the first that passes, where all that pass mean the same payment.

    Where none passes it is the only one in our token on our chain, so that the proof can say what is wrong with it.
    """
    passing = _passing(each)
    if passing:
        return passing[0].index if len({_means(offer, wanted) for offer in passing}) == 1 else None
    near = [offer.index for offer in each if offer.offer is not None and _ours(offer.offer, wanted)]
    return near[0] if len(near) == 1 else None


def refusal(each: Sequence[Judged], wanted: Wanted) -> ChargeRefused:
    """Return why nothing was chosen."""
    passing, token = _passing(each), wanted.token
    if len({_means(offer, wanted) for offer in passing}) > 1:
        return _ambiguous(passing, wanted)
    if passing:
        return ChargeRefused(
            "accepts",
            "an answer of which nothing was chosen when it came",
            "an offer that could be paid then",
            remedy="nothing: the next top-up asks anew, by the present settings",
        )
    reasons = "; ".join(_told(offer) for offer in each[:TOLD_MAX])
    more = f"; and {len(each) - TOLD_MAX} more" if len(each) > TOLD_MAX else ""
    return ChargeRefused(
        "accepts",
        f"{len(each)} offers, none of which can be paid: {reasons}{more}" if each else "empty",
        f"an offer `exact` of {token.asset} on chain {token.chain_id}",
        remedy="`topup doctor --rail x402` shows every line of every offer",
    )


# What decides each line of an offer's judgement.
REMEDIES: Final = {
    "scheme": "nothing decides it: topup signs scheme `exact` alone, which moves exactly what is signed",
    "network": "nothing decides it: x402 is paid on chain {0.chain_id} alone here",
    "asset": "nothing decides it: {0.asset} alone is paid with on chain {0.chain_id}",
    "maxTimeoutSeconds": "nothing decides it: an authorization that ends sooner would die on its way; ask the seller",
    "extra.name": "nothing decides it: what is signed by another name than the token's own is worth nothing there",
    "extra.assetTransferMethod": "nothing decides it: Permit2 wants an allowance, and topup gives none to a seller",
    "extra.paymentFlow": "nothing decides it: topup signs an authorization and sends no transaction for a seller",
}


def judge(offer: Offer, wanted: Wanted) -> list[Finding]:
    """Hold an offer against what is wanted, line by line; a line that fails says what decides it."""
    token, extra = wanted.token, offer.raw.get("extra") or {}
    how, flow = extra.get("assetTransferMethod", "eip3009"), extra.get("paymentFlow", "authorization")
    lasts, least_s = offer.max_timeout_s, wanted.bounds.life_min_s
    dollar = f"{checksummed(token.token)} ({token.asset})"

    def line(field: str, was: str, should_be: str, *, right: bool) -> Finding:
        remedy = REMEDIES.get(field, REMEDIES["extra.name"]).format(token)
        return Finding(field, was, should_be, right, remedy)

    def named(field: str, said: str | None, own: str) -> Finding:
        was = "not given, so the token's own is signed" if said is None else said[:80]
        return line(field, was, own, right=said in (own, None))

    return [
        *_limits(wanted),
        line("scheme", offer.scheme[:80], "exact", right=offer.scheme == "exact"),
        line("network", offer.network[:80], f"chain {token.chain_id}", right=offer.chain_id == token.chain_id),
        line("asset", checksummed(offer.asset), dollar, right=offer.asset == token.token),
        _recipient(offer, wanted),
        _amount(offer, wanted),
        line("maxTimeoutSeconds", f"{lasts} s", f"at least {least_s} s", right=lasts >= least_s),
        named("extra.name", offer.name, token.name),
        named("extra.version", offer.token_version, token.version),
        line("extra.assetTransferMethod", _short(how), "eip3009", right=how == "eip3009"),
        line("extra.paymentFlow", _short(flow), "authorization", right=flow == "authorization"),
    ]


def _limits(wanted: Wanted) -> list[Finding]:
    """Hold the purchase against what the seller's record says it sells."""
    if wanted.least is None and wanted.most is None:
        return []
    dollars, least, most = wanted.request.amount, wanted.least or Decimal(0), wanted.most
    sold = f"at least {least}" if most is None else f"{least} to {most}"
    right = least <= dollars.amount and (most is None or dollars.amount <= most)
    remedy = "policy.amount decides it; where the seller's limits changed, a file with its own (docs/rails.md)"
    return [Finding("purchase", f"{dollars} dollars", f"{sold} dollars at {wanted.seller}", right, remedy)]


def _recipient(offer: Offer, wanted: Wanted) -> Finding:
    field, was, recipients = "payTo", checksummed(offer.pay_to), wanted.bounds.recipients
    if offer.pay_to in (b"\x00" * 20, wanted.request.sender, wanted.token.token):
        should_be = "neither null, nor this wallet, nor the token itself"
        return Finding(field, was, should_be, right=False, remedy="nothing decides it: ask the seller whom it pays")
    if recipients is None:
        return Finding(field, was, "anybody: rails.x402.recipients names nobody", right=True)
    remedy = "rails.x402.recipients decides it: add this one only where the seller publishes it"
    return address(field, offer.pay_to, recipients, remedy)


def _amount(offer: Offer, wanted: Wanted) -> Finding:
    asked, least = Usdc(offer.amount), wanted.request.amount.usdc_up()
    if wanted.minimum:
        remedy = "policy.amount decides it: raise it to what this seller sells at least"
        return Finding("amount", f"at least {asked}", f"at most {least}", asked <= least, remedy=remedy)
    ceiling = wanted.bounds.fee_ceiling.bps
    remedy = f"rails.x402.fee_ceiling_bps ({ceiling}) decides how much more than policy.amount is paid"
    return amount("amount", str(asked), asked, wanted.request, wanted.bounds, remedy)


def _passing(each: Sequence[Judged]) -> list[Offer]:
    return [judgement.offer for judgement in each if judgement.payable and judgement.offer is not None]


def _ambiguous(passing: Sequence[Offer], wanted: Wanted) -> ChargeRefused:
    means = list(dict.fromkeys(_means(offer, wanted) for offer in passing))
    listed = "; ".join(f"{total} to {checksummed(to)}" for _, _, to, total in means[:TOLD_MAX])
    by = []
    if len({to for _, _, to, _ in means}) > 1:
        by.append("rails.x402.recipients, to name the one to be paid")
    if len({total for *_, total in means}) > 1:
        by.append("rails.x402.fee_ceiling_bps, so that one amount remains")
    return ChargeRefused(
        "accepts",
        f"{len(passing)} offers that can be paid and differ: {listed}",
        "one, or several that mean the same payment",
        remedy=f"set {' and '.join(by)}",
    )


def _means(offer: Offer, wanted: Wanted) -> tuple[int, bytes, bytes, Usdc]:
    """Return what would be paid: the chain, the token, to whom and how much."""
    return offer.chain_id, offer.asset, offer.pay_to, wanted.total(offer)


def _ours(offer: Offer, wanted: Wanted) -> bool:
    return (offer.chain_id, offer.asset, offer.scheme) == (wanted.token.chain_id, wanted.token.token, "exact")


def _told(judgement: Judged) -> str:
    wrong = next(line for line in judgement.lines if not line.right)
    where = "" if judgement.offer is None else f"accepts[{judgement.index}]."  # an unread one's field says where
    return f"{where}{wrong.field} is {wrong.was[:60]}"


def _short(value: object) -> str:
    return value[:80] if isinstance(value, str) and value.isprintable() else ascii(value)[:80]
