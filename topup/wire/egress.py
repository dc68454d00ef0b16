"""How does a question leave this machine? Through which proxy, trusting whose certificates, and why it found nobody.

Proxies and certificate authorities are two questions. What stays on this machine uses no proxy, and is held to the
house's own authorities like everything else. The environment's settings are judged before anything is asked: a
variable that is wrong ends in a sentence that names it, and never in a question that takes another way.
"""

import errno
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from re import fullmatch
from socket import gaierror
from typing import Final
from urllib.parse import urlsplit

import certifi
import httpx

from topup.domain.errors import SettingsError

# Which variable names the proxy of an https:// URL, the stronger first. Plain http is spoken on this machine only.
PROXIES: Final = ("HTTPS_PROXY", "ALL_PROXY")
# No command asks anybody through this one; it is judged with the others, because whoever set it set them all.
UNUSED: Final = "HTTP_PROXY"
EXCEPT: Final = "NO_PROXY"
CA_FILE, CA_DIRS = "SSL_CERT_FILE", "SSL_CERT_DIR"
HOST: Final = r"([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?"
# What ends in a number is an address, or a wrong one (as URLs are read by every browser).
NUMBER_LAST: Final = r"(.*[.-])?[0-9]+\.?"
PORT_MAX: Final = 65_535
SHOWN_MAX: Final = 60


@dataclass(frozen=True)
class Way:
    """How one server is reached: `trust` judges its certificate; `proxy` may hold a password."""

    trust: ssl.SSLContext
    proxy: str | None = field(default=None, repr=False)
    # Which variable named the proxy.
    variable: str = ""

    def client(self, *, limits: httpx.Limits | None = None) -> httpx.AsyncClient:
        """Return a client that goes this way and no other, follows no redirect and has no deadline of its own."""
        proxy = None
        if self.proxy is not None:
            own = self.trust if self.proxy.startswith("https:") else None
            proxy = httpx.Proxy(self.proxy, ssl_context=own)
        return httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # whoever asks bounds the whole answer, which httpx cannot
            trust_env=False,
            verify=self.trust,
            proxy=proxy,
            limits=limits or httpx.Limits(),
        )

    def failure(self, error: BaseException) -> str:
        """Say in a few words why no answer came; nothing that the other side wrote is repeated."""
        said = why(error)
        return f"{said} (through the proxy of {self.variable})" if self.proxy is not None else said


def way(url: str, environ: Mapping[str, str]) -> Way:
    """Return how a URL is reached in this environment; a SettingsError names the variable that is wrong."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        # On this machine, in the clear: there is nothing to trust, and no proxy has any business there.
        return Way(_nobody())
    proxied, direct = _proxy(environ), _directly(environ)
    trust = _trust(environ.get(CA_FILE, ""), environ.get(CA_DIRS, ""))
    host = _spelt(parts.hostname or "")
    if proxied is None or loopback(host) or any(entry.covers(host, parts.port or 443) for entry in direct):
        return Way(trust)
    return Way(trust, proxied[1], proxied[0])


def loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's own."""
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


# -- proxies --------------------------------------------------------------------------------------------------


