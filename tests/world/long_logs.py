"""A chain with logs, and providers of it that grant short ranges, limit the rate, are slow, lie or die."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from topup.chain.capabilities import Capabilities
from topup.chain.rpc import Answer, Query, Rpc, RpcError
from topup.domain.errors import ChainUnknown
from topup.ports.chain import Head, Piece

BLOCK_S = 2
BEGAN_S = 1_800_000_000


class Leaping:
    """A clock whose sleeps are over at once; wall and monotonic time are one."""

    def __init__(self) -> None:
        self.ms = BEGAN_S * 1000
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += int(seconds * 1000)


class Died(BaseException):
    """The process ends here."""


class Ledger:
    """Pieces that outlive a process."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, bytes, str], Piece] = {}

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None:
        return self.kept.get((chain_id, subject, owner))

    def keep_piece(self, chain_id: int, subject: bytes, owner: str, piece: Piece, clock_ms: int) -> None:
        assert piece.last <= piece.anchor[0]
        self.kept[chain_id, subject, owner] = piece


@dataclass
class Blocks:
    """A chain up to block `newest`, final up to `final`; what is above may be replaced."""

    newest: int
    final: int
    logs: dict[int, dict[str, Any]] = field(default_factory=dict)
    salt: int = 0
    forked: int = 10**9
    flag: bool = False

    def hash(self, number: int) -> bytes:
        """Blocks above a fork have other hashes than before it."""
        return (number + (self.salt << 64 if number >= self.forked else 0)).to_bytes(32, "big")

    def head(self, number: int) -> Head:
        return Head(number, self.hash(number), BEGAN_S - BLOCK_S * (self.newest - number))

    def block(self, number: int) -> dict[str, str] | None:
        if number > self.newest:
            return None
        at = self.head(number)
        return {"number": hex(at.number), "hash": "0x" + at.hash.hex(), "timestamp": hex(at.timestamp_s)}


class Provider:
    """One provider of these blocks: `most` blocks a question, `rate` questions a second, `wait_ms` an answer."""

    def __init__(self, name: str, blocks: Blocks, clock: Leaping, **how: Any) -> None:
        self.name = self.host = self.owner = name
        self.blocks = blocks
        self.clock = clock
        self.most: int | None = how.get("most")
        self.rate: int | None = how.get("rate")
        self.wait_ms: int = how.get("wait_ms", 0)
        self.says: Callable[[int], str] = how.get("says", lambda most: f"eth_getLogs is limited to a {most} range")
        self.dies_at: int | None = None
        self.blind = False
        self.can = Capabilities(lambda: clock.ms / 1000)
        self.requests = 0
        self.ranges: list[int] = []
        self.asked: list[str] = []
        self._recent: list[int] = []

    heard = Rpc.heard

    def shown(self, text: object) -> str:
        return str(text)

    @property
    def rpc(self) -> Rpc:
        """As the program knows it."""
        return cast("Rpc", self)

    async def batch(self, queries: Sequence[Query]) -> list[Answer]:
        self.requests += 1
        if self.dies_at is not None and self.requests >= self.dies_at:
            self.dies_at = None
            raise Died
        self.clock.ms += self.wait_ms
        return [self._one(method, params) for method, params in queries]

    def _one(self, method: str, params: list[Any]) -> Answer:
        self.asked.append(method)
        if method == "eth_chainId":
            return hex(8453)
        if method == "eth_getBlockByNumber":
            tags = {"latest": self.blocks.newest, "safe": self.blocks.final, "finalized": self.blocks.final}
            return self.blocks.block(tags[params[0]] if params[0] in tags else int(params[0], 16))
        if method == "eth_getLogs":
            return self._logs(int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16))
        if method in ("eth_getStorageAt", "eth_call"):
            return "0x" + int(self.blocks.flag).to_bytes(32, "big").hex()
        raise ChainUnknown(f"nobody asks {method}")

    def _logs(self, first: int, last: int) -> Answer:
        now = self.clock.ms
        self._recent = [t for t in self._recent if now - t < 1000]
        if self.rate is not None and len(self._recent) >= self.rate:
            return RpcError(-32016, "over rate limit", None)
        self._recent.append(now)
        self.ranges.append(last - first + 1)
        if self.most is not None and last - first + 1 > self.most:
            return RpcError(-32600, self.says(self.most), None)
        if self.blind:
            return []
        return [log for number, log in sorted(self.blocks.logs.items()) if first <= number <= last]
