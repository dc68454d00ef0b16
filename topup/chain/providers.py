"""Which providers can be believed now? Each is watched, set aside when it is wrong, late or silent, and tried again.

A provider of another chain or behind the others is set aside at once, one that fails after a few failures in a row;
each time for longer. While too few are left, those set aside are asked as well: an answer is judged by what it is.
What is said of a provider is said once for each change.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from topup import events
from topup.chain.agreement import Answers, Vote
from topup.chain.rpc import Rpc
from topup.errors import ChainError, ChainUnknown, PaymentForbidden, Reverted, WrongChain
from topup.ports import Head

T = TypeVar("T")
# Failures in a row after which a provider is set aside.
FAILURES_MAX: Final = 3
# The first pause of a provider that was set aside doubles with each that follows, up to the last.
PAUSE_S: Final = 30
PAUSE_MAX_S: Final = 900


class Lagging(ChainUnknown):
    """The provider's newest block is behind what others have."""


@dataclass
class _Watched:
    """A provider with what is known of its conduct; times in unix seconds."""

    rpc: Rpc
    failures: int = 0
    pauses: int = 0
    why: str = ""
    aside_s: int = 0
    until_s: int = 0

    @property
    def aside(self) -> bool:
        return self.pauses > 0


class Providers:
    """The configured providers, and how many independent ones have to agree."""

    def __init__(
        self,
        rpcs: Sequence[Rpc],
        *,
        quorum: int,
        now_s: Callable[[], int],
        head_age_max_s: int,
        lag_max_s: int,
        say: Callable[[events.Event], None],
    ) -> None:
        """Keep the providers, of which there is at least one; `now_s` is this machine's unix time."""
        self.rpcs = tuple(rpcs)
        self.quorum = quorum
        self._watched = [_Watched(rpc) for rpc in rpcs]
        self._now_s = now_s
        self._head_age_max_s = head_age_max_s
        self._lag_max_s = lag_max_s
        self._say = say
        self._dissent: dict[str, str] = {}

    async def ask(
        self, act: Callable[[Rpc], Awaitable[T]], head: Callable[[T], Head] | None = None, *, every: bool = False
    ) -> Answers[T]:
        """Ask all providers at once where several have to agree, else the first that answers.

        `head` finds the newest block in an answer, which must be neither old nor behind the others'. `every` asks
        all of them even where one would do.

        Raises:
            WrongChain: every provider speaks for another chain.
            ChainUnknown: too few gave an answer that can be used; names who is missing and why.
        """
        now = self._now_s()
        ready = [w for w in self._watched if now >= w.until_s]
        resting = [w for w in self._watched if now < w.until_s]
        parts = [ready, resting] if self.quorum > 1 else [[w] for w in (*ready, *resting)]
        if every:
            parts = [[*ready, *resting]]
        found: dict[int, _Found[T]] = {}
        failed: list[tuple[_Watched, ChainError]] = []
        for part in parts:
            for watched, answer in zip(part, await asyncio.gather(*(self._one(w, act) for w in part)), strict=True):
                if isinstance(answer, ChainError) and not isinstance(answer, Reverted):
                    failed.append((watched, answer))
                else:
                    found[id(watched)] = _Found(watched, answer)
            if head is not None:
                failed += self._out_of_step(found, head)
            if len({f.watched.rpc.owner for f in found.values()}) >= self.quorum:
                break
        for watched, error in failed:
            self._failed(watched, error)
        for one in found.values():
            self._answered(one.watched)
        if len({f.watched.rpc.owner for f in found.values()}) < self.quorum:
            raise self._too_few(found, failed)
        return _sorted(found.values())

    async def _one(self, watched: _Watched, act: Callable[[Rpc], Awaitable[T]]) -> T | PaymentForbidden | ChainError:
        try:
            return await act(watched.rpc)
        except (PaymentForbidden, ChainError) as error:
            return error

    def _out_of_step(self, found: dict[int, _Found[T]], head: Callable[[T], Head]) -> list[tuple[_Watched, ChainError]]:
        """Take out who is too old or too far behind; ahead of this machine's clock counts for no more than now."""
        now = self._now_s()
        times = {
            key: (one.watched, head(one.answer).timestamp_s)
            for key, one in found.items()
            if not isinstance(one.answer, PaymentForbidden | ChainError)
        }
        out: list[tuple[_Watched, ChainError]] = []
        for key, (watched, time_s) in times.items():
            best = max((min(t, now) for w, t in times.values() if w.rpc.owner != watched.rpc.owner), default=time_s)
            if now - time_s > self._head_age_max_s:
                out.append((watched, ChainUnknown(f"{watched.rpc.host}: its newest block is {now - time_s} s old")))
            elif best - time_s > self._lag_max_s:
                out.append((watched, Lagging(f"{watched.rpc.host} is {best - time_s} s behind the others")))
            else:
                continue
            del found[key]
        return out

    def _too_few(self, found: dict[int, _Found[T]], failed: Sequence[tuple[_Watched, ChainError]]) -> ChainError:
        errors = [error for _, error in failed]
        if not found and all(isinstance(error, WrongChain) for error in errors):
            return errors[0]
        missing = "; ".join(str(error) for error in errors)
        if self.quorum == 1:
            return ChainUnknown(f"no provider gave a usable answer: {missing}")
        usable = len({one.watched.rpc.owner for one in found.values()})
        return ChainUnknown(
            f"{self.quorum} independent providers have to agree and {usable} can be believed: {missing}"
        )

    def _failed(self, watched: _Watched, error: ChainError) -> None:
        """Count a failure; set aside who is surely wrong, or fails again and again, when there is anyone else."""
        watched.failures += 1
        sure = isinstance(error, WrongChain | Lagging)
        if len(self._watched) == 1 or not (sure or watched.failures >= FAILURES_MAX or watched.aside):
            return
        now, first = self._now_s(), not watched.aside
        pause_s = min(PAUSE_S * 2**watched.pauses, PAUSE_MAX_S)
        watched.pauses = min(watched.pauses + 1, 10)
        watched.until_s = now + pause_s
        changed, watched.why = watched.why != _kind(error), _kind(error)
        watched.aside_s = now if first else watched.aside_s
        if first or changed:
            detail = str(error)
            self._say(
                events.ProviderSetAside(provider=watched.rpc.name, why=watched.why, detail=detail, pause_s=pause_s)
            )

    def _answered(self, watched: _Watched) -> None:
        watched.failures = 0
        if not watched.aside:
            return
        out_s = self._now_s() - watched.aside_s
        watched.pauses, watched.until_s, watched.why = 0, 0, ""
        self._say(events.ProviderBack(provider=watched.rpc.name, out_s=out_s))

    def heard(self, about: str, dissent: str) -> None:
        """Say that providers disagree about something, once for each change of what they say; "" means they agree."""
        # Heights and hashes of blocks move by themselves: what they say is the rest.
        shape = re.sub(r"0x[0-9a-f]{64}|\d+", "#", dissent)
        before = self._dissent.get(about, "")
        self._dissent[about] = shape
        if dissent and shape != before:
            self._say(events.ProvidersDisagree(about=about, detail=dissent))


@dataclass(frozen=True)
class _Found(Generic[T]):
    watched: _Watched
    answer: T | PaymentForbidden | ChainError


def _sorted(found: Iterable[_Found[T]]) -> Answers[T]:
    votes: list[Vote[T]] = []
    refusals: list[Vote[PaymentForbidden | Reverted]] = []
    for one in found:
        rpc = one.watched.rpc
        if isinstance(one.answer, PaymentForbidden | Reverted):
            refusals.append(Vote(rpc.owner, rpc.name, one.answer))
        elif not isinstance(one.answer, ChainError):
            votes.append(Vote(rpc.owner, rpc.name, one.answer))
    return Answers(votes, refusals)


def _kind(error: ChainError) -> str:
    return "wrong_chain" if isinstance(error, WrongChain) else "lagging" if isinstance(error, Lagging) else "failing"
