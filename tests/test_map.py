"""Is the map in topup/__init__.py true: every module, once, with the question it answers?"""

import ast
import re

import topup
from tests.generate_docs import AGAIN, MAP, mapped, modules, places, question

TEXT = MAP.read_text(encoding="utf-8")
GROUPS = ["words", "judgement", "flow", "edges", "outside"]


def test_every_module_is_on_the_map_exactly_once() -> None:
    """What is on the map is what is in the package: nothing is missing, nothing is twice, nothing is invented."""
    assert sorted(name for _, name, _ in places(TEXT)) == sorted(modules()), f"give it a place in {MAP}"


def test_every_module_begins_with_a_question() -> None:
    """The first line of a module's docstring asks what it answers; only `python -m topup` has nothing to answer."""
    silent = [name for name, path in modules().items() if not question(path).endswith("?")]
    assert silent == ["__main__.py"]


def test_the_map_asks_what_the_modules_ask() -> None:
    """The questions on the map are those of the modules, word by word."""
    assert mapped(TEXT) == TEXT, AGAIN


def test_the_map_has_the_five_rooms_in_the_order_of_the_layers() -> None:
    """Words, judgement, flow, edges, outside."""
    assert re.findall(r"^  — (\w+)", topup.__doc__ or "", re.MULTILINE) == GROUPS


def test_the_package_holds_nothing_but_map_and_version() -> None:
    """Importing topup imports nothing."""
    body = ast.parse(TEXT).body
    assert [type(part) for part in body] == [ast.Expr, ast.Assign]
    assert re.fullmatch(r"\d+\.\d+\.\d+", topup.__version__)
