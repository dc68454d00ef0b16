"""How does a forecast read? From the ledger alone, as a document for programs and as lines for a terminal."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

from topup.accounting import forecast as ahead
from topup.app.reckoning import forecast_of
from topup.commands.answer import Answer, labelled, shown
from topup.commands.start import read_ledger
from topup.domain.credits import DAY_MS, USUAL_DAYS_MIN, Runway
from topup.domain.errors import Exit
from topup.domain.moments import moment
from topup.domain.money import Usd, plain
from topup.domain.policy import Limits

ENDS: Final = (("usually", "usual_floor_ms"), ("busy", "busy_floor_ms"))
# Beyond it there is no calendar to name a day by.
FAR_MS: Final = 253_370_764_800_000


def answer() -> Answer:
    """Say how long credits and wallet may last."""
    from topup.app.assembly import ceilings, limits

    settings, store, now_ms = read_ledger()
    allowed = limits(settings)
    forecast = forecast_of(store, settings.account, allowed, ceilings(settings).reserve, now_ms)
    document = forecast_document(forecast, settings.account, allowed, now_ms)
    return Answer(document, forecast_lines(document), Exit.OK)


def forecast_document(forecast: ahead.Forecast, account: str, limits: Limits, now_ms: int) -> dict[str, Any]:
    """Return a forecast as a JSON-ready document; what is unknown, or never comes, is null."""
    read, pace, funding = forecast.reading, forecast.pace, forecast.wallet
    network, held = forecast.network, forecast.held
    start = read.at_ms if read is not None else 0
    return {
        "schema": 1,
        "account": account,
        "read_ms": read.at_ms if read is not None else None,
        "read_s_ago": (now_ms - read.at_ms) // 1000 if read is not None else None,
        "balance_usd": shown(read.balance) if read is not None else None,
        "floor_usd": str(limits.floor),
        "last_24h": {"burn_usd_per_hour": shown(forecast.burn), **_runway(forecast.now)},
        "days_known": forecast.days,
        "days_needed": USUAL_DAYS_MIN,
        "by_weekday": pace.by_weekday if pace is not None else None,
        "usual": {"a_day_usd": shown(_a_day(pace.likely) if pace is not None else None), **_runway(forecast.usual)},
        "calm": {"a_day_usd": shown(_a_day(pace.low) if pace is not None else None)},
        "busy": {"a_day_usd": shown(_a_day(pace.high) if pace is not None else None), **_runway(forecast.busy)},
        "next_days": _next_days(pace, start) if pace is not None else None,
        "floor_lasts_hours": shown(forecast.floor_h),
        "refill_usd": str(forecast.amount),
        "refills_a_month": shown(forecast.refills),
        "network": {"mean_usd": shown(network.mean), "topups": network.topups} if network is not None else None,
        "larger": [
            {
                "refill_usd": str(larger.amount),
                "refills_a_month": plain(larger.refills),
                "saves_usd_a_month": shown(larger.saves),
            }
            for larger in forecast.larger
        ],
        "wallet": {
            "at_ms": funding.at_ms,
            "age_s": (now_ms - funding.at_ms) // 1000,
            "spare_eth": plain(funding.spare.eth),
            "refill_eth": plain(funding.refill.eth),
            "refills": funding.refills,
            "usual_floor_ms": forecast.moment_ms(forecast.covered.to_floor_h),
            "busy_floor_ms": forecast.moment_ms(forecast.covered_busy.to_floor_h),
        }
        if funding is not None
        else None,
        "caps": {
            "burn_usd_per_day": shown(ahead.rounded(forecast.capped_at)),
            "holds": held.why.value if held is not None else None,
            "from_ms": held.at_ms if held is not None else None,
            "until_ms": held.until_ms if held is not None else None,
            "balance_then_usd": shown(held.left) if held is not None else None,
        }
        if forecast.capped_at is not None
        else None,
    }


def _next_days(pace: ahead.Pace, start_ms: int) -> list[dict[str, Any]]:
    paces = {"calm_usd": pace.low, "usual_usd": pace.likely, "busy_usd": pace.high}
    return [
        {
            "from_ms": start_ms + n * DAY_MS,
            **{name: shown(ahead.rounded(days[n % len(days)])) for name, days in paces.items()},
        }
        for n in range(ahead.WEEK)
    ]


def forecast_lines(document: dict[str, Any]) -> list[str]:
    """Return a forecast for a terminal."""
    lately, usual, busy = document["last_24h"], document["usual"], document["busy"]
    kind = "by the day of the week, " if document["by_weekday"] else ""
    spread = f"{document['calm']['a_day_usd']} to {busy['a_day_usd']}, {kind}from {document['days_known']} days"
    known = document["by_weekday"] is not None
    rows = {
        "account": document["account"],
        "credits": "never read: nothing can be foreseen"
        if document["balance_usd"] is None
        else f"{document['balance_usd']} dollars, read {document['read_s_ago']} s ago; floor {document['floor_usd']}",
        "last 24h": "unknown: an hour of readings is needed, and no total that fell"
        if lately["burn_usd_per_hour"] is None
        else f"{lately['burn_usd_per_hour']} dollars an hour; {_left(lately)}",
        "usual": f"{usual['a_day_usd']} dollars a day ({spread}); {_left(usual)}"
        if known
        else f"unknown: {document['days_known']} of the {document['days_needed']} days needed are known",
        "busy": f"if every day is like the busiest tenth; {_left(busy)}" if known else None,
        "floor": f"lasts {document['floor_lasts_hours']} h on busy days; another floor saves no fees"
        if document["floor_lasts_hours"] is not None
        else None,
        "wallet": _wallet(document),
        "refills": _refills(document),
    }
    lines, larger = labelled(9, rows), document["larger"] if document["refills_a_month"] is not None else []
    for refill in larger:
        saved = refill["saves_usd_a_month"]
        saves = f"saves {saved}" if saved is not None else "saves an unknown sum"
        lines.append(f"larger    {refill['refill_usd']} dollars: {refill['refills_a_month']} in 30 days, {saves}")
    if larger:
        lines.append("          assumed: the provider's fee is a share of the amount, the network's the same for each")
    return lines + labelled(9, {"caps": _caps(document)})


def _wallet(document: dict[str, Any]) -> str:
    wallet = document["wallet"]
    if wallet is None:
        return "unknown to the ledger, which writes down only ETH; `topup status --live` asks the chain"
    held = f"{wallet['spare_eth']} ETH to spare {wallet['age_s'] // 3600} h ago, after the newest top-up"
    until = [f"{name} {moment(wallet[key] // 1000)}" for name, key in ENDS if (wallet[key] or FAR_MS) < FAR_MS]
    last = f", the floor is then reached {', '.join(until)}" if until else ""
    return f"{held}: {wallet['refills']} refills of {document['refill_usd']} dollars at its price{last}"


def _refills(document: dict[str, Any]) -> str:
    if document["refills_a_month"] is None:
        return "how many is unknown, as is what others would save"
    network = document["network"]
    took = "what the network takes of each is unknown"
    if network is not None:
        took = f"the network took {network['mean_usd']} dollars of each (mean of {network['topups']})"
    return f"{document['refills_a_month']} of {document['refill_usd']} dollars in 30 days; {took}"


def _caps(document: dict[str, Any]) -> str:
    caps = document["caps"]
    if caps is None:
        return "whether they will hold a refill is unknown"
    pace = f"at {caps['burn_usd_per_day']} dollars a day"
    if caps["holds"] is None:
        return f"hold no refill within 30 days, {pace}"
    end = "for good"
    if caps["until_ms"] is not None:
        end = f"until {moment(caps['until_ms'] // 1000)}, with {caps['balance_then_usd']} dollars left by then"
    return f"{caps['holds']} holds a refill from {moment(caps['from_ms'] // 1000)} {end}, {pace}"


def _runway(left: Runway) -> dict[str, str | None]:
    return {"hours_to_floor": shown(left.to_floor_h), "hours_to_empty": shown(left.to_empty_h)}


def _left(document: dict[str, Any]) -> str:
    if document["hours_to_empty"] is None:
        return "at this pace it lasts for ever"
    return f"{document['hours_to_floor']} h to the floor, {document['hours_to_empty']} h to empty"


def _a_day(days: Sequence[Fraction]) -> Usd:
    return ahead.rounded(sum(days, Fraction(0)) / len(days))
