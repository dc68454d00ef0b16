"""Does the house stand, and does its drawing say so when it does not?"""

from tests.rooms import MOST_FLOORS, MOST_ROOMS, allowed, build, drawing, imports


def test_the_house_has_few_rooms_on_few_floors_and_no_circle() -> None:
    """At most sixteen rooms on at most eight floors, and every arrow points down."""
    house = build(imports())
    assert house.circle == frozenset()
    assert len(house.arrows) <= MOST_ROOMS
    assert house.height <= MOST_FLOORS
    assert house.stands
    assert all(house.floors[room] > house.floors[below] for room in house.arrows for below in house.arrows[room])


def test_every_room_has_its_place_among_the_layers() -> None:
    """What import-linter allows and what is imported speak of the same rooms, and nothing else is imported."""
    assert allowed().keys() == imports().keys()
    assert {room: others - allowed()[room] for room, others in imports().items() if others - allowed()[room]} == {}


def test_a_circle_is_named_and_the_house_does_not_stand() -> None:
    """Two rooms that import each other stand on no floor, nor does what is built on them."""
    house = build(
        {
            "ground": frozenset(),
            "left": frozenset({"right", "ground"}),
            "right": frozenset({"left"}),
            "roof": frozenset({"left"}),
        }
    )
    assert not house.stands
    assert house.floors == {"ground": 1}
    assert drawing(house).startswith("4 rooms on 1 floors, 4 arrows, circle: left, right\n")


def test_the_drawing_shows_every_floor_and_every_arrow() -> None:
    """From the top down, and what a room imports in the same order."""
    house = build({"a": frozenset(), "b": frozenset({"a"}), "top": frozenset({"a", "b"})})
    assert drawing(house) == (
        "3 rooms on 3 floors, 3 arrows, no circle\n\nfloor 3   top\nfloor 2   b\nfloor 1   a\n\n"
        "top → b, a\nb   → a\na   → nothing\n"
    )
