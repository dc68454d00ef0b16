"""Does the server answer what it should and nothing else, and can nobody who asks exhaust it?"""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from tests.tools import HANGS_S
from tests.world.served import until
from topup.web import server
from topup.web.hosts import own
from topup.web.server import CONNECTIONS_MAX, HEAD_BYTES_MAX, Answer, Route, Server


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        *[
            (host, True)
            for host in ("localhost", "localhost:9464", "LOCALHOST", "127.0.0.1:1", "[::1]:9464", "10.0.0.7")
        ],
        *[(host, True) for host in ("topup.internal", "topup.internal:9464")],
        *[(host, False) for host in ("", "evil.example", "evil.example:9464", "localhost.evil.example", "::1", "[::1")],
        *[
            (host, False)
            for host in ("a@localhost", "localhost/", "localhost:x", "127.0.0.1.evil.example", "2130706433")
        ],
    ],
)
def test_only_names_of_this_machine_are_its_own(host: str, ours: bool) -> None:  # noqa: FBT001
    """An address, localhost, and what the owner has named; a name that somebody else points here is none."""
    assert own(host, ("topup.internal",)) is ours


# More than any buffer between two ends of loopback holds.
LARGE = 64 * 1024 * 1024
FREE = threading.Event()


def _blocks(_: str) -> Answer:
    FREE.wait(HANGS_S)
    return Answer(HTTPStatus.OK, "text/plain", b"late")


def _breaks(_: str) -> Answer:
    raise KeyError("CANARY")


ROUTES = {
    "/quick": Route(lambda accepts: Answer(HTTPStatus.OK, "text/plain", accepts.encode()), reads=False),
    "/read": Route(lambda _: Answer(HTTPStatus.OK, "text/plain", b"read")),
    "/large": Route(lambda _: Answer(HTTPStatus.OK, "text/plain", bytes(LARGE))),
    "/blocks": Route(_blocks),
    "/breaks": Route(_breaks),
}


@pytest.fixture
def served() -> Iterator[Server]:
    """A server on a port of loopback, with much patience."""
    FREE.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "PATIENCE_S", HANGS_S)
        patch.setattr(server, "ANSWER_S", HANGS_S)
        made = Server(server.listen("127.0.0.1", 0), ROUTES)
        made.start()
        yield made
        FREE.set()
        made.stop()
        assert not made._thread.is_alive()


@pytest.fixture
def port(served: Server) -> int:
    return int(served._port.getsockname()[1])


def sent(port: int, text: str = "") -> socket.socket:
    """Open a connection and send so much of a request."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=HANGS_S)
    opened.sendall(text.encode("latin-1"))
    return opened


def cut(opened: socket.socket) -> bool:
    """Tell whether the server ends a connection without an answer; waits for either."""
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:
        return True


def answered(port: int, path: str = "/quick", method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_S)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_it_answers_at_its_paths(port: int) -> None:
    """With what is accepted at hand, whatever stands behind a question mark; to HEAD without the body."""
    assert answered(port, "/quick?a=b", Accept="text/x") == (200, "text/x")
    assert answered(port, "/read") == (200, "read")
    assert answered(port, "/read", "HEAD") == (200, "")
    assert answered(port, "/other")[0] == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /quick HTTP/1.0\r\n\r\n", 200),
        ("GET /quick HTTP/1.1\r\n\r\n", 400),
        ("GET /quick HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /quick HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        ("GET /quick HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        ("POST /quick HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET http://localhost/quick HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /quick HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("\xff\xfe\r\n\r\n", 400),
        (f"GET /quick HTTP/1.1\r\nHost: localhost\r\nX: {'x' * HEAD_BYTES_MAX}\r\n\r\n", 431),
        ("GET " + "x" * 3 * HEAD_BYTES_MAX, 431),
    ],
)
def test_what_is_no_request_of_ours_is_refused(port: int, request_: str, status: int) -> None:
    """With the status that says why."""
    with sent(port, request_) as opened:
        assert opened.recv(13) == f"HTTP/1.1 {status} ".encode()


def test_who_asks_slowly_keeps_nobody_out(port: int) -> None:
    """Of many that hold a connection and finish no request the oldest goes; whoever asks is answered."""
    with contextlib.ExitStack() as held:
        idle = [held.enter_context(sent(port, "GET /quick HT")) for _ in range(2 * CONNECTIONS_MAX)]
        assert answered(port)[0] == 200
        assert all(cut(opened) for opened in idle[: CONNECTIONS_MAX + 1])
        idle[-1].sendall(b"TP/1.0\r\n\r\n")
        assert idle[-1].recv(12) == b"HTTP/1.1 200"


def test_who_asks_too_slowly_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is room, after a while."""
    monkeypatch.setattr(server, "PATIENCE_S", 0.01)
    with sent(port, "GET /quick HT") as opened:
        assert cut(opened)


def test_who_takes_no_answer_is_cut_off(served: Server, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, and gets no more than was on its way."""
    monkeypatch.setattr(server, "PATIENCE_S", 0.1)
    with sent(port, "GET /large HTTP/1.0\r\n\r\n") as opened:
        taken = len(opened.recv(1))
        until(lambda: not served._open)
        with contextlib.suppress(ConnectionResetError):
            while more := len(opened.recv(1024 * 1024)):
                taken += more
    assert taken < LARGE


def test_an_answer_that_does_not_come_keeps_no_other_back(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, as are those that wait for their turn behind it; what reads nothing is answered all along."""
    monkeypatch.setattr(server, "ANSWER_S", 0.01)
    assert answered(port, "/blocks")[0] == 503
    assert answered(port, "/read")[0] == 503
    assert answered(port, "/quick")[0] == 200
    FREE.set()
    monkeypatch.setattr(server, "ANSWER_S", HANGS_S)
    until(lambda: answered(port, "/read")[0] == 200)


def test_a_defect_tells_its_kind_and_the_next_is_answered(port: int) -> None:
    """And not its text."""
    assert answered(port, "/breaks") == (500, "a defect: KeyError\n")
    assert answered(port, "/read")[0] == 200
