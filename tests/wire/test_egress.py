"""Is what the environment says of proxies and certificates kept to, or named at once? Real sockets, real TLS."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.served import TOPUP, ran
from topup.chain.rpc import Rpc
from topup.domain.errors import ApiUnknown, ChainUnknown, SettingsError
from topup.wire.egress import Way, _trust, loopback, way
from topup.wire.exchange import Exchange
from topup.wire.http import Client

URL = "https://gateway.example/api/v1"
PROXY = "http://proxy.example:3128"
# A port on which nothing listens, of an address of this machine that a test may use.
CLOSED = "https://127.0.0.2:9/api/v1"


def refused(environ: dict[str, str], url: str = URL) -> str:
    """The sentence with which this environment is refused."""
    with pytest.raises(SettingsError) as error:
        way(url, environ)
    assert error.value.remedy
    assert error.value.exit_code == 2
    return str(error.value)


# What a variable cannot hold, by the words that say why.
HOST, HOSTS = "host or port is wrong", "no host, domain or address"
BROKEN: list[tuple[str, str, str]] = [
    *(("NO_PROXY", text, "ranges of IPv6") for text in ("localhost,127.0.0.1,fd07:b51a:cc66:f0::/64", "::1/128")),
    ("no_proxy", "fd00::/8", "ranges of IPv6"),
    *(("NO_PROXY", text, "without brackets") for text in ("localhost,[::1]", "[fe80::1]:8080")),
    *(("NO_PROXY", text, HOSTS) for text in ("localhost 127.0.0.1", "10.0.0.0/33", "a\x1b[2Jb", "10.", "10.*")),
    *(("NO_PROXY", text, HOSTS) for text in ("10.0.0.0-10.0.0.9", "gateway.example:99999", "<local>")),
    *((name, "socks://127.0.0.1:1080/", "SOCKS") for name in ("ALL_PROXY", "all_proxy")),
    *(("HTTPS_PROXY", f"{scheme}://127.0.0.1:1080/", "SOCKS") for scheme in ("socks4", "socks5h")),
    *(("HTTPS_PROXY", f"http://{host}", HOST) for host in ("127.0.0.1:port", "127.0.0.1:99999", "", "300.1.1.1:3128")),
    *(("HTTPS_PROXY", f"http://{host}", HOST) for host in ("proxy.example:3128/path?x", "${PROXY_HOST}:3128")),
    *(
        ("HTTPS_PROXY", url, HOST)
        for url in ("ftp://proxy.example", "http:/proxy.example:3128", "//proxy.example:3128")
    ),
    *(("HTTPS_PROXY", url, HOST) for url in ("http://a.example:1,http://b.example:2", f'"{PROXY}"')),
    ("HTTPS_PROXY", f"\u201c{PROXY}\u201d", HOST),
    ("HTTP_PROXY", "http://[::1:3128", HOST),
    ("https_proxy", "PROXY proxy.example:3128", HOST),
    *(("SSL_CERT_FILE", path, "does not exist") for path in ("/nonexistent/ca.pem", "/etc/hostname/ca.pem")),
    ("SSL_CERT_FILE", "/etc/hostname", "no certificates that can be read"),
    ("SSL_CERT_FILE", "/etc", "is no file"),
    *((name, "x" * 5000, "cannot be looked at (ENAMETOOLONG)") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")),
    *(("SSL_CERT_DIR", path, "does not exist") for path in (":", "/nonexistent")),
    ("SSL_CERT_DIR", "/etc/hostname", "is no directory"),
    ("SSL_CERT_DIR", "/proc/self/task", "holds no certificate under its hash"),
]


@pytest.mark.parametrize(("name", "value", "says"), BROKEN)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str, says: str) -> None:
    """Whatever is wrong with a proxy or an authority, the sentence begins with the variable that says it."""
    said = refused({name: value})
    assert said.startswith(f"{name} ")
    assert says in said
    assert said.isprintable()


def test_no_password_of_a_proxy_is_repeated() -> None:
    """A proxy's URL often holds one: neither a refusal nor a way shows it."""
    assert "hunter2" not in refused({"HTTPS_PROXY": "http://me:hunter2@proxy.example:port"})
    assert "hunter2" not in refused({"ALL_PROXY": "socks5://me:hunter2@proxy.example"})
    assert "hunter2" not in repr(way(URL, {"HTTPS_PROXY": "http://me:hunter2@proxy.example:3128"}))


