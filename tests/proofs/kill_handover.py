"""What is killed when a wish is handed from a command to a daemon? Either side, at each commit of the wish.

`once` stores the wish; whoever holds the ledger takes it and buys: `once` itself, or the daemon beside it, which may be
slow, dead, or started again. In each of these lives one side dies of SIGKILL just before or just after a commit. Then
whoever wants the purchase follows the documented exit codes: the same command again until it says 0.
"""

import signal
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, Final

from tests.proofs import kill_worlds
from tests.proofs.kill_worlds import House, Life, Role, held, until
from tests.proofs.killed import ANY, COMMIT
from tests.world import proxy
from tests.world.served import TOPUP, Running
from topup.domain.errors import Exit
from topup.domain.money import Usd
from topup.domain.notes import DAEMON
from topup.ledger.store import SqliteStore
from topup.ports.ledger import Requested, Wish

NAME: Final = "june"
WISH: Final = ("once", "--amount", "10", "--yes", "--request-id", NAME)
# So often the command is given at most; each time it is either answered or, after a death, goes on.
ASKED_MAX: Final = 10
# What is written of the wish itself, and the commit after which a life is like every refill's.
OF_THE_WISH: Final = frozenset(
    f"store.{name}" for name in ("wish", "take_request", "answer_request", "let_go", "withdraw_request", "tell_request")
)
LAST: Final = "store.intend"


def follow(house: House) -> None:
    """Give the command as often as its exit code allows, and once more after the purchase, which buys nothing."""
    codes: list[int] = []
    while codes[-2:] != [Exit.OK, Exit.OK]:
        asking = house.launch([*TOPUP, *WISH])
        codes.append(asking.process.wait(timeout=kill_worlds.LIFE_S))
        leads_on = codes[-1] in (Exit.OK, Exit.LATER, Exit.MONEY_MAY_HAVE_MOVED) and len(codes) < ASKED_MAX
        if not leads_on or (Exit.OK in codes and codes[-1] != Exit.OK):
            raise AssertionError(f"the same command again and again ended with {codes}: {asking.log()[-1500:]}")


def stopped(daemon: Running) -> None:
    if (code := daemon.stop(signal.SIGTERM)) != Exit.OK:
        raise AssertionError(f"a stopped daemon left with {code}: {daemon.log()[-1500:]}")


def until_dead_or(watched: Running, what: str, true: Callable[[], bool]) -> None:
    """Wait until something is true, or the process under test has died before it could be."""
    until(what, lambda: true() or watched.process.poll() == -signal.SIGKILL, watched)


def wish(house: House) -> Requested | None:
    """Return the wish as it is stored, None where it is not."""
    if not SqliteStore.exists(house.state):
        return None
    with closing(SqliteStore.open_reader(house.state)) as store:
        return store.earlier("default", Wish(amount=Usd.of(10), forced=False, name=NAME, uid=0), at_ms=0)


class Alone(Role):
    """`once` has the ledger to itself: it wishes, takes its wish and buys."""

    words: tuple[str, ...] = WISH
    used_usd = 5
    drops = True
    # With what it ends undisturbed.
    code = Exit.OK

    def over(self, house: House, watched: Running) -> bool:
        return watched.process.poll() == self.code

    def end(self, house: House, watched: Running) -> None:
        self.rest(house, ())

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        follow(house)

    def steps(self, use: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the commits from the wish to the intent to send, and those of the wish whenever they come."""
        commits = [one for one in use if one["kind"] == COMMIT and one["call"] != "store.record_reading"]
        calls = [one["call"] for one in commits]
        first = min(calls.index(call) for call in OF_THE_WISH & {*calls})
        last = calls.index(LAST) if LAST in calls else len(calls)
        # How far the payment is when a wish is answered depends on when its block comes.
        of_the_wish = {one["call"]: {**one, "phase": ANY, "nth": 1} for one in commits if one["call"] in OF_THE_WISH}
        others = [one for one in commits[first : last + 1] if one["call"] not in OF_THE_WISH]
        return [*of_the_wish.values(), *others]


class Handed(Alone):
    """A daemon is handed the wish and dies over it; nobody starts it again."""

    words = ("run",)

    def join(self, house: House, watched: Running) -> None:
        until_dead_or(watched, "in possession", lambda: SqliteStore.writer(house.state) == DAEMON)
        house.launch([*TOPUP, *WISH])

    def over(self, house: House, watched: Running) -> bool:
        """Whoever asked has its answer, and the daemon has stored it as well."""
        return (
            house.started[1].process.poll() == Exit.OK
            and (found := wish(house)) is not None
            and found.outcome is not None
        )

    def end(self, house: House, watched: Running) -> None:
        stopped(watched)
        follow(house)

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        """Let the command that asked end, with a code that fits."""
        asking = house.started[1]
        code = asking.process.wait(timeout=kill_worlds.LIFE_S)
        if code not in (Exit.OK, Exit.LATER, Exit.MONEY_MAY_HAVE_MOVED):
            raise AssertionError(f"whoever asked was told {code}: {asking.log()[-1500:]}")
        super().rest(house, late)


class Restarted(Handed):
    """A daemon is handed the wish and dies over it; it is started again while whoever asked still waits."""

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        daemon = house.ordinary()
        super().rest(house, late)
        stopped(daemon)


class Asking(Alone):
    """`once` hands its wish to a daemon and dies over that; the daemon goes on."""

    def prepare(self, house: House) -> None:
        daemon = house.ordinary()
        until("at rest", lambda: held(daemon), daemon)

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        super().rest(house, late)
        stopped(house.started[0])


class Withdrawing(Asking):
    """`once` waits in vain for a daemon that stands still, withdraws its wish and dies over that."""

    words: tuple[str, ...] = (*WISH, "--timeout", "2")
    code = Exit.LATER

    def prepare(self, house: House) -> None:
        super().prepare(house)
        house.started[0].process.send_signal(signal.SIGSTOP)

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        house.started[0].process.send_signal(signal.SIGCONT)
        super().rest(house, late)


class Abandoned(Withdrawing):
    """`once` has handed its wish to a daemon that is gone before it takes it, lets go of it and dies over that."""

    words = WISH

    def join(self, house: House, watched: Running) -> None:
        until_dead_or(watched, "stored", lambda: wish(house) is not None)
        house.started[0].process.kill()

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        Alone.rest(self, house, late)


LIVES: Final = (
    Life("once", "A wish is bought by the command that makes it.", early=True, role=Alone()),
    Life("handed", "A daemon is handed a wish, and is not started again.", early=True, role=Handed()),
    Life("restarted", "A daemon is handed a wish, and is started again.", early=True, role=Restarted()),
    Life("asking", "A wish is handed to a daemon, which lives.", early=True, role=Asking()),
    Life("withdrawing", "A wish is withdrawn from a daemon that stands still.", early=True, role=Withdrawing()),
    Life("abandoned", "A wish is let go of because the daemon is gone.", early=True, role=Abandoned()),
)
