"""May this process speak to that address? Only to this machine: the tests never leave it.

Python imports a module of this name at its start, so every Python process that a test starts with this folder on
PYTHONPATH is guarded from its first line; conftest.py imports it for the test process itself. An audit hook cannot be
taken off again and sees every way of connecting, asyncio's included. Since the program under test may well catch what
is raised here (a failed connection is its daily bread), each refusal is also written to the file that
TOPUP_TEST_GUARD_LOG names, and conftest.py fails the test that wrote it.
"""

import ipaddress
import os
import socket
import sys
from typing import Any

LOG = "TOPUP_TEST_GUARD_LOG"
NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost"}


class OutsideLoopback(RuntimeError):
    """Something tried to leave this machine."""


def is_loopback(host: object) -> bool:
    """Tell whether a host, as a socket call takes it, is this machine; a name that needs a resolver is not."""
    if host is None:
        return True
    text = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text.lower() in NAMES
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _host(event: str, args: tuple[Any, ...]) -> object:
    """Return the host an audited call is about, None when it is about none."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        return args[0]
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg") or args[1] is None:
        return None
    return args[1][0] if args[0].family in (socket.AF_INET, socket.AF_INET6) else None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or is_loopback(host := _host(event, args)):
        return
    log = os.environ.get(LOG)
    if log:
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would cost every process its import
            file.write(f"{event} {host!r} by process {os.getpid()}: {' '.join(sys.argv)[:200]}\n")
    raise OutsideLoopback(f"{event}: {host!r} is outside this machine")


sys.addaudithook(_hook)