OTHER = "http://other.example"
# The variables, and which of them is used for the gateway: "" where none is.
USED: list[tuple[dict[str, str], str]] = [
    ({}, ""),
    ({"HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
    ({"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, "https_proxy"),
    ({"ALL_PROXY": PROXY}, "ALL_PROXY"),
    ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks://127.0.0.1:1080"}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": "proxy.example:3128"}, "HTTPS_PROXY"),
    ({"https_proxy": " ", "HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
    ({"HTTPS_PROXY": f" {PROXY}/\r"}, "HTTPS_PROXY"),
    ({"HTTP_PROXY": PROXY}, ""),
]
# What NO_PROXY holds, a host, and whether that goes without a proxy.
WITHOUT: list[tuple[str, str, bool]] = [
    *(
        (names, "gateway.example", True)
        for names in ("*", "gateway.example", ".example, other", "*.example", "EXAMPLE.")
    ),
    *((names, "gateway.example", names.endswith(":443")) for names in ("way.example", "gateway.example:443")),
    ("gateway.example:8443", "gateway.example", False),
    *(("10.0.0.0/8", host, host == "10.1.2.3") for host in ("10.1.2.3", "11.1.2.3")),
    ("2001:db8::1", "[2001:DB8:0::1]", True),
    *(("10.1.2.3", "[::ffff:10.1.2.3]", True), ("::ffff:10.1.2.3", "10.1.2.3", True)),
    *(("b\u00fccher.example", "xn--bcher-kva.example", True), ("xn--bcher-kva.example", "b\u00fccher.example", True)),
]
HERE = ("127.0.0.1", "127.0.0.2", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]")


@pytest.mark.parametrize(("environ", "variable"), USED)
def test_which_proxy_a_url_is_asked_through(environ: dict[str, str], variable: str) -> None:
    """The strongest variable wins."""
    found = way(URL, environ)
    assert (found.proxy, found.variable) == (PROXY if variable else None, variable)


def test_what_goes_without_a_proxy() -> None:
    """What NO_PROXY names, and what stays on this machine: addresses and names that are its own by definition."""
    for names, host, without in WITHOUT:
        assert (way(f"https://{host}", {"HTTPS_PROXY": PROXY, "NO_PROXY": names}).proxy is None) == without, (
            names,
            host,
        )
    for host in HERE:
        assert way(f"https://{host}:8443/x", {"HTTPS_PROXY": PROXY}).proxy is None, host
    for host in ("10.0.0.1", "example.com", "localhost.example.com", "128.0.0.1", "::2", ""):
        assert not loopback(host), host
    assert way(URL, {"HTTPS_PROXY": "[::1]:3128"}).proxy == "http://[::1]:3128"
    # Plain http stays on this machine: a proxy that is broken and an authority that is gone do not concern it.
    clear = way("http://127.0.0.1:8080", {"ALL_PROXY": "socks://x", "SSL_CERT_FILE": "/nonexistent"})
    assert clear.proxy is None


@given(st.sampled_from([name for name, _, _ in BROKEN]), st.text(max_size=60))
def test_whatever_a_variable_holds_it_is_used_or_named(name: str, value: str) -> None:
    """No text raises anything else than a refusal that begins with the variable, printable and bounded."""
    try:
        found = way(URL, {name: value})
    except SettingsError as error:
        said = str(error)
        assert said.startswith(f"{name} ")
        assert said.isprintable()
        assert len(said) < 500
    else:
        assert isinstance(found, Way)


def test_every_certificate_is_judged_by_its_authority_and_its_name(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever authorities are trusted, a certificate is wanted, and one of that host's name."""
    # No key of a connection is written to a file: Python's own default would write them where SSLKEYLOGFILE says.
    for name in ("keys", "nowhere/keys"):
        monkeypatch.setenv("SSLKEYLOGFILE", str(house / name))
        for environ in ({}, {"SSL_CERT_FILE": str(house / "ca.pem")}):
            _trust.cache_clear()
            trust = way(URL, environ).trust
            assert (trust.verify_mode, trust.check_hostname) == (ssl.CERT_REQUIRED, True)
            assert trust.get_ca_certs()
            assert trust.keylog_filename is None
        assert not (house / name).exists()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of the house's own, and a certificate of it for this machine."""
    here = tmp_path_factory.mktemp("house")
    (here / "ext").write_text("subjectAltName=IP:127.0.0.1,IP:127.0.0.2,DNS:localhost\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=house",
        "req -newkey rsa:2048 -nodes -keyout s.key -out s.csr -subj /CN=gateway",
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out s.pem -extfile ext",
    ):
        subprocess.run(["openssl", *command.split()], cwd=here, check=True, capture_output=True)
    return here


@asynccontextmanager
async def serving(
    house: Path | None, answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
) -> AsyncIterator[int]:
    """A server on a free port, over TLS with the house's certificate where that is given."""
    context = None
    if house is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(house / "s.pem", house / "s.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(10)
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        finally:  # also where the story ends before the other side has heard it all
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def asked(url: str) -> str:
    """What comes of asking a URL: the status, or the sentence without one."""
    exchange = Exchange(url, timeout_s=10)
    try:
        return str((await exchange.ask("GET", "/x", headers={})).status)
    except ApiUnknown as error:
        return str(error)
    finally:
        await exchange.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_houses_own_authority_holds_on_this_machine_too(
    host: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SSL_CERT_FILE a certificate of the house is trusted on loopback, and no proxy of the environment is used."""
    monkeypatch.setenv("SSL_CERT_FILE", str(house / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    async with serving(house) as port:
        assert await asked(f"https://{host}:{port}") == "200"


async def test_dns_tls_and_a_closed_port_are_told_apart(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown authority, a server without TLS, a closed port and a proxy that is away: each has its own words."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    async with serving(house) as port:
        assert "TLS: its certificate is not trusted" in await asked(f"https://127.0.0.1:{port}")
    async with serving(None) as port:
        assert "TLS: what answers there does not speak it" in await asked(f"https://127.0.0.1:{port}")
    assert "the connection was refused" in await asked(CLOSED)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    said = await asked("https://gateway.example")
    assert said == "/x: the connection was refused: nothing listens there (through the proxy of HTTPS_PROXY)"


def test_a_name_that_nobody_knows_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be resolved is neither a closed port nor trouble with TLS."""

    async def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    async def story() -> str:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        rpc = Rpc("https://gateway.invalid/k3y-k3y-k3y", timeout_s=5)
        try:
            await rpc.ask("eth_chainId")
        except ChainUnknown as error:
            return str(error)
        finally:
            await rpc.close()
        return ""

    assert asyncio.run(story()) == "gateway.invalid: the host's name cannot be resolved (DNS)"


def test_a_proxy_is_told_the_host_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It carries TLS: whether it refuses or agrees, it is shown neither path nor header nor body."""
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def story(agrees: bool) -> bytes:  # noqa: FBT001
        shown = bytearray()

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                shown.extend(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if agrees else b"HTTP/1.1 403 No\r\n\r\n")
                await writer.drain()
                shown.extend(await reader.read(65536))
            finally:  # also where the story ends before the other side does
                writer.transport.abort()

        async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            exchange = Exchange("https://gateway.example/k3y-in-the-path", timeout_s=10)
            with pytest.raises(ApiUnknown):
                await exchange.ask("POST", "/x", headers={"authorization": "Bearer k3y-in-a-header"}, body=b"k3y-in-it")
            await exchange.close()
        return bytes(shown)

    for agrees in (False, True):
        shown = asyncio.run(story(agrees))
        assert shown.startswith(b"CONNECT gateway.example:443 ")
        assert b"k3y" not in shown


COMMANDS = ["once", "check", "run", "doctor", "status --live", "reconcile"]


@pytest.mark.machine_time
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_goes_out_names_the_variable_at_once(command: str, tmp_path: Path) -> None:
    """Exit 2 and a sentence; the daemon does not start; `doctor` says it beside its other findings."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "NO_PROXY": "fd00::/8",
        "TOPUP_CONFIG": "/dev/null",
        "TOPUP_API__KEY": "sk-or-v1-case",
        "TOPUP_API__URL": CLOSED,
        "TOPUP_CHAIN__RPC_URLS": "https://127.0.0.2:9/rpc",
        "TOPUP_WALLET__ADDRESS": "0x" + "11" * 20,
        "TOPUP_STATE_DIR": str(tmp_path / "ledger"),
    }
    if command.startswith("status"):
        ran([*TOPUP, "once"], {**environ, "NO_PROXY": ""})  # there has to be a ledger
    done = ran([*TOPUP, *command.split()], environ)
    said = done.stdout + done.stderr
    assert "NO_PROXY holds 'fd00::/8'" in said, said
    assert "Traceback" not in said
    assert '"event": "started"' not in said
    assert done.returncode == (3 if command == "doctor" else 2), said


async def test_a_connection_that_two_give_up_is_not_another_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two questions side by side may both find an answer wrong; what a third opens meanwhile stays its own."""
    ends = [asyncio.Event(), asyncio.Event()]
    waited = iter(ends)
    close = httpx.AsyncClient.aclose

    async def slowly(self: httpx.AsyncClient) -> None:
        await next(waited).wait()
        await close(self)

    client = Client("http://127.0.0.1:9", lasting=True)
    client._opened()
    with monkeypatch.context() as slow:
        slow.setattr(httpx.AsyncClient, "aclose", slowly)
        giving_up = [asyncio.create_task(client.close()) for _ in ends]
        await asyncio.sleep(0)
        ends[0].set()
        await giving_up[0]
        other = client._opened()
        ends[1].set()
        await giving_up[1]
    assert client._client is other
    await client.close()
    assert other.is_closed
