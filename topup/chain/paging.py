"""How are logs read that a provider does not hand out at once? Page by page, in ranges that it was heard to grant.

A shorter range is learnt only from an error that says so: one that names the range, or says that there is too much in
it. What was learnt is tried again an hour later. An error that speaks of the rate says nothing of the range: it is
waited for, and the same range is asked for again. Any other error ends the reading, because a gap would look like
silence. What the budget does not allow any more is left for the next pass: the last page then ends before the last
block that was asked for.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from topup.chain.blocks import head, numbered
from topup.chain.capabilities import Trouble
from topup.chain.refusals import Refusal, granted, refusal
from topup.chain.rpc import Answer, Query, Rpc, RpcError, known
from topup.domain.errors import ChainUnknown
from topup.ports.budget import Budget
from topup.ports.chain import Head

# Blocks asked for at once before a provider says that it is too many.
SPAN: Final = 5_000
# As many at most where logs of one wallet are looked for: they are few, and may reach back over the whole chain.
SPAN_MAX: Final = 1_000_000
# A range that was refused is tried again, doubled, after so long.
AGAIN_MS: Final = 3_600_000
# What asks for patience is asked again after a second, then after twice as long each time, up to the last of these.
PATIENCE_S: Final = 1
PATIENCE_MAX_S: Final = 8
# Nobody waits longer than this, all in all, without one page in between.
PATIENCE_OVER_S: Final = 60
# Address and topics of a log; bytes in hex.
Wanted = dict[str, Any]


@dataclass(frozen=True)
class _Said:
    text: str
    code: int = 0


@dataclass
class Grant:
    """What range one provider has been heard to grant; `most` is None while it has refused none."""

    most: int | None = None
    heard_ms: int = 0
    trying: bool = False

    def cap(self, now_ms: int) -> int:
        """Return how many blocks to ask for at most."""
        if self.most is None:
            return SPAN_MAX
        self.trying = self.trying or now_ms - self.heard_ms >= AGAIN_MS
        return min(2 * self.most, SPAN_MAX) if self.trying else self.most

    def refused(self, blocks: int, now_ms: int) -> None:
        """Remember that no more than `blocks` are granted."""
        self.most = blocks if self.most is None or not self.trying else max(blocks, min(self.most, 2 * blocks))
        self.heard_ms, self.trying = now_ms, False

    def had(self, blocks: int) -> None:
        """Remember that so many were granted."""
        if self.most is not None and blocks > self.most:
            self.most = blocks


@dataclass(frozen=True)
class Page:
    """The logs of each kind from block `first` to block `last`, and how many questions they took."""

    first: int
    last: int
    logs: list[list[Any]]
    asked: int


@dataclass
class Pager:
    """Reads logs of the providers of one chain, within a budget."""

    budget: Budget
    _grants: dict[Rpc, Grant] = field(default_factory=dict)

    def questions(self, rpc: Rpc, blocks: int) -> int:
        """Return how many questions so many blocks take; as if nothing was learnt when that is to be tried again."""
        grant = self._grant(rpc)
        grant.cap(self.budget.now_ms())
        return -(-blocks // (SPAN if grant.most is None or grant.trying else min(SPAN, grant.most)))

    def most(self, rpc: Rpc) -> int | None:
        """Return how many blocks at once a provider was heard to grant, None while it has refused none."""
        return self._grant(rpc).most

    def _grant(self, rpc: Rpc) -> Grant:
        return self._grants.setdefault(rpc, Grant())

    async def pages(
        self,
        rpc: Rpc,
        wanted: Sequence[Wanted],
        blocks: tuple[int, int],
        *,
        spans: tuple[int, int] = (SPAN, SPAN),
        anchor: Head | None = None,
    ) -> AsyncGenerator[Page, None]:
        """Read the logs of each kind from the first block to the last, both included, in order.

        Each page is complete when it is handed out. With `anchor`, a block at or above the last one, every page comes
        from a node that has exactly this block in its chain.

        `spans` are how many blocks are asked for at once in the beginning, and at most.
        """
        (first, last), (span, most), grant = blocks, spans, self._grant(rpc)
        asked, waited, patience = 0, 0, PATIENCE_S
        while first <= last:
            span = min(span, most, grant.cap(self.budget.now_ms()))
            until = min(last, first + span - 1)
            if not self.budget.take(rpc):
                return
            asked += 1
            logs, error = await self._page(rpc, wanted, (first, until), anchor)
            if logs is not None:
                grant.had(until - first + 1)
                yield Page(first, until, logs, asked)
                first, span, asked, waited, patience = until + 1, 2 * span, 0, 0, PATIENCE_S
                continue
            count, why = until - first + 1, refusal(error.text, error.code)
            if why is Refusal.RATE:
                rpc.can.met(Trouble.RATE)
                if waited >= PATIENCE_OVER_S:
                    raise ChainUnknown(f"{rpc.host} has asked for patience for {waited} s: {error.text}")
                if not await self.budget.wait(patience):
                    return
                waited, patience = waited + patience, min(2 * patience, PATIENCE_MAX_S)
            elif why is Refusal.OTHER or count == 1:
                raise ChainUnknown(f"{rpc.host}, the logs of {_named(first, until)}: {error.text}")
            elif why is Refusal.RANGE:
                grant.refused(granted(error.text, count), self.budget.now_ms())
                span = count
            else:
                span = most = granted(error.text, count)  # there is much in these blocks; in others there may be less

    async def _page(
        self, rpc: Rpc, wanted: Sequence[Wanted], blocks: tuple[int, int], anchor: Head | None
    ) -> tuple[list[list[Any]] | None, _Said]:
        """Ask for one page; None with what was said where it was refused."""
        first, until = blocks
        within = {"fromBlock": hex(first), "toBlock": hex(until)}
        queries: list[Query] = [("eth_getLogs", [{**kind, **within}]) for kind in wanted]
        # A node behind that block would answer the range with what it has, which looks complete.
        shown = until if anchor is None else anchor.number
        try:
            *answers, end = await rpc.batch([*queries, numbered(shown)])
        except ChainUnknown as error:
            # What it says of the batch as a whole; its name may hold any word.
            said = _Said(str(error).replace(rpc.host, "").replace("refused a batch: ", ""))
            if refusal(said.text) is Refusal.OTHER:
                raise
            return None, said
        errors = [error for error in (*answers, end) if isinstance(error, RpcError)]
        # A rate may refuse the one half and not the other.
        errors.sort(key=lambda error: refusal(error.message, error.code) is not Refusal.RATE)
        if errors and (errors[0] is not end or refusal(errors[0].message, errors[0].code) is Refusal.RATE):
            return None, _Said(errors[0].message, errors[0].code)
        _stands(rpc, end, shown, anchor)
        listed = [answer for answer in answers if isinstance(answer, list)]
        if len(listed) != len(wanted):
            raise ChainUnknown(f"{rpc.host} answered a question for logs with something else than a list")
        return listed, _Said("")


def _stands(rpc: Rpc, answer: Answer, number: int, anchor: Head | None) -> None:
    """Refuse a node that is behind, or whose chain is another one than that of `anchor`."""
    block = known(answer, f"block {number}")
    if not isinstance(block, dict):
        raise ChainUnknown(f"{rpc.host} has no block {number}")
    if anchor is not None and head(block).hash != anchor.hash:
        raise ChainUnknown(f"{rpc.host} shows another block at {number} than it did before")


def _named(first: int, last: int) -> str:
    return f"block {first}" if first == last else f"blocks {first} to {last}"
