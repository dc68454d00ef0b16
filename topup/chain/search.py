"""How far was a payment looked for, and which transactions carry it? Through one provider, on from where it stopped.

What was read is kept: in the ledger as far as final blocks reach, and in memory up to the newest. A piece was read
while one block at its end stood in the provider's chain, and counts only while that block still stands there, as the
same owner shows it again: a block's hash is that of everything before it. Of an owner who is not configured nothing is
looked up, so nothing counts.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from topup.chain.blocks import head, numbered
from topup.chain.paging import Pager, Wanted
from topup.chain.rpc import Query, Rpc, known
from topup.domain.errors import ChainUnknown
from topup.ports.account import Clock
from topup.ports.budget import Budget
from topup.ports.chain import Head, Piece, Pieces
from topup.wire.clock import SystemClock

# One owner is asked so often at most for one payment, all in all: ranges of five blocks over the life of the longest
# charge and what lies before it. Beyond that it is only tried whether it grants more by now.
QUESTIONS_MAX: Final = 20_000
# As long as this, all in all, others wait for one who answers slowly.
LATE_MS: Final = 7_200_000
# So many pages are lost at most when the process dies.
PAGES_UNKEPT: Final = 20
# An id is paid once, an authorization used once; whoever shows many transactions of one makes them up.
CARRIERS_MAX: Final = 16


@dataclass(frozen=True)
class Sought:
    """What is looked for.

    Attributes:
        subject: under which name the pieces are kept.
        wanted: address and topics of the logs.
        since: no payment can stand in an earlier block.
        carrier: reads a log that lies between two blocks; returns its transaction and block, or None where it is of
            another payment.
        again: so many of the last blocks that were read are read once more, for an index of logs may lag behind its
            blocks.
    """

    subject: bytes
    wanted: Wanted
    since: int
    carrier: Callable[[Any, int, int], tuple[bytes, int] | None]
    again: int = 0


class TooNarrow(ChainUnknown):
    """A provider grants ranges so short that it is not asked any further; `last` is how far it was read."""

    def __init__(self, message: str, last: int) -> None:
        super().__init__(message)
        self.last = last


@dataclass
class Search:
    """Looks for payments through the providers of one chain."""

    chain_id: int
    pager: Pager
    pieces: Pieces
    clock: Clock
    _newest: dict[tuple[str, bytes], Piece] = field(default_factory=dict)
    # How many questions and ms each search has taken, also those that came to nothing or are of another chain.
    _taken: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)

    async def through(self, rpc: Rpc, sought: Sought, final: Head | None, newest: Head) -> Piece:
        """Look on through one provider, at whose place `final` and `newest` stand; return how far it is by now.

        It is done when the piece ends at `newest`; else the budget of this pass is used up. What was read before a part
        of the chain could not be had is kept.
        """
        piece, kept = await self._begun(rpc, sought)
        if final is not None and piece.last < final.number:
            piece = await self._on(rpc, sought, piece, final, kept=kept)
        if final is None or piece.last >= final.number:
            piece = await self._on(rpc, sought, piece, newest, kept=None)
        return piece

    def may(self, rpc: Rpc) -> bool:
        """Take one more question from what this pass may ask a provider; False where none is left."""
        return self.pager.budget.take(rpc)

    def forget(self, subject: bytes) -> None:
        """Read what was read of this within this process once more: the providers disagree on it."""
        self._newest = {key: piece for key, piece in self._newest.items() if key[1] != subject}

    def late(self, piece: Piece) -> bool:
        """Tell whether others have waited for it long enough."""
        return piece.spent_ms > LATE_MS

    async def _begun(self, rpc: Rpc, sought: Sought) -> tuple[Piece, bool]:
        """Return the longest piece that still stands, and whether one is kept in the ledger."""
        stored = self.pieces.piece(self.chain_id, sought.subject, rpc.owner)
        latest = self._newest.get((rpc.owner, sought.subject))
        begun = [piece for piece in (latest, stored) if piece is not None and piece.first <= sought.since]
        if begun:
            queries: list[Query] = [numbered(piece.anchor[0]) for piece in begun]
            for piece, answer in zip(begun, await rpc.batch(queries), strict=True):
                number, digest = piece.anchor
                block = answer if piece is latest and piece is not stored else known(answer, f"block {number}")
                if isinstance(block, dict) and head(block).hash == digest:
                    return self._with_all_taken(rpc, sought, piece), stored is not None
                if block is None and piece is stored:
                    # It is behind, which is no reason to forget what was read.
                    raise ChainUnknown(f"{rpc.host} has no block {number}")
        # What was asked so far counts on, whatever became of the chain.
        asked, spent = (stored.asked, stored.spent_ms) if stored is not None else (0, 0)
        none = Piece(sought.since, sought.since - 1, (0, b""), (), asked, spent)
        return self._with_all_taken(rpc, sought, none), stored is not None

    def _with_all_taken(self, rpc: Rpc, sought: Sought, piece: Piece) -> Piece:
        """Count what the search has taken beyond this piece: no answer makes it begin at nothing again.

        Its last blocks are read once more where that was asked for.
        """
        asked, spent_ms = self._taken.get((rpc.owner, sought.subject), (0, 0))
        last = max(sought.since - 1, piece.last - sought.again)
        return replace(piece, last=last, asked=max(piece.asked, asked), spent_ms=max(piece.spent_ms, spent_ms))

    async def _on(self, rpc: Rpc, sought: Sought, piece: Piece, end: Head, *, kept: bool | None) -> Piece:
        """Read on up to `end`; `kept` says whether a piece is in the ledger, None that this one is never kept there."""
        begun = piece
        since_ms, unkept = self.pager.budget.now_ms(), 0
        self._bounded(rpc, piece, end)
        try:
            pages = self.pager.pages(rpc, [sought.wanted], (piece.last + 1, end.number), anchor=end)
            async with contextlib.aclosing(pages):
                async for page in pages:
                    now_ms = self.pager.budget.now_ms()
                    piece = replace(
                        piece,
                        last=page.last,
                        anchor=(end.number, end.hash),
                        carriers=_joined(rpc, piece, sought, page.logs[0], page.first, page.last),
                        asked=piece.asked + page.asked,
                        spent_ms=piece.spent_ms + now_ms - since_ms,
                    )
                    since_ms, unkept = now_ms, unkept + 1
                    if kept is not None and unkept >= PAGES_UNKEPT:
                        self._keep(rpc, sought, piece)
                        kept, unkept = True, 0
                    self._bounded(rpc, piece, end)
        finally:
            read = piece is not begun
            # Who only asks for patience is waited for no less than who answers slowly.
            piece = replace(piece, spent_ms=piece.spent_ms + self.pager.budget.now_ms() - since_ms)
            self._taken[rpc.owner, sought.subject] = (piece.asked, piece.spent_ms)
            if read:
                self._newest[rpc.owner, sought.subject] = piece
                # What is done at once need not be kept: it is done again as quickly.
                if kept or (kept is not None and unkept and piece.last < end.number):
                    self._keep(rpc, sought, piece)
        return piece

    def _bounded(self, rpc: Rpc, piece: Piece, end: Head) -> None:
        """Refuse to go on where it would take too many questions; a few of them are always allowed."""
        budget = self.pager.budget
        left = self.pager.questions(rpc, end.number - piece.last)
        if budget.questions is not None and left > budget.questions and piece.asked + left > QUESTIONS_MAX:
            raise TooNarrow(
                f"{rpc.host} grants so few blocks of logs at once that {left} questions more would be needed, after"
                f" {piece.asked}: more than {QUESTIONS_MAX} are never asked",
                piece.last,
            )

    def _keep(self, rpc: Rpc, sought: Sought, piece: Piece) -> None:
        self.pieces.keep_piece(self.chain_id, sought.subject, rpc.owner, piece, self.clock.now_ms())


def _joined(
    rpc: Rpc, piece: Piece, sought: Sought, logs: list[Any], first: int, last: int
) -> tuple[tuple[bytes, int], ...]:
    found = dict(piece.carriers) | dict(c for log in logs if (c := sought.carrier(log, first, last)) is not None)
    if len(found) > CARRIERS_MAX:
        raise ChainUnknown(f"{rpc.host} shows {len(found)} transactions of one payment")
    return tuple(found.items())


def alone(chain_id: int) -> Search:
    """Return a search of one pass, of which nothing is kept."""
    clock = SystemClock()
    return Search(chain_id, Pager(Budget(clock)), Unkept(), clock)


class Unkept:
    """Where nothing is kept beyond the process."""

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None:
        """Return nothing."""

    def keep_piece(self, chain_id: int, subject: bytes, owner: str, piece: Piece, clock_ms: int) -> None:
        """Keep nothing."""
