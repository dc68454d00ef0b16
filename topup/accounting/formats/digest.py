"""How does a digest read, for a program as fields, and for a person from those? Null is unknown, never nothing."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from topup.accounting.closing import PAD
from topup.accounting.digest import Digest
from topup.accounting.forecast import rounded
from topup.accounting.journal import Commodity
from topup.accounting.standing import listed
from topup.accounting.statement import shown
from topup.domain.moments import moment
from topup.domain.money import Usd

WIDTH: Final = 9


def document(digest: Digest) -> dict[str, Any]:
    """Return the fields; amounts are decimal text, moments milliseconds."""
    statement, forecast, period = digest.statement, digest.forecast, digest.statement.period
    moved = {name: -statement.moved(PAD, name) for name in Commodity}
    until_ms, last, wallet, day = digest.used_until_ms, digest.last, forecast.wallet, forecast.usual_day
    return {
        "every": digest.every.value,
        "from": period.first.isoformat(),
        "to": period.last.isoformat(),
        "refills": len(digest.refills),
        "bought_usd": str(sum((refill.credits for refill in digest.refills), Usd.of(0))),
        "left_wallet": {name.value: shown(units, name) for name, units in digest.left_wallet.items()},
        "used_usd": str(statement.used) if until_ms is not None else None,
        "elsewhere_usd": str(statement.elsewhere) if until_ms is not None else None,
        "used_until_ms": until_ms,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "usual_day_usd": str(rounded(day)) if day is not None else None,
        "wallet_refills": wallet.refills if wallet is not None else None,
        "wallet_until_ms": forecast.moment_ms(forecast.covered.to_floor_h),
        "cap_24h_usd": str(digest.cap_24h.whole),
        "cap_24h_left_usd": str(digest.cap_24h.left),
        "cap_30d_usd": str(digest.cap_30d.whole),
        "cap_30d_left_usd": str(digest.cap_30d.left),
        "moved_by_others": {name.value: shown(units, name) for name, units in moved.items() if units},
        "differs": list(statement.differences),
    }


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield these fields as a person reads them."""
    first, last = told["from"], told["to"]
    yield _row("period", f"{first}{f' to {last}' if last != first else ''} (UTC)")
    yield _row("refills", f"{told['refills']}, {told['bought_usd']} dollars of credit" if told["refills"] else "none")
    yield _row("spent", f"{listed(told['left_wallet'])} left the wallet")
    yield _row("used", _used(told))
    if told["elsewhere_usd"] not in (None, "0"):
        yield _row("elsewhere", f"{told['elsewhere_usd']} dollars of credit were bought elsewhere")
    yield _row("credits", _credits(told))
    yield _row("wallet", _wallet(told))
    caps = [f"{told[f'cap_{key}_left_usd']} of {told[f'cap_{key}_usd']} dollars in {span}" for key, span in _CAPS]
    yield _row("caps", f"left: {', '.join(caps)}")
    for name, amount in told["moved_by_others"].items():
        did, sign = ("took", "-") if amount.startswith("-") else ("brought", "")
        yield _row("others", f"{did} {amount.removeprefix(sign)} {name} {'out of' if sign else 'into'} the wallet")
    for said in told["differs"] or ["nothing"]:
        yield _row("differs", said)


_CAPS: Final = (("24h", "24 hours"), ("30d", "30 days"))


def _row(label: str, text: str) -> str:
    return f"{label:<{WIDTH}} {text}"


def _used(told: Mapping[str, Any]) -> str:
    if told["used_usd"] is None:
        return "unknown: the books were not closed in this period"
    return f"{told['used_usd']} dollars, up to {moment(told['used_until_ms'] // 1000)}"


def _credits(told: Mapping[str, Any]) -> str:
    if told["balance_usd"] is None:
        return "unknown: never read"
    return f"{told['balance_usd']} dollars, read {moment(told['read_ms'] // 1000)}"


def _wallet(told: Mapping[str, Any]) -> str:
    """Say for how long the wallet lasts with the credits that are there."""
    if told["wallet_refills"] is None:
        return "how long it lasts is unknown: the ledger writes down only ETH, at a refill"
    covers = f"enough for {told['wallet_refills']} refills"
    if told["usual_day_usd"] is None:
        return f"{covers}; until when is unknown before a week of usage is known"
    if told["wallet_until_ms"] is None:
        return f"{covers}; for ever, as nothing is used"
    return f"{covers}, until {moment(told['wallet_until_ms'] // 1000)} at the usual pace"
