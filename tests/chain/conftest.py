"""What most tests of this folder stand on: one chain in this process, and one, two or three providers of it."""

from collections.abc import Iterator

import pytest

from tests.world.stand import Stand, stand_on


@pytest.fixture
def sole() -> Iterator[Stand]:
    yield from stand_on("embedded")


@pytest.fixture
def pair() -> Iterator[Stand]:
    yield from stand_on("embedded", 2)


@pytest.fixture
def trio() -> Iterator[Stand]:
    yield from stand_on("embedded", 3)