def _said(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return a variable as it is written and its value; most programs take the small letters before the capitals."""
    written = next((spelling for spelling in (name.lower(), name) if environ.get(spelling, "").strip()), name)
    return written, environ.get(written, "").strip()


def _proxy(environ: Mapping[str, str]) -> tuple[str, str] | None:
    name, said = _said(environ, UNUSED)
    if said:
        _proxy_url(name, said)
    for strongest in PROXIES:
        name, said = _said(environ, strongest)
        if said:
            return name, _proxy_url(name, said)
    return None


def _proxy_url(name: str, said: str) -> str:
    """Return the URL of a proxy; one without a scheme is reached by plain HTTP, as most programs take it."""
    parts = fullmatch(r"(?i:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<rest>[^/?#]+)/?", said)
    remedy = f"give {name} a URL such as http://proxy.example:3128, or unset it for topup"
    scheme = (parts["scheme"] or "http").lower() if parts else ""
    if scheme.startswith("socks"):
        raise SettingsError(f"{name} names a SOCKS proxy, which topup does not speak", remedy=remedy)
    strange = any(c.isspace() or not c.isprintable() or c == "\\" for c in said)
    # The value itself is not repeated: it may hold a password.
    if parts is None or scheme not in ("http", "https") or strange or not _authority(parts["rest"]):
        raise SettingsError(f"{name} is no URL of an HTTP proxy: its scheme, host or port is wrong", remedy=remedy)
    url = f"{scheme}://{parts['rest']}"
    try:
        httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL):
        raise SettingsError(f"{name} is no URL of an HTTP proxy: it cannot be read", remedy=remedy) from None
    return url


def _authority(said: str) -> bool:
    """Tell whether a host, with a user before it or without, and a port or none, can be reached at all."""
    try:
        parts = urlsplit(f"//{said}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return port != 0 and (_address(host) is not None or _named(host))


def _named(host: str) -> bool:
    """Tell whether this is the name of a host; one that ends in a number would be an address."""
    spelt = _spelt(host)
    return fullmatch(HOST, spelt) is not None and fullmatch(NUMBER_LAST, spelt) is None


def _spelt(host: str) -> str:
    """Return a host's name as it is asked for: in small letters, those beyond ASCII as "xn--"."""
    try:
        plain = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        plain = host
    return plain.rstrip(".").lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, None for a name; one of IPv4 within IPv6 is that of IPv4."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True)
class _Direct:
    """One entry of NO_PROXY: what it names is asked without a proxy."""

    text: str
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.text == "*":
            return True
        address = _address(host)
        if address is None:
            return host == self.text or host.endswith("." + self.text)
        try:
            return address in ip_network(self.text, strict=False)
        except ValueError:
            return False


def _directly(environ: Mapping[str, str]) -> list[_Direct]:
    name, said = _said(environ, EXCEPT)
    return [_direct(name, part) for entry in said.split(",") if (part := entry.strip())]


def _direct(variable: str, part: str) -> _Direct:
    remedy = f"name hosts, domains or addresses in {variable}, separated by commas, or unset it for topup"
    shown = ascii(part[:SHOWN_MAX])
    if part.startswith("["):
        raise SettingsError(f"{variable} holds {shown}: an IPv6 address stands there without brackets", remedy=remedy)
    if part == "*":
        return _Direct(part)
    address, slash, _ = part.partition("/")
    ip = _address(address)
    if ip is not None:
        if slash and ":" in address:
            raise SettingsError(f"{variable} holds {shown}: ranges of IPv6 are not read there", remedy=remedy)
        with suppress(ValueError):
            return _Direct(str(ip_network(part, strict=False)) if slash else str(ip))
    name, colon, port = part.rpartition("://")[2].partition(":")
    host = _spelt(name.removeprefix("*").removeprefix("."))
    at = _address(host)
    right = not colon or (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= PORT_MAX)
    if ip is not None or not right or not (at is not None or _named(host)):
        raise SettingsError(f"{variable} holds {shown}, which is no host, domain or address", remedy=remedy)
    return _Direct(host if at is None else str(at), int(port) if colon else None)


# -- certificates ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _nobody() -> ssl.SSLContext:
    """Trust nobody: for where no certificate is shown."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@lru_cache(maxsize=8)
def _trust(file: str, dirs: str) -> ssl.SSLContext:
    """Return the judge of certificates: by the house's own authorities where some are named, else the public ones."""
    # Not `ssl.create_default_context`: it would write the keys of every connection into the file that SSLKEYLOGFILE
    # names, and with them the API key, for whoever reads it there.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not file and not dirs:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cafile=certifi.where())
        return context
    if file:
        _must_be(CA_FILE, file, stat.S_ISREG, "file")
    named = [directory for directory in dirs.split(":") if directory] or [dirs] * bool(dirs)
    for directory in named:
        _must_be(CA_DIRS, directory, stat.S_ISDIR, "directory")
    # OpenSSL looks a certificate up under the hash of its name, and takes no notice of any other file.
    hashed = any(fullmatch(r"[0-9a-f]{8}\.[0-9]+", path.name) for directory in named for path in _names(directory))
    if named and not hashed and not file:
        remedy = "run `openssl rehash` on it, name a file in SSL_CERT_FILE instead"
        raise _unusable(CA_DIRS, dirs, "holds no certificate under its hash", remedy)
    try:
        context.load_verify_locations(cafile=file or None, capath=dirs or None)
    except (OSError, ValueError) as error:
        wrong = f"holds no certificates that can be read ({type(error).__name__})"
        raise _unusable(CA_FILE, file, wrong, f"name a file of certificates in PEM in {CA_FILE}") from None
    return context


def _must_be(name: str, said: str, kind: Callable[[int], bool], what: str) -> None:
    try:
        wrong = "" if kind(Path(said).stat().st_mode) else f"is no {what}"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero byte in its name
        wrong = "does not exist"
    except OSError as error:
        wrong = f"cannot be looked at ({errno.errorcode.get(error.errno or 0, 'unknown')})"
    if wrong:
        raise _unusable(name, said, wrong, f"correct {name}, mount what it names")


def _names(directory: str) -> Iterator[Path]:
    try:
        yield from Path(directory).iterdir()
    except OSError as error:
        wrong = f"cannot be read ({type(error).__name__})"
        raise _unusable(CA_DIRS, directory, wrong, f"correct {CA_DIRS}") from None


def _unusable(name: str, said: str, wrong: str, remedy: str) -> SettingsError:
    return SettingsError(f"{name} names {said[:200]!a}, which {wrong}", remedy=f"{remedy}, or unset it for topup")


# -- why nobody was reached -----------------------------------------------------------------------------------

# What OpenSSL calls it when the other side does not speak TLS at all.
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def why(error: BaseException) -> str:
    """Say why a question was not answered: name, TLS and a closed port are told apart."""
    below = list(_below(error, set()))
    for cause in below:
        if isinstance(cause, gaierror):
            return "the host's name cannot be resolved (DNS)"
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message if cause.verify_message.isprintable() else ""
            return f"TLS: its certificate is not trusted ({reason[:120] or 'no reason given'})"
        if isinstance(cause, ssl.SSLError):
            reason = str(cause.reason or "")
            if reason in NO_TLS:
                return f"TLS: what answers there does not speak it ({reason})"
            return f"TLS: the connection failed ({reason or type(cause).__name__})"
    for cause in below:
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: nothing listens there"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return "the connection was cut"
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return f"the network says: {cause.strerror}"
    if isinstance(error, httpx.ProxyError):
        return "the proxy refused"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection ended without a whole answer"
    return type(error).__name__


def _below(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for inner in getattr(error, "exceptions", ()):
        yield from _below(inner, seen)
    yield from _below(error.__cause__, seen)
    yield from _below(error.__context__, seen)
