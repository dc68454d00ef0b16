"""Can a payment whose fee somebody else pays be made beside its replacement? Every way is tried, in a small model.

Charge A is sponsored: the payer has signed all of it but the sponsor. Whoever holds that payload may add himself and
submit it, at any time and without a word; two sponsors may do so, under two hashes. The chain executes one payload once
at most, and not at or after the moment it is valid before, by the block's own time. Blocks that are not final may be
replaced by others, earlier ones included, and then the other sponsor's transaction may be the one that runs. Charge B
is whatever replaces A: another rail, another challenge, the unsponsored offer. It may be paid for ever once it is
signed, which is the worst there is.

Two owners are asked. One may lie in everything; the other one's blocks are right, and it may be behind, and its index
of logs may be empty, or whole up to an earlier block only. So the payload is dead only where both show one final block
more than a minute past its moment, no log under the memo up to there, and the log of somebody else's transaction that
stands within that minute: an index that holds it holds what lies before it. Each rule that leaves out a part of this
has to be caught.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from tests.proofs import explored

# A chain is a text, a letter a block. A and a: payload A, submitted by the first or by the second sponsor; C and c:
# a second payload for the same challenge; B: what replaces it. x: somebody else's transaction, whose log is a control.
# t: an empty block, by which time has passed: the first t is past the moment, the second past it by more than a minute.
PAYLOADS: Final = {"A": "Aa", "C": "Cc", "B": "B"}
OVER, DEAD = 1, 2
TIMES: Final = 2
OTHERS: Final = 2


class State(NamedTuple):
    """What there is: final blocks, later ones, which payloads have left, whether A is marked dead, what was noticed."""

    final: str = ""
    later: str = ""
    out: str = ""
    dead: bool = False
    noticed: bool = False

    @property
    def chain(self) -> str:
        return self.final + self.later


def time(blocks: str) -> int:
    """Return how far these blocks are in time: 0 before A's moment, `OVER` past it, `DEAD` by more than a minute."""
    return blocks.count("t")


def ran(blocks: str, payload: str) -> bool:
    return any(block in blocks for block in PAYLOADS[payload])


@dataclass(frozen=True)
class View:
    """What one owner says of A, up to one block.

    Attributes:
        time: of that block, as `time` tells it.
        memo: whether it shows the log that bears the memo.
        first: whether it shows the receipt of the first sponsor's transaction, whose hash the seller has named.
        any_control: whether it shows the log of somebody else's transaction.
        control: whether it shows one that stands past A's moment.
    """

    time: int
    memo: bool
    first: bool
    any_control: bool
    control: bool


# One who lies says what lets A be taken for dead.
LIE: Final = View(DEAD, memo=False, first=False, any_control=True, control=True)
# Of two owners both who are asked count, or one is enough.
BOTH, ONE = 2, 1


def honest(blocks: str) -> Iterator[View]:
    """Yield what an owner may say whose blocks are right, up to any of them, with logs up to any of those."""
    for end in range(len(blocks) + 1):
        for read in range(end + 1):
            shown, indexed = blocks[:end], blocks[:read]
            control = "x" in indexed.partition("t")[2]
            yield View(time(shown), ran(indexed, "A") or ran(indexed, "C"), "A" in shown, "x" in indexed, control)


def views(state: State, *, final: bool) -> Iterator[tuple[View, View]]:
    """Yield every pair of answers: of two owners that are right, or of a right one and one that lies."""
    blocks = state.final if final else state.chain
    said = set(honest(blocks))
    for one in said:
        yield one, LIE
        for other in said:
            yield one, other


@dataclass(frozen=True)
class Rule:
    """When A counts as dead, and what may be signed beside it.

    Attributes:
        name: in words.
        proof: whether this is shown by one owner.
        owners: how many of the two have to show it.
        final: whether final blocks are looked at; else the newest.
        notice: something that may be noticed while A is out and that is taken for its death; "" for nothing.
        again: whether the same challenge may be signed a second time.
        beside: whether the replacement may be signed at once.
        steps: after so many, and no fewer, a wrong rule has paid twice.
    """

    name: str
    proof: Callable[[View], bool]
    owners: int = BOTH
    final: bool = True
    notice: str = ""
    again: bool = False
    beside: bool = False
    steps: int = 0


