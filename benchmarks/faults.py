"""What becomes of a payment when things go wrong? `python -m benchmarks.faults [--json] [--rail NAME]`.

One run, one table: on the rail `coinbase` each story of tests/world/stories.py and tests/world/stories_foreign.py, on
the others the hostile answers of the sandbox's own fault tables (benchmarks/rails.py), told to topup, and, where the
same trouble can befall it, to the recipe beside it: what a user writes from the seller's own documentation, with a
retry around it (benchmarks/recipes.py). Then a sample of the kill matrix (tests/proofs/kill_matrix.py) and a soak
(tests/proofs/simulation.py). Exits with 1 when topup did not survive a row. A rail that cannot run here is skipped,
each of its rows by name: its `survived` is null. The recipe has one provider, as documented; a story that topup meets
with several befalls the first of them.

Seconds are those of the world, from the need to the end: for topup credits posted and booked, for the recipe credits
posted. On the rails beside `coinbase` the trouble ends some passes after topup has shown what it makes of it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import rails
from benchmarks.recipes import ByCharge, Fared

if TYPE_CHECKING:
    from tests.world.house import Result
    from tests.world.stories import Story

SOAK_STEPS: Final = 2000
KILL_SAMPLE: Final = 4
KILL_LIVES: Final = ("refill", "outbid")
SEED: Final = 1


def unheard(_: str) -> None:
    """Print onto a disk that is full.

    Raises:
        OSError: always, as `print` does.
    """
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fare(story: Story) -> Fared | None:
    """Let the recipe live through the story's trouble; None when nothing of it can befall the recipe."""
    from tests.world.house import House

    overlapping, mute = story.name == "two_live_senders", story.name == "output_lost"
    if story.trouble is None and not overlapping and not mute:
        return None
    with (
        tempfile.TemporaryDirectory(prefix="topup-recipe-") as folder,
        House(Path(folder), wallet_wei=story.wallet_wei) as house,
    ):
        recipe = ByCharge(house)
        if story.prior:
            recipe.buy()
            house.low()
            house.need()
            recipe = ByCharge(house)
        if story.trouble is not None:
            house.trouble(story.trouble)
        if mute:
            recipe.say = unheard
        # A second copy of it that is started while the first one is between two steps.
        recipe.hour(ByCharge(house).buy if overlapping else lambda: None)
        house.mining = True
        house.wait(rails.AFTER_S)
        paid, believed = house.payments() - house.before, recipe.believed + overlapping
        posted = [one.posted_ms for one in house.world.gateway.issued.values() if one.posted_ms is not None]
        funded = [at for at in posted if at >= house.began_ms]
        return Fared(
            survived=paid == 1 and bool(funded),
            payments=paid,
            believed=believed,
            lost=paid > believed,
            recovered_in_s=(min(funded) - house.began_ms) // 1000 if funded else None,
            detail="; ".join(dict.fromkeys(recipe.errors)),
        )


# -- the run ----------------------------------------------------------------------------------------------------------


def told(story: Story) -> Result:
    """Tell a story to topup; one that breaks is not survived."""
    from tests.world.house import Result

    with tempfile.TemporaryDirectory(prefix="topup-story-") as folder:
        try:
            return story(Path(folder))
        except Exception as error:  # noqa: BLE001 - a row of the table whatever happens
            wrong = f"{type(error).__name__}: {error}"[:300]
            return Result(story.name, False, 0, False, False, "", (), None, "", (wrong,))


