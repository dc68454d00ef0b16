"""Whose is a provider? Two URLs of one owner are one witness, however many names it answers under.

The owner is taken from the registrable domain of the host: its last two labels, or three under a suffix that is
itself registered by the public, such as co.uk. The list of those is short on purpose. A suffix that is missing from it
makes two owners look like one, which costs a witness and never invents one; the full list of public suffixes would
also have to be kept fresh. A loopback address counts with its port, because whatever listens there was put there by
whoever runs topup; any other address stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

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


def owner(url: str) -> str:
    """Return who answers at a URL, as far as its host tells: the same text for two URLs means one owner."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        labels = host.split(".")
        return ".".join(labels[-3:] if ".".join(labels[-2:]) in SUFFIXES else labels[-2:])
    if not loopback:
        return host
    # By whatever name this machine calls itself.
    _, _, port = parts.netloc.rpartition("]")[2].rpartition(":")
    return f"loopback:{port or parts.scheme}"


def quorum(urls: Sequence[str], wanted: int | None) -> int:
    """Return how many independent providers have to agree: as many as are wanted, else two where there are two."""
    return wanted if wanted is not None else min(2, len({owner(url) for url in urls}))
