"""Does every module say in its first line which question it answers?"""

import ast
import re
from pathlib import Path

import topup
from tests.generate_docs import first_line, modules

ENTRY = Path(topup.__file__)


def test_every_module_begins_with_a_question() -> None:
    """The first line of a module's docstring asks what it answers; a package's says what is in it, for the table."""
    silent = [name for name, path in modules().items() if not first_line(path).endswith("?") and name[-1] != "/"]
    assert silent == ["__main__.py"]
    assert [name for name, path in modules().items() if not first_line(path)] == []


def test_the_package_holds_nothing_but_its_rooms_and_version() -> None:
    """Importing topup imports nothing."""
    body = ast.parse(ENTRY.read_text(encoding="utf-8")).body
    assert [type(part) for part in body] == [ast.Expr, ast.Assign]
    assert re.fullmatch(r"\d+\.\d+\.\d+", topup.__version__)


def test_the_rooms_are_named_where_the_package_begins() -> None:
    """Whoever opens the package reads which rooms there are."""
    rooms = {name for name in modules() if name.count("/") == 1 and name[-1] == "/"}
    named = set(re.findall(r"^  ([a-z]+/) ", topup.__doc__ or "", re.MULTILINE))
    assert named == rooms