def rows(chosen: Sequence[str], names: Sequence[str], say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Play the rows of these rails, to topup and to the recipe; all that have one of these names, or those shown."""
    from tests.world.stories_foreign import STORIES

    stories = [
        one
        for one in sorted(STORIES.values(), key=lambda one: one.number)
        if "coinbase" in chosen and (one.name in names or not names)
    ]
    others = [row for rail in rails.RAILS if rail in chosen for row in rails.rows(rail, names)]
    played: list[Callable[[], dict[str, Any]]] = [*(partial(_story, one) for one in stories)]
    played += [partial(_row, one) for one in others]
    for done, play in enumerate(played, 1):
        began = time.monotonic()
        row = play()
        yield row
        ended = f"survived {_yes(row)}, payments {row['payments']}" if row["survived"] is not None else row["reason"]
        say(f"{done} of {len(played)}  {row['rail']}  {row['story']}: {ended}  ({time.monotonic() - began:.1f} s)")


def _story(story: Story) -> dict[str, Any]:
    ours, theirs = told(story), fare(story)
    row = asdict(replace(ours, events=()))
    del row["events"]
    return row | {
        "rail": "coinbase",
        "number": story.number,
        "says": story.says,
        "recipe": None if theirs is None else asdict(theirs),
    }


def _row(row: rails.Row) -> dict[str, Any]:
    """Play one row; where its rail cannot run, say why."""
    reason = rails.missing(row.rail)
    ours = rails.skipped(row, reason) if reason else rails.told(row)
    theirs = None if reason or row.fare is None else asdict(row.fare())
    return ours | {"rail": row.rail, "number": None, "says": row.says, "recipe": theirs}


def killed(sample: int, lives: Sequence[str], jobs: int) -> dict[str, Any]:
    """Try a sample of the kill matrix; `cells` is None, with a reason, where it cannot run."""
    from tests import tools

    if sample < 0:
        return {"cells": None, "survived": None, "reason": "not asked for"}
    if tools.find("anvil") is None:
        return {"cells": None, "survived": None, "reason": "anvil is missing: python -m tests installs it"}
    from tests.proofs import kill_matrix

    with ThreadPoolExecutor(jobs) as pool:
        result = kill_matrix.run(sample, SEED, pool, lives=lives)
    failures = [{"cell": one.name, "wrong": one.wrong} for one in result.failures]
    return {"cells": result.cells, "survived": result.survived, "failures": failures}


def soaked(steps: int) -> dict[str, Any]:
    """Live so many steps of random trouble on the simulated world."""
    if steps == 0:
        return {"seed": SEED, "steps": 0, "double_payments": 0, "lost": 0, "broken": 0}
    from tests.proofs import simulation

    result = simulation.soak(SEED, steps)
    return {
        "seed": result.seed,
        "steps": result.steps,
        "double_payments": result.double_payments,
        "lost": result.lost,
        "broken": result.broken,
    }


def sound(told: dict[str, Any]) -> bool:
    """Tell whether every row that was played was survived."""
    kill, soak = told["kill_matrix"], told["soak"]
    right = all(row["survived"] is not False for row in told["stories"]) and kill["cells"] == kill["survived"]
    return right and not soak["double_payments"] and not soak["lost"] and not soak["broken"]


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Write the table for a person."""
    yield f"{'':<36}| topup                                | the documented recipe with a retry"
    yield f"{'story':<36}| survived  payments  recovered in     | survived  payments        funded in"
    rail = ""
    for row in told["stories"]:
        if row["rail"] != rail:
            rail = row["rail"]
            yield f"-- {rail}"
        if row["survived"] is None:
            yield f"   {row['story']:<33}| skipped: {row['reason']}"
            continue
        ours = f"{_yes(row):<10}{row['payments']!s:<10}{_time(row['recovered_in_s'], asked=row['halted']):<17}"
        yield f"{row['number'] or '':>2} {row['story']:<33}| {ours}| {_beside(row['recipe'])}"
        yield from (f"     wrong: {one}" for one in row["wrong"])
    yield ""
    yield from _summary(told["stories"])
    kill, soak = told["kill_matrix"], told["soak"]
    tried = f"{kill['survived']} of {kill['cells']} cells survived" if kill["cells"] is not None else kill["reason"]
    yield f"kill matrix: {tried}"
    yield from (f"     {one['cell']}: {one['wrong']}" for one in kill.get("failures", []))
    yield (
        f"soak: seed {soak['seed']}, {soak['steps']} steps, {soak['double_payments']} double payments,"
        f" {soak['lost']} lost, {soak['broken']} other invariants broken"
    )


def _beside(theirs: dict[str, Any] | None) -> str:
    if theirs is None:
        return "—"
    paid = str(theirs["payments"]) + (f", {theirs['astray']} astray" if theirs["astray"] else "")
    paid += ", leaked" if theirs["leaked"] else ""
    return f"{_yes(theirs):<10}{paid:<16}{_time(theirs['recovered_in_s'])}"


def _summary(stories: Sequence[dict[str, Any]]) -> Iterator[str]:
    played = [row for row in stories if row["survived"] is not None]
    beside = [row["recipe"] for row in played if row["recipe"] is not None]
    for who, told in (("topup", played), ("the recipe", beside)):
        if not told:
            continue
        survived = sum(one["survived"] for one in told)
        twice = sum((one["payments"] or 0) > 1 for one in told)
        astray = sum(bool(one.get("astray")) for one in told)
        yield f"{who}: {survived} of {len(told)} rows survived, paid more than once in {twice}, astray in {astray}"


def _yes(row: dict[str, Any]) -> str:
    return "yes" if row["survived"] else "NO"


def _time(seconds: int | None, *, asked: bool = False) -> str:
    if asked:
        return "a person's word"
    if seconds is None:
        return "never"
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def main() -> int:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--stories", nargs="+", metavar="NAME", default=[], help="only these, of all there are")
    parser.add_argument("--rail", choices=("coinbase", *rails.RAILS), help="its rows alone, no matrix and no soak")
    parser.add_argument("--soak-steps", type=int, help=f"length of the soak; {SOAK_STEPS}")
    parser.add_argument("--kill-sample", type=int, help=f"cells beside the dangerous; {KILL_SAMPLE}; -1: no matrix")
    parser.add_argument("--kill-lives", nargs="+", default=KILL_LIVES, help="which lives are killed")
    parser.add_argument("--jobs", type=int, default=2, help="killed lives at a time")
    options = parser.parse_args()
    try:
        from tests.world.stories_foreign import STORIES
    except ImportError as error:
        print(f"{error.name} is missing: install requirements/test.txt, and run this from a checkout", file=sys.stderr)
        return 2
    chosen = [options.rail] if options.rail else ["coinbase", *rails.RAILS]
    known = set(STORIES if "coinbase" in chosen else ()) | {
        row.name for rail in rails.RAILS if rail in chosen for row in rails.rows(rail, every=True)
    }
    if unknown := set(options.stories) - known:
        print(f"no story is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    sample = options.kill_sample if options.kill_sample is not None else -1 if options.rail else KILL_SAMPLE
    steps = options.soak_steps if options.soak_steps is not None else 0 if options.rail else SOAK_STEPS

    def say(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    stories = list(rows(chosen, options.stories, say))
    say("kill matrix and soak")
    document = {
        "schema": 1,
        "stories": stories,
        "kill_matrix": killed(sample, options.kill_lives, options.jobs),
        "soak": soaked(steps),
    }
    print(json.dumps(document, indent=2) if options.json else "\n".join(lines(document)))
    return int(not sound(document))


if __name__ == "__main__":
    sys.exit(main())