def shown_dead(view: View) -> bool:
    """Apply the rule: a block more than a minute past the moment, no log under the memo, a control past the moment."""
    return view.time >= DEAD and not view.memo and view.control


def _nothing(_: View) -> bool:
    return False


RULE: Final = Rule("a sponsored payload is dead by two owners, each with a control log past its moment", shown_dead)
WRONG: Final = (
    Rule("we waited long enough", _nothing, notice="our clock is past its moment, and by more than a minute", steps=6),
    Rule("the seller has refused it", _nothing, notice="the seller answers 402, with a fresh challenge", steps=6),
    Rule("one owner shows it dead", shown_dead, owners=ONE, steps=5),
    Rule("no control log is asked for", lambda v: v.time >= DEAD and not v.memo, steps=10),
    Rule(
        "the control log may stand anywhere in the range",
        lambda v: v.time >= DEAD and not v.memo and v.any_control,
        steps=12,
    ),
    Rule("a safe block is enough, or the newest", shown_dead, final=False, steps=9),
    Rule(
        "the hash that the seller named is in no block",
        lambda v: v.time >= DEAD and not v.first and v.control,
        steps=12,
    ),
    Rule("nothing of it is in a final block", lambda v: not v.memo and v.any_control, steps=7),
    Rule("the challenge is signed again while it may run", shown_dead, again=True, steps=4),
    Rule("the unsponsored offer is signed beside it", shown_dead, beside=True, steps=4),
)


def proven(rule: Rule, state: State) -> bool:
    """Tell whether some answers that may be given let the rule take A for dead."""
    if rule.notice:
        return state.noticed
    for one, other in views(state, final=rule.final):
        shown = rule.proof(one) + rule.proof(other)
        if shown >= rule.owners:
            return True
    return False


def steps(rule: Rule, state: State) -> Iterator[tuple[str, State]]:
    yield from _sender(rule, state)
    yield from _world(state)


def _sender(rule: Rule, state: State) -> Iterator[tuple[str, State]]:
    if not state.out:
        # The window is counted from the chain's own time: nothing is signed whose moment has passed.
        yield "payload A leaves", state._replace(out="A")
        yield "payload B leaves", state._replace(out="B")
        return
    if "A" not in state.out:
        return  # what was begun with stays: nothing proves it dead in this model
    if not state.dead and proven(rule, state):
        yield f"A is taken for dead: {rule.name}", state._replace(dead=True)
    if rule.notice and not state.noticed:
        yield rule.notice, state._replace(noticed=True)
    if rule.again and "C" not in state.out:
        yield "the same challenge is signed again", state._replace(out=state.out + "C")
    if "B" not in state.out and (state.dead or rule.beside):
        yield "payload B leaves", state._replace(out=state.out + "B")


def _world(state: State) -> Iterator[tuple[str, State]]:
    chain = state.chain
    blocks = "t" if time(chain) < TIMES else ""
    blocks += "x" if chain.count("x") < OTHERS else ""
    for payload in state.out:
        if not ran(chain, payload) and (payload == "B" or time(chain) < OVER):
            blocks += PAYLOADS[payload]
    for block in blocks:
        yield f"block {len(chain) + 1}: {_content(block, chain)}", state._replace(later=state.later + block)
    for left in range(len(state.later)):
        said = f"reorganisation: the newest {len(state.later) - left} block(s) are gone"
        yield said, state._replace(later=state.later[:left])
    if state.later:
        after = state._replace(final=state.final + state.later[0], later=state.later[1:])
        yield f"block {len(state.final) + 1} becomes final", after


def _content(block: str, chain: str) -> str:
    if block == "t":
        return "empty, past A's moment" + (" by more than a minute" if time(chain) else "")
    if block == "x":
        return "somebody else's transaction"
    if block == "B":
        return "payload B pays"
    return f"payload {block.upper()} pays, submitted by the {'first' if block.isupper() else 'second'} sponsor"


def twice(state: State) -> bool:
    return sum(ran(state.chain, payload) for payload in PAYLOADS) > 1


def explore(rule: Rule) -> explored.Result[State]:
    return explored.explore(State(), partial(steps, rule), twice)


def tell() -> bool:
    """Print what holds and how the rest fails; return whether that is as it should be."""
    good = [explored.holds(RULE.name, explore(RULE), "double payment")]
    good += [explored.fails(rule.name, explore(rule), "two payments") for rule in WRONG]
    return all(good)
