"""How does the house stand? Draws rooms, floors, arrows and circles from its imports: `python -m tests.rooms`.

A room is a folder directly under `topup/`, with all that is in it; `__main__` is the door, and old names that stay for
one version are none. An arrow says that a module
of one room imports a module of another. A room stands one floor above the highest room that it imports, so every arrow
points down, unless there is a circle.
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import grimp

from tests.tools import ROOT

MOST_ROOMS: Final = 16
MOST_FLOORS: Final = 8

Arrows = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class House:
    """Which room imports which, and on which floor each of them stands."""

    arrows: Arrows
    floors: Mapping[str, int]
    circle: frozenset[str]  # rooms that import each other, directly or through others

    @property
    def height(self) -> int:
        return max(self.floors.values(), default=0)

    @property
    def stands(self) -> bool:
        return not self.circle and len(self.arrows) <= MOST_ROOMS and self.height <= MOST_FLOORS


def build(arrows: Arrows) -> House:
    """Put each room on its floor, from the ground up; what finds none is part of a circle or stands on one."""
    floors: dict[str, int] = {}
    while ready := [room for room in arrows if room not in floors and arrows[room] <= floors.keys()]:
        floors |= {room: 1 + max((floors[below] for below in arrows[room]), default=0) for room in ready}
    circle = arrows.keys() - floors.keys()
    while roofs := {room for room in circle if not any(room in arrows[other] for other in circle)}:
        circle -= roofs
    return House(arrows, floors, frozenset(circle))


@cache
def imports() -> Arrows:
    """Read from the source which room imports which."""
    graph = grimp.build_graph("topup", cache_dir=None)
    arrows: dict[str, set[str]] = {}
    for module in sorted(graph.modules - {"topup"}):
        room = module.split(".")[1]
        # The package itself holds the version and imports nothing.
        imported = graph.find_modules_directly_imported_by(module) - {"topup"}
        arrows.setdefault(room, set()).update(name.split(".")[1] for name in imported)
    rooms = {"__main__"} | {room for room in arrows if (ROOT / "topup" / room).is_dir()}
    return {room: frozenset(others - {room}) for room, others in arrows.items() if room in rooms}


def allowed() -> Arrows:
    """Return what each room may import by the contracts that import-linter holds, see pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["id"]: contract for contract in project["tool"]["importlinter"]["contracts"]}
    layers = [[room.strip() for room in layer.split("|")] for layer in contracts["layers"]["layers"]]
    below = {
        room: {name for lower in layers[number + 1 :] for name in lower}
        for number, layer in enumerate(layers)
        for room in layer
    }
    below["sandbox"] -= {name.removeprefix("topup.") for name in contracts["sandbox"]["forbidden_modules"]}
    return {room: frozenset(names) for room, names in below.items()}


def drawing(house: House) -> str:
    """Return the house as text: the floors from the top down, then the arrows of each room."""
    count = sum(map(len, house.arrows.values()))
    circle = "circle: " + ", ".join(sorted(house.circle)) if house.circle else "no circle"
    lines = [f"{len(house.arrows)} rooms on {house.height} floors, {count} arrows, {circle}", ""]
    by_floor = {n: sorted(r for r, floor in house.floors.items() if floor == n) for n in range(house.height, 0, -1)}
    lines += [f"floor {number}   " + "   ".join(rooms) for number, rooms in by_floor.items()]
    wide = max(map(len, house.arrows), default=0)
    on_floors = [room for rooms in by_floor.values() for room in rooms]
    downward = [*sorted(house.arrows.keys() - house.floors.keys()), *on_floors]
    lines.append("")
    for room in downward:
        reached = [name for name in downward if name in house.arrows[room]]
        lines.append(f"{room:{wide}} → {', '.join(reached) or 'nothing'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    HOUSE = build(imports())
    print(drawing(HOUSE), end="")
    sys.exit(not HOUSE.stands)
