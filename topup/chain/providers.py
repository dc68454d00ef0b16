"""Which providers can be believed now? Each is watched, set aside when it is wrong, late or silent, and tried again.

A provider of another chain, behind the others, or that gives nonsense is set aside at once, one that fails or is slow
after a few failures in a row; each time for longer. While too few are left, those set aside are asked as well: an
answer is judged by what it is. What is said of a provider is said once for each change.

Where what was answered is enough, the others are given a moment more and then not waited for. Where the answers
disagree, or would forbid, or end something, everybody is heard.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from topup.chain.agreement import Answers, Vote
from topup.chain.rpc import Nonsense, Rpc
from topup.domain import events
from topup.domain.errors import ChainError, ChainUnknown, PaymentForbidden, Reverted, TopupError, WrongChain
from topup.ports.chain import Head
from topup.wire.clean import SENTENCE_MAX, clean, joined

T = TypeVar("T")
# Failures in a row after which a provider is set aside.
FAILURES_MAX: Final = 3
# The first pause of a provider that was set aside doubles with each that follows, up to the last.
PAUSE_S: Final = 30
PAUSE_MAX_S: Final = 900
# How much longer the others are waited for once the answers at hand are enough.
GRACE_S: Final = 2

# Tells whether answers are enough to go on with: joins them, and raises where they are not.
Join = Callable[[Answers[T]], object]
# What one provider says: an answer, or why there is none.
_Said: TypeAlias = T | PaymentForbidden | ChainError


class Slow(ChainUnknown):
    """The others had long answered, and agreed."""


class Lagging(ChainUnknown):
    """The provider's newest block is behind what others have."""


class StateGone(ChainUnknown):
    """The provider no longer has the state that a nonce or a balance is read from; asking it again is pointless."""


@dataclass(eq=False)
class _Watched:
    """A provider with what is known of its conduct, `slow` of its last failure; times in unix seconds."""

    rpc: Rpc
    failures: int = 0
    slow: bool = False
    pauses: int = 0
    why: str = ""
    aside_s: int = 0
    until_s: int = 0

    @property
    def aside(self) -> bool:
        return self.pauses > 0


