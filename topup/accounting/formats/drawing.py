"""How do credits over time, and a part of a whole, look as pictures?

Pictures are SVG without a size of their own: shapes stretch with the page, text does not, so that it can be read on a
phone. Places are per cent of the picture, computed in `Decimal` like everything that comes from money.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from topup.accounting.forecast import Band
from topup.accounting.formats.markup import Html, element, html, joined
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.moments import moment
from topup.domain.money import Usd, plain

POINTS_MAX: Final = 1500
TICKS_MAX: Final = 8
# Where in the picture no more days are named: their text would leave it.
LAST_TICK: Final = 95

STYLE: Final = """
figure{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px}
figcaption{margin-top:8px;font-size:14px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 8px;padding:0;list-style:none;font-size:13px}
.legend svg{display:inline-block;width:22px;height:12px;margin-right:6px;vertical-align:-1px}
.unit{color:var(--soft);font-size:12px;margin:0 0 10px}
.plot{display:block;overflow:visible;height:210px;width:calc(100% - 58px);margin:0 14px 28px 44px}
.plot text{fill:var(--soft);font-size:12px}.plot .level{text-anchor:end}.plot .day{text-anchor:middle}
.plot svg,.plot polyline,.plot line{overflow:visible;vector-effect:non-scaling-stroke}
.grid{stroke:var(--line)}.credit{fill:none;stroke:var(--blue);stroke-width:2;stroke-linejoin:round}
.under{fill:var(--fill)}.floor{stroke:var(--amber);stroke-width:1.5;stroke-dasharray:5 4}
.refill{stroke:var(--green);stroke-width:1.5}.mark{fill:var(--green)}
.band{fill:var(--amber);opacity:.25}.guess{stroke:var(--amber);stroke-width:2;fill:none}
.bar{display:block;width:100%;height:8px;margin-top:4px}.bar rect{fill:var(--line)}.bar .part{fill:var(--blue)}
.bar .rest{fill:var(--amber)}
@media screen and (max-width:640px){.plot .between{display:none}}
"""


@dataclass(frozen=True)
class Course:
    """What a picture of credits shows.

    Attributes:
        readings: believed readings, oldest first; those before the time that is drawn are left out.
        first_ms: from when on it is drawn.
        end_ms: until when at least; readings and forecast may reach further.
        floor: below which the account is refilled.
        refills: when credits were posted, and what is to be said of it; those outside of that time are left out.
        ahead: what may be left from the last reading on, in the order of time.
    """

    readings: Sequence[Reading]
    first_ms: int
    end_ms: int
    floor: Usd | None = None
    refills: Sequence[tuple[int, str]] = ()
    ahead: Sequence[Band] = ()


@dataclass(frozen=True)
class Scale:
    """Where a moment and an amount stand, in per cent of the picture from its left and its upper edge."""

    first_ms: int
    end_ms: int
    bottom: Decimal
    top: Decimal
    step: Decimal

    @classmethod
    def of(cls, first_ms: int, end_ms: int, amounts: Sequence[Decimal]) -> "Scale":
        """Return one that has room for these amounts, and for nothing and one dollar; its lines are round amounts."""
        highest, lowest = max([*amounts, Decimal(1)]), min([*amounts, Decimal(0)])
        power = Decimal(1).scaleb((highest - lowest).adjusted() - 1)
        step = next(power * n for n in (1, 2, 5, 10, 20, 50) if (highest - lowest) / (power * n) <= 6)
        top = step * (highest / step).to_integral_value(rounding=ROUND_CEILING)
        bottom = step * (lowest / step).to_integral_value(rounding=ROUND_FLOOR)
        return cls(first_ms, max(end_ms, first_ms + 1), bottom, top, step)

    def x(self, at_ms: int) -> Decimal:
        """Return where a moment stands."""
        return _cut(Decimal(100) * (at_ms - self.first_ms) / (self.end_ms - self.first_ms))

    def y(self, dollars: Decimal) -> Decimal:
        """Return where an amount stands."""
        return _cut(Decimal(100) * (self.top - dollars) / (self.top - self.bottom))

    def points(self, line: Iterable[tuple[int, Usd]]) -> str:
        """Return the points of a line as SVG has them."""
        return " ".join(f"{self.x(at_ms)},{self.y(usd.amount)}" for at_ms, usd in line)

    def levels(self) -> Iterator[Decimal]:
        """Return the amounts that have a line."""
        level = self.bottom
        while level <= self.top:
            yield level
            level += self.step

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Return the moments that are named: some of the days or, within a few of them, hours (UTC)."""
        span = self.end_ms - self.first_ms
        days = -(-span // (TICKS_MAX * DAY_MS)) * DAY_MS
        every = next((n * HOUR_MS for n in (3, 6, 12) if span <= TICKS_MAX * n * HOUR_MS), days)
        at_ms = -(-self.first_ms // min(every, DAY_MS)) * min(every, DAY_MS)
        while self.x(at_ms) <= LAST_TICK:
            when = datetime.fromtimestamp(at_ms // 1000, UTC)
            yield at_ms, when.strftime("%b %d" if at_ms % DAY_MS == 0 else "%H:%M")
            at_ms += every


def credits_over_time(course: Course) -> Html:
    """Return a figure of the credits with its legend and a sentence of what it shows; "" with less than two readings.

    Its days are UTC days, its amounts dollars of credit.
    """
    read = [r for r in course.readings if r.at_ms >= course.first_ms]
    if len(read) < 2:
        return Html()
    drawn = thinned(read)
    end_ms = max([course.end_ms, drawn[-1].at_ms, *(band.at_ms for band in course.ahead)])
    amounts = [r.balance.amount for r in drawn] + [band.high.amount for band in course.ahead]
    amounts += [course.floor.amount] if course.floor is not None else []
    at = Scale.of(course.first_ms, end_ms, amounts)
    name = "Credits over time, in dollars; what it shows is said below"
    drawing = [_axes(at), _lines(at, drawn, course), _marks(at, course)]
    picture = element("svg", *drawing, class_="plot", role="img", aria_label=name)
    unit = element("p", "dollars of credit; days in UTC", class_="unit")
    return element("figure", _legend(course), unit, picture, element("figcaption", _told(read, course.ahead)))


def bar(part: Decimal, whole: Decimal, kind: str = "part") -> Html:
    """Return how much a part is of a whole, as a bar that is as wide as it may be; the amount stands beside it."""
    width = _cut(min(max(part, Decimal(0)) / whole, Decimal(1)) * 100) if whole > 0 else Decimal(0)
    track = '<rect width="100%" height="100%" rx="3"/>'
    filled = f'<rect class="{html(kind)}" width="{width}%" height="100%" rx="3"/>'
    return Html(f'<svg class="bar" aria-hidden="true">{track}{filled}</svg>')


def thinned(readings: Sequence[Reading]) -> list[Reading]:
    """Return few enough readings to draw, the last one among them."""
    every = -(-len(readings) // POINTS_MAX) or 1
    return [r for n, r in enumerate(readings) if n % every == 0 or n == len(readings) - 1]


def cents(usd: Usd) -> str:
    """Return an amount for a person to look at, to the cent; what is too small for that does not look like nothing."""
    if 0 < abs(usd.amount) < Decimal("0.005"):
        return "< 0.01 $"
    return f"{usd.amount.quantize(Decimal('0.01')):f} $"


def _axes(at: Scale) -> Html:
    parts = []
    for level in at.levels():
        y = at.y(level)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>')
        parts.append(f'<text class="level" x="0" dx="-6" y="{y}%" dy="4">{plain(level)}</text>')
    for number, (at_ms, name) in enumerate(at.ticks()):
        between = " between" if number % 2 else ""
        parts.append(f'<text class="day{between}" x="{at.x(at_ms)}%" y="100%" dy="20">{name}</text>')
    return Html("".join(parts))


def _lines(at: Scale, drawn: Sequence[Reading], course: Course) -> Html:
    line, ground = at.points((r.at_ms, r.balance) for r in drawn), at.y(Decimal(0))
    ends = f"{at.x(drawn[0].at_ms)},{ground} {line} {at.x(drawn[-1].at_ms)},{ground}"
    parts = [f'<polygon class="under" points="{ends}"/>']
    if course.ahead:
        edge = [(b.at_ms, b.high) for b in course.ahead] + [(b.at_ms, b.low) for b in reversed(course.ahead)]
        parts.append(f'<polygon class="band" points="{at.points(edge)}"/>')
        parts.append(f'<polyline class="guess" points="{at.points((b.at_ms, b.likely) for b in course.ahead)}"/>')
    parts.append(f'<polyline class="credit" points="{line}"/>')
    inside = "".join(parts)
    return Html(f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{inside}</svg>')


def _marks(at: Scale, course: Course) -> Html:
    parts = []
    if course.floor is not None:
        y = at.y(course.floor.amount)
        parts.append(f'<line class="floor" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>')
    for at_ms, about in course.refills:
        if not at.first_ms <= at_ms <= at.end_ms:
            continue
        x = at.x(at_ms)
        parts.append(f'<line class="refill" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>')
        parts.append(f'<circle class="mark" cx="{x}%" cy="0" r="4"><title>{html(about)}</title></circle>')
    return Html("".join(parts))


def _legend(course: Course) -> Html:
    line = '<line class="{0}" x1="0" x2="22" y1="6" y2="6"/>'
    said = [(line.format("credit"), "credits")]
    if course.floor is not None:
        said.append((line.format("floor"), f"floor, {cents(course.floor)}"))
    if course.refills:
        mark = '<line class="refill" x1="11" x2="11" y1="2" y2="12"/><circle class="mark" cx="11" cy="4" r="4"/>'
        said.append((mark, "credits posted by a top-up"))
    if course.ahead:
        shade = '<rect class="band" width="22" height="12"/>' + line.format("guess")
        said.append((shade, "if nothing is bought: likely, and what is usual"))
    rows = (element("li", Html(f'<svg aria-hidden="true">{drawn}</svg>'), name) for drawn, name in said)
    return element("ul", *rows, class_="legend")


def _told(read: Sequence[Reading], ahead: Sequence[Band]) -> Html:
    first, last = read[0], read[-1]
    lowest = min(read, key=lambda r: r.balance.amount)
    said = [f"{cents(first.balance)} at first, {cents(last.balance)} at last ({moment(last.at_ms // 1000)});"]
    said.append(f"lowest {cents(lowest.balance)} ({moment(lowest.at_ms // 1000)}).")
    if ahead:
        empty = next((band for band in ahead if band.likely.amount <= 0), None)
        end = empty or ahead[-1]
        left = f"{cents(end.likely)} are" if empty is None else "nothing is"
        said.append(f"If nothing is bought, {left} likely to be left by {moment(end.at_ms // 1000)},")
        said.append(f"usually between {cents(end.low)} and {cents(end.high)}.")
    return joined(said, " ")


def _cut(place: Decimal) -> Decimal:
    return place.quantize(Decimal("0.01"))
