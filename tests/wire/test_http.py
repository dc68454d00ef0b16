"""What does asking over HTTP cost beside the question?"""

import sys
from importlib import import_module

import pytest
from httpcore import _synchronization


class Searches(list[str]):
    """A finder that finds nothing and keeps what it was asked for."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.append(name)


def test_a_request_searches_for_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search for what is not installed reads all of sys.path, and httpcore begins a dozen for one request."""
    import_module("topup.wire.http")  # what ends the searches
    searches = Searches()
    monkeypatch.setattr(sys, "meta_path", [searches, *sys.meta_path])
    assert _synchronization.current_async_library() == "asyncio"
    assert searches == []
