"""Does the house stand, does its drawing say so when it does not, and does each module say what it answers?"""

import ast
import re
from pathlib import Path

import topup
from tests.generate_docs import first_line, modules
from tests.rooms import allowed, build, drawing, imports


def test_the_house_has_few_rooms_on_few_floors_and_no_circle() -> None:
    """At most sixteen rooms on at most eight floors, and every arrow points down."""
    house = build(imports())
    assert house.stands, drawing(house)


def test_every_room_has_its_place_among_the_layers() -> None:
    """What import-linter allows and what is imported speak of the same rooms, and nothing else is imported."""
    assert allowed().keys() == imports().keys()
    assert {room: others - allowed()[room] for room, others in imports().items() if others - allowed()[room]} == {}


def test_a_circle_is_named_and_the_house_does_not_stand() -> None:
    """Two rooms that import each other stand on no floor, nor does what is built on them."""
    arrows = {"ground": [], "left": ["right", "ground"], "right": ["left"], "roof": ["left"]}
    house = build({room: frozenset(below) for room, below in arrows.items()})
    assert not house.stands
    assert house.floors == {"ground": 1}
    assert drawing(house).startswith("4 rooms on 1 floors, 4 arrows, circle: left, right\n")


def test_every_module_begins_with_a_question() -> None:
    """The first line of a module's docstring asks what it answers; a package's says what is in it, for the table."""
    silent = [name for name, path in modules().items() if not first_line(path).endswith("?") and name[-1] != "/"]
    assert silent == ["__main__.py"]
    assert [name for name, path in modules().items() if not first_line(path)] == []


def test_the_package_holds_nothing_but_its_rooms_and_version() -> None:
    """Importing topup imports nothing."""
    body = ast.parse(Path(topup.__file__).read_text(encoding="utf-8")).body
    assert [type(part) for part in body] == [ast.Expr, ast.Assign]
    assert re.fullmatch(r"\d+\.\d+\.\d+", topup.__version__)


def test_the_rooms_are_named_where_the_package_begins() -> None:
    """Whoever opens the package reads which rooms there are."""
    rooms = {name for name in modules() if name.count("/") == 1 and name[-1] == "/"}
    named = set(re.findall(r"^  ([a-z]+/) ", topup.__doc__ or "", re.MULTILINE))
    assert named == rooms
