"""Whose is a provider? Two URLs of one owner are one witness, however many names it answers under.

The owner is taken from the registrable domain of the host: its last two labels, or three under a suffix that is
itself registered by the public, such as co.uk. The list of those is short on purpose. A suffix that is missing from it
makes two owners look like one, which costs a witness and never invents one; the full list of public suffixes would
also have to be kept fresh. A loopback address counts with its port, because whatever listens there was put there by
whoever runs topup; any other address stands for itself, however it is written. Where two spellings might be one name,
they are one, for the same reason.
"""

import socket
import unicodedata
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

# Second-level suffixes of countries that register under them, from publicsuffix.org's list.
SUFFIXES: Final = frozenset(
    f"{second}.{top}"
    for top, seconds in {
        "uk": "ac co gov ltd me net org plc",
        "au": "com edu net org",
        "nz": "ac co net org",
        "za": "co net org web",
        "jp": "ac co ne or",
        "kr": "co ne or",
        "br": "com net org",
        "cn": "com net org",
        "tw": "com net org",
        "hk": "com net org",
        "sg": "com net org",
        "in": "co net org",
        "il": "co net org",
        "tr": "com net org",
        "mx": "com net org",
        "ar": "com net org",
    }.items()
    for second in seconds.split()
)


# IPv4 addresses as a translating network writes them (RFC 6052).
TRANSLATED: Final = IPv6Network("64:ff9b::/96")
PORTS: Final = {"http": 80, "https": 443}


def owner(url: str) -> str:
    """Return who answers at a URL, as far as its host tells: the same text for two URLs means one owner."""
    parts = urlsplit(url)
    host = _name(parts.hostname or "")
    address = _address(host)
    local = host.endswith(".localhost") or host in ("localhost", "localhost.localdomain")
    if local or (address is not None and (address.is_loopback or address.is_unspecified)):
        # By whatever name this machine calls itself.
        try:
            port = parts.port
        except ValueError:  # none that can be asked at
            port = None
        return f"loopback:{port or PORTS.get(parts.scheme, parts.scheme)}"
    if address is not None:
        return str(address)
    labels = host.split(".")
    return ".".join(labels[-3:] if ".".join(labels[-2:]) in SUFFIXES else labels[-2:])


def _name(host: str) -> str:
    """Return a host's name in one spelling: as letters rather than as "xn--", without case, width and marks."""
    # The full stops of other scripts divide labels, too (RFC 3490).
    spelt = unicodedata.normalize("NFKC", unquote(host)).translate({0x3002: ".", 0xFF61: "."})
    labels = []
    for label in spelt.lower().rstrip(".").split("."):
        said = label
        if label.startswith("xn--"):
            try:
                said = label.removeprefix("xn--").encode("ascii").decode("punycode")
            except ValueError:  # no such encoding of anything: it stays what it is
                said = label
        # What cannot be seen is no part of a name.
        seen = "".join(c for c in said if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
        labels.append(unicodedata.normalize("NFKC", seen).casefold())
    return ".".join(labels)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])  # a zone says by which way, not which machine
    except ValueError:
        try:
            # The system takes 127.1, 0x7f000001 and 2130706433 for addresses as well.
            return IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(address, IPv6Address):
        if address in TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def quorum(urls: Sequence[str], wanted: int | None) -> int:
    """Return how many independent providers have to agree: as many as are wanted, else two where there are two."""
    return wanted if wanted is not None else min(2, len({owner(url) for url in urls}))
