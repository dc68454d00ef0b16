"""Which world is measured against? The sandbox's in a process of its own, behind proxies that add a round trip's delay.

A process of its own, so that what is measured shares neither interpreter nor CPU time with it. Its first line on
standard output says where it listens; then it answers each line on standard input with one JSON line: `mine` lets
six seconds and three blocks pass, `dip` takes the balance below the floor, `counts` tells the requests so far. It
ends with its standard input. With --mining blocks come by themselves every two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eth_keys.datatypes import PrivateKey

from topup.sandbox.rpc import Chain
from topup.sandbox.world import BLOCK_S, World, embedded

WALLET_WEI = 100 * 10**18
BLOCKS_A_TIME = 3


class Proxy:
    """A TCP proxy that adds `rtt_s` seconds to each round trip, and as much to the opening of a connection.

    Bytes leave in order at their time of arrival plus the delay, so a request written in two pieces waits once.
    """

    def __init__(self, url: str, rtt_s: float) -> None:
        """Forward to the server behind `url`; nothing listens until `start`."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._to, self._path, self._rtt_s = (parts.hostname, parts.port), parts.path, rtt_s
        self._open: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def start(self) -> None:
        """Listen on loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{self._path}"

    def cut(self) -> None:
        """End every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._rtt_s)
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        self._open |= {writer, far_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_flow(reader, far_writer, self._rtt_s), _flow(far_reader, writer, 0))
        self._open -= {writer, far_writer}


async def _flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take() -> None:
        data = b"-"
        while data:
            data = await reader.read(1 << 16)
            await waiting.put((loop.time() + delay_s, data))

    async def give() -> None:
        while True:
            at, data = await waiting.get()
            if (left := at - loop.time()) > 0:
                await asyncio.sleep(left)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    await asyncio.gather(take(), give())


class Proxies:
    """A proxy before each of the two servers for each delay, in a thread of their own. `urls` by milliseconds."""

    def __init__(self, world: World, rtts_ms: list[int]) -> None:
        """Start them; return once they listen."""
        self._pairs = {ms: (Proxy(world.rpc.url, ms / 1000), Proxy(world.gateway.url, ms / 1000)) for ms in rtts_ms}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        for proxy in self._all():
            asyncio.run_coroutine_threadsafe(proxy.start(), self._loop).result(timeout=10)
        self.urls = {str(ms): {"rpc": rpc.url, "api": api.url} for ms, (rpc, api) in self._pairs.items()}

    def stop(self) -> None:
        """Cut every connection, so that the servers behind can end in peace."""

        async def cut() -> None:
            for proxy in self._all():
                proxy.cut()
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result(timeout=10)

    def _all(self) -> list[Proxy]:
        return [proxy for pair in self._pairs.values() for proxy in pair]


def mine(world: World) -> dict[str, Any]:
    """Let a few blocks pass; call it inside the world."""
    for _ in range(BLOCKS_A_TIME):
        world.clock.leap(BLOCK_S * 1000)
        world.chain.mine(world.clock.now_s())
        world.gateway.poll()
    return {"now_ms": world.clock.now_ms()}


def dip(world: World) -> dict[str, Any]:
    """Burn credits until less than the floor is left; call it inside the world."""
    account = world.gateway.account
    account.set_usage(account.total_credits - Decimal("9.9"))
    return {}


def counts(world: World) -> dict[str, Any]:
    """Tell the requests so far; call it inside the world."""
    return {"rpc": world.rpc.requests, "api": len(world.gateway.requests)}


ACTS: dict[str, Callable[[World], dict[str, Any]]] = {"mine": mine, "dip": dip, "counts": counts}


def make_chain(anvil: Path | None) -> Callable[[World], Chain]:
    """Return what makes the chain: anvil when its binary is given, else the embedded one."""
    if anvil is None:
        return embedded
    from topup.sandbox.anvil import Anvil

    return lambda world: Anvil(anvil, world.genesis(), timestamp=world.clock.now_s())


def main() -> None:
    """Be the world until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--anvil", type=Path)
    parser.add_argument("--mining", action="store_true")
    parser.add_argument("--rtt-ms", type=int, action="append", default=[])
    options = parser.parse_args()
    world = World(
        make_chain(options.anvil),
        wallet_wei=WALLET_WEI,
        credits_usd=Decimal(100),
        usage_usd=Decimal(50),
        burn_usd_per_hour=Decimal(0),
    )
    world.mining = options.mining
    with world:
        second = PrivateKey(os.urandom(32))
        address = second.public_key.to_checksum_address()
        world.do(lambda: world.chain.set_balance(address, WALLET_WEI))
        proxies = Proxies(world, options.rtt_ms)
        said = {
            "environment": world.environment(),
            "second_key": second.to_hex(),
            "proxies": proxies.urls,
            "now_ms": world.clock.now_ms(),
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            act = ACTS[line.strip()]
            answer = world.do(lambda act=act: act(world))  # type: ignore[misc]
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        proxies.stop()


if __name__ == "__main__":
    main()
