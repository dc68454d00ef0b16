"""Can following the exit codes of `once` ever buy twice? In a model small enough for that, every way is tried.

Somebody wants one purchase. He repeats the command on 4 (and 130), and when it was killed and said nothing; he stops on
0, 3 and 5. Whoever holds the ledger, the command itself or a daemon, looks for wishes, takes one, decides a top-up for
it and sends its payment, each in a transaction of its own; either may die between any two of them, and a daemon may
come and go. What is sent is paid whatever happens afterwards. The rule of the program must let no state be reached in
which two payments are sent, nor one in which somebody acts on a wish after its 4; each rule that leaves out a part of
it has to be caught.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from tests.proofs import explored

WAITING, TAKEN, WITHDRAWN, ANSWERED = "waiting", "taken", "withdrawn", "answered"
DECIDED, SENT, DONE = "decided", "sent", "done"
NOTHING, DAEMON, ONCE = "", "daemon", "once"
ASKING, LATER, MAYBE, OK, KILLED = "asking", "4", "5", "0", "killed"
# After these whoever wants the purchase gives the command again.
REPEATS: Final = (NOTHING, LATER, KILLED)


class State(NamedTuple):
    """What there is: rows of wishes; top-ups, each with the row it is bound to (-1: none); who holds the ledger.

    `seen` is the row that the holder has read and not taken yet, `hand` the one it has taken; -1 for none. `loose` is a
    top-up that is decided and not bound yet, which only a rule has that binds in a second transaction.
    """

    rows: tuple[str, ...] = ()
    topups: tuple[tuple[int, str], ...] = ()
    holder: str = NOTHING
    seen: int = -1
    hand: int = -1
    said: str = NOTHING


@dataclass(frozen=True)
class Rule:
    """What makes one wish one purchase.

    Attributes:
        one_row: a repetition goes on with the row of the first.
        withdraws: 4 follows only a withdrawal; else it is said whenever nothing is seen to be out.
        exclusive: taking looks whether the row was withdrawn; else what was seen is taken.
        bound: a top-up is bound to its wish by the transaction that decides it; else by the one after it.
    """

    name: str
    one_row: bool = True
    withdraws: bool = True
    exclusive: bool = True
    bound: bool = True


RULE: Final = Rule("one wish is one purchase")
# Those that buy twice, and those after whose 4 somebody still acts.
TWICE: Final = (
    Rule("each command is a new row, and 4 leaves it behind", one_row=False, withdraws=False),
    Rule("each command is a new row", one_row=False),
    Rule("the top-up is bound after it was decided", bound=False),
)
LYING: Final = (
    Rule("4 leaves the row behind", withdraws=False),
    Rule("what was seen waiting is taken, withdrawn or not", exclusive=False),
)
# Rows and top-ups that are enough to buy twice.
MOST: Final = 2


def live(state: State, row: int) -> bool:
    return any(bound == row for bound, _ in state.topups)


def unfinished(state: State) -> int:
    """Return which top-up is open, -1 for none: the ledger has one at most."""
    return next((n for n, (_, at) in enumerate(state.topups) if at != DONE), -1)


def twice(state: State) -> bool:
    return sum(at in (SENT, DONE) for _, at in state.topups) > 1


def lied(state: State) -> bool:
    """Tell whether somebody acts on the wish although its asker was told that nobody does."""
    row = len(state.rows) - 1
    return state.said == LATER and (state.hand == row or live(state, row))


def steps(rule: Rule, state: State) -> Iterator[tuple[str, State]]:
    yield from _asker(rule, state)
    yield from _holder(rule, state)
    if state.holder is NOTHING:
        yield "a daemon starts", state._replace(holder=DAEMON)
    elif state.holder is DAEMON:
        yield "the daemon dies", state._replace(holder=NOTHING, seen=-1, hand=-1)


def _asker(rule: Rule, state: State) -> Iterator[tuple[str, State]]:
    rows = state.rows
    if state.said in REPEATS:
        if not rows or (not rule.one_row and len(rows) < MOST):
            yield "the command stores its wish", state._replace(rows=(*rows, WAITING), said=ASKING)
        elif rule.one_row:
            over = rows[-1] in (WITHDRAWN, ANSWERED) and not live(state, len(rows) - 1)
            again = (*rows[:-1], WAITING) if over else rows
            yield "the command finds its earlier wish", state._replace(rows=again, said=ASKING)
        return
    if state.said != ASKING:
        return
    row = len(rows) - 1
    if any(at == DONE for bound, at in state.topups if bound == row):
        yield "the command ends with 0", _gone(state, OK)
    if state.holder is NOTHING:
        yield "the command takes the ledger itself", state._replace(holder=ONCE)
    yield "the command is killed", _gone(state, KILLED)
    yield from _leaves(rule, state, row)


def _leaves(rule: Rule, state: State, row: int) -> Iterator[tuple[str, State]]:
    """Yield how a command ends whose time is over, or whose daemon is gone."""
    open_one = unfinished(state)
    out = open_one >= 0 and state.topups[open_one][1] == SENT
    if not rule.withdraws:
        yield f"the command leaves with {MAYBE if out else LATER}", _gone(state, MAYBE if out else LATER)
        return
    mine = [n for n, (bound, at) in enumerate(state.topups) if bound == row and at != DONE]
    if state.holder is DAEMON:
        won = state.rows[row] == WAITING and not live(state, row)
    else:
        won = all(state.topups[n][1] == DECIDED for n in mine)
    if any(bound == row and at == DONE for bound, at in state.topups):
        return
    if not won:
        yield "the command leaves with 5", _gone(state, MAYBE)
        return
    kept = state.topups if state.holder is DAEMON else tuple(t for n, t in enumerate(state.topups) if n not in mine)
    rows = (*state.rows[:row], WITHDRAWN)
    yield "the command withdraws its wish and leaves with 4", _gone(state._replace(rows=rows, topups=kept), LATER)


def _gone(state: State, said: str) -> State:
    if state.holder is ONCE:
        state = state._replace(holder=NOTHING, seen=-1, hand=-1)
    return state._replace(said=said)


def _holder(rule: Rule, state: State) -> Iterator[tuple[str, State]]:
    """Yield what whoever holds the ledger may do next."""
    if state.holder is NOTHING:
        return
    open_one = unfinished(state)
    if open_one >= 0:
        bound, at = state.topups[open_one]
        if bound < 0 and state.hand >= 0:
            yield "the top-up is bound", _topup(state, open_one, (state.hand, at))
        after = {DECIDED: ("the payment is sent", SENT), SENT: ("the payment is found and its top-up done", DONE)}[at]
        yield after[0], _topup(state, open_one, (bound, after[1]))
    # A daemon takes the oldest; a command only its own.
    candidates = range(len(state.rows)) if state.holder is DAEMON else [len(state.rows) - 1]
    if state.hand < 0 and state.seen < 0:
        for row in candidates:
            if state.rows[row] in (WAITING, TAKEN) and not live(state, row):
                yield f"wish {row + 1} is seen", state._replace(seen=row)
                break
    if state.seen >= 0:
        row = state.seen
        if not rule.exclusive or state.rows[row] in (WAITING, TAKEN):
            rows = tuple(TAKEN if n == row else at for n, at in enumerate(state.rows))
            yield f"wish {row + 1} is taken", state._replace(rows=rows, seen=-1, hand=row)
        else:
            yield "it was withdrawn", state._replace(seen=-1)
    if state.hand >= 0 and len(state.topups) < MOST and open_one < 0 and not live(state, state.hand):
        bound = state.hand if rule.bound else -1
        yield "a top-up is decided", state._replace(topups=(*state.topups, (bound, DECIDED)))
    if state.hand >= 0 and live(state, state.hand):
        yield "the holder has nothing more in hand", state._replace(hand=-1)


def _topup(state: State, number: int, now: tuple[int, str]) -> State:
    return state._replace(topups=tuple(now if n == number else t for n, t in enumerate(state.topups)))


def explore(rule: Rule, bad: Callable[[State], bool]) -> explored.Result[State]:
    return explored.explore(State(), partial(steps, rule), bad)


def tell() -> bool:
    """Print what holds and how the rest fails; return whether that is as it should be."""
    result = explore(RULE, lambda state: twice(state) or lied(state))
    good = [explored.holds(RULE.name, result, "second purchase")]
    good += [explored.fails(rule.name, explore(rule, twice), "two purchases") for rule in TWICE]
    good += [explored.fails(rule.name, explore(rule, lied), "somebody acts after a 4") for rule in LYING]
    return all(good)