@dataclass
class _Heard(Generic[T]):
    """What was said to one question so far, by provider, and who failed."""

    said: dict[_Watched, _Said[T]] = field(default_factory=dict)
    failed: list[tuple[_Watched, ChainError]] = field(default_factory=list)

    @property
    def owners(self) -> int:
        return len({watched.rpc.owner for watched in self.said})

    def add(self, watched: _Watched, answer: _Said[T]) -> None:
        """Keep an answer; a refusal of what was asked is one, a failure is none."""
        if isinstance(answer, ChainError) and not isinstance(answer, Reverted):
            self.failed.append((watched, answer))
        else:
            self.said[watched] = answer


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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the providers, of which there is at least one; `now_s` is this machine's unix time."""
        self.rpcs = tuple(rpcs)
        self.quorum = quorum
        self._watched = [_Watched(rpc) for rpc in rpcs]
        self._now_s = now_s
        self._head_age_max_s = head_age_max_s
        self._lag_max_s = lag_max_s
        self._say = say
        self._sleep = sleep
        self._dissent: dict[str, str] = {}

    async def ask(
        self,
        act: Callable[[Rpc], Awaitable[T]],
        head: Callable[[T], Head] | None = None,
        *,
        every: bool = False,
        enough: Join[T] | None = None,
    ) -> Answers[T]:
        """Ask all providers at once where several have to agree, else the first that answers.

        `head` finds the newest block in an answer, which must be neither old nor behind the others'. `every` asks
        all of them even where one would do. Once `enough` joins what is at hand without an objection, the others are
        waited for only a moment longer; without it, all are.

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
        heard = _Heard[T]()
        for part in parts:
            await self._hear(heard, part, act, head, enough)
            if heard.owners >= self.quorum:
                break
        for watched, error in heard.failed:
            self._failed(watched, error)
        for watched in heard.said:
            # Whoever is waited for answers in the end, which does not make it any faster.
            if enough is not None or not watched.slow:
                self._answered(watched)
        if heard.owners < self.quorum:
            raise self._too_few(heard)
        # In the order of the settings, whoever was faster.
        return _sorted({w: heard.said[w] for w in self._watched if w in heard.said})

    async def _hear(
        self,
        heard: _Heard[T],
        part: Sequence[_Watched],
        act: Callable[[Rpc], Awaitable[T]],
        head: Callable[[T], Head] | None,
        enough: Join[T] | None,
    ) -> None:
        """Ask these at once, and add what they say until all have, or until there is enough and they are slow."""
        asked = {asyncio.ensure_future(self._one(w, act)): w for w in part}
        waiting, over = set(asked), False
        grace: asyncio.Future[None] | None = None
        try:
            while waiting and not over:
                awaited: set[asyncio.Future[Any]] = {*waiting}
                if grace is not None and not grace.done():
                    awaited.add(grace)
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                for answer in [answer for answer in asked if answer in waiting and answer.done()]:
                    heard.add(asked[answer], answer.result())
                    waiting.remove(answer)
                usable = enough is not None and self._usable(heard, head, enough)
                if usable and grace is None:
                    grace = asyncio.ensure_future(self._sleep(GRACE_S))
                over = usable and grace is not None and grace.done()
        finally:
            # Cancelling closes its connection: an answer that comes too late is nobody's.
            for answer in waiting:
                answer.cancel()
            if grace is not None:
                grace.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if head is not None:
            heard.failed += self._out_of_step(heard.said, head)
        for watched in (watched for answer, watched in asked.items() if answer in waiting):
            why = f"{watched.rpc.host} had not answered {GRACE_S} s after the others"
            heard.failed.append((watched, Slow(why)))

    def _usable(self, heard: _Heard[T], head: Callable[[T], Head] | None, enough: Join[T]) -> bool:
        """Tell whether what is at hand is enough; what would be taken out later does not count now."""
        in_step = _Heard(dict(heard.said))
        if head is not None:
            self._out_of_step(in_step.said, head)
        answers = _sorted(in_step.said)
        if in_step.owners < self.quorum or answers.refusals or not answers.votes:
            return False  # what would forbid is heard out
        try:
            return enough(answers) is not False
        except TopupError:
            return False

    async def _one(self, watched: _Watched, act: Callable[[Rpc], Awaitable[T]]) -> _Said[T]:
        """Ask one provider. Nothing of what it says gets further than this without being a value or a sentence."""
        try:
            with watched.rpc.heard():
                return await act(watched.rpc)
        except (PaymentForbidden, ChainError) as error:
            return error

    def _out_of_step(
        self, said: dict[_Watched, _Said[T]], head: Callable[[T], Head]
    ) -> list[tuple[_Watched, ChainError]]:
        """Take out who is too old or too far behind; ahead of this machine's clock counts for no more than now."""
        now = self._now_s()
        times = {
            watched: head(answer).timestamp_s
            for watched, answer in said.items()
            if not isinstance(answer, PaymentForbidden | ChainError)
        }
        out: list[tuple[_Watched, ChainError]] = []
        best = self._best(times, now)
        for watched, time_s in times.items():
            if now - time_s > self._head_age_max_s:
                out.append((watched, ChainUnknown(f"{watched.rpc.host}: its newest block is {now - time_s} s old")))
            elif best - time_s > self._lag_max_s:
                out.append((watched, Lagging(f"{watched.rpc.host} is {best - time_s} s behind the others")))
            else:
                continue
            del said[watched]
        return out

    def _best(self, times: Mapping[_Watched, int], now: int) -> int:
        """Return the newest time that two owners reach, or as many as have to agree: one alone leaves nobody behind."""
        newest: dict[str, int] = {}
        for watched, time_s in times.items():
            newest[watched.rpc.owner] = max(min(time_s, now), newest.get(watched.rpc.owner, 0))
        reached = sorted(newest.values(), reverse=True)
        needed = max(self.quorum, min(2, len(reached)))
        return reached[needed - 1] if needed <= len(reached) else 0

    def _too_few(self, heard: _Heard[T]) -> ChainError:
        errors = [error for _, error in heard.failed]
        if not heard.said and all(isinstance(error, WrongChain) for error in errors):
            return errors[0]
        missing = joined([str(error) for error in errors], SENTENCE_MAX - 100)
        if self.quorum == 1:
            return ChainUnknown(f"no provider gave a usable answer: {missing}")
        return ChainUnknown(
            f"{self.quorum} independent providers have to agree and {heard.owners} can be believed: {missing}"
        )

    def _failed(self, watched: _Watched, error: ChainError) -> None:
        """Count a failure; set aside who is surely wrong, or fails again and again, when there is anyone else."""
        watched.failures += 1
        watched.slow = isinstance(error, Slow)
        sure = isinstance(error, WrongChain | Lagging | Nonsense)
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
        watched.failures, watched.slow = 0, False
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
            self._say(events.ProvidersDisagree(about=about, detail=clean(dissent, SENTENCE_MAX)))


async def first(rpcs: Sequence[Rpc], ask: Callable[[Rpc], Awaitable[T]]) -> T:
    """Ask one provider after the other for what is confirmed elsewhere, until one answers.

    Raises:
        ChainError: why none did; that one has no such state only where nobody gave another reason.
    """
    failures: list[ChainError] = []
    for rpc in rpcs:
        try:
            with rpc.heard():
                return await ask(rpc)
        except ChainError as error:
            failures.append(error)
    raise next((f for f in failures if not isinstance(f, StateGone)), failures[0])


def _sorted(said: Mapping[_Watched, _Said[T]]) -> Answers[T]:
    votes: list[Vote[T]] = []
    refusals: list[Vote[PaymentForbidden | Reverted]] = []
    for watched, answer in said.items():
        owner, name = watched.rpc.owner, watched.rpc.name
        if isinstance(answer, PaymentForbidden | Reverted):
            refusals.append(Vote(owner, name, answer))
        elif not isinstance(answer, ChainError):
            votes.append(Vote(owner, name, answer))
    return Answers(votes, refusals)


def _kind(error: ChainError) -> str:
    kinds = {WrongChain: "wrong_chain", Lagging: "lagging", Slow: "slow"}
    return next((why for kind, why in kinds.items() if isinstance(error, kind)), "failing")
