"""Can two charges of one top-up ever both be paid? In a model small enough for that, every way is tried.

    python -m tests.proofs.rule_r

The chain of the model puts one transaction into a block at most, in the order of the nonces; a payment may be mined
whenever its bytes are out, and may revert for no reason; a charge is paid once, and not after its deadline, by the
block's own time; blocks that are not final may be replaced by others, earlier ones included. The sender may sign any
payment at any nonce, as far as its rule allows: a charge has to be marked dead before another may be signed, and what
counts as a proof of that is the rule. Rule R must let no state be reached in which both are paid; each of the rules
that look right beside it has to be caught.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple

from tests.proofs import explored, sponsored_model, wish_model

# A chain is written as a text, a letter a block: a or b, in capitals when that charge is paid and small when it
# reverts; x for another transaction that takes the nonce and pays nothing, such as a cancel; t for an empty block by
# which the next deadline has passed; a dot for an empty block that changes nothing.
CHARGES: Final = "ab"
TAKES_NONCE: Final = "AaBbx"


class State(NamedTuple):
    """What there is: final blocks, later blocks, nonces that each charge was signed at (bits), marks, what we noticed.

    The deadline of charge 0 passes first, and that of charge 1 with it or later.
    """

    final: str
    later: str
    signed: tuple[int, int]
    dead: tuple[bool, bool]
    noticed: int | str

    @property
    def chain(self) -> str:
        return self.final + self.later


START: Final = State("", "", (0, 0), (False, False), noticed=0)


@cache
def used(blocks: str) -> int:
    return sum(block in TAKES_NONCE for block in blocks)


@cache
def expired(blocks: str, charge: int) -> bool:
    return blocks.count("t") > charge


def paid(blocks: str, charge: int) -> bool:
    return CHARGES[charge].upper() in blocks


def all_nonces(state: State, charge: int, blocks: str) -> bool:
    return state.signed[charge] >> used(blocks) == 0


@dataclass(frozen=True)
class Rule:
    """When a charge counts as dead: `proof`, judged on a state and a charge whose payment is out.

    `notice` is something the sender may come to know and keeps in mind, as the number or text that `note` makes of a
    state; 0 and "" are nothing. `binds` says whether a charge that is marked dead may itself be signed no more. After
    so many `steps`, and no fewer, a wrong rule has paid both.
    """

    name: str
    proof: Callable[[State, int], bool]
    notice: str = ""
    note: Callable[[State], int | str] = lambda _state: 1
    binds: bool = True
    steps: int = 0


def proof_r(state: State, charge: int) -> bool:
    """Rule R: unpaid, and a final block is past its deadline (D1) or final blocks have taken all its nonces (D2)."""
    if paid(state.chain, charge):
        return False
    return expired(state.final, charge) or all_nonces(state, charge, state.final)


RULE_R: Final = Rule("Rule R", proof_r)


def _noticed(state: State, charge: int) -> bool:
    return state.noticed != 0 and not paid(state.chain, charge)


def _where_it_was_taken(state: State) -> int:
    """Note at which height all nonces of charge 0 were taken, and which these were."""
    signed = state.signed[0]
    return len(state.chain) << 8 | signed if signed and all_nonces(state, 0, state.chain) else 0


def _remembered(state: State, charge: int) -> bool:
    assert isinstance(state.noticed, int)
    known = charge == 0 and state.noticed & 0xFF == state.signed[0] != 0
    return known and not paid(state.chain, 0) and len(state.final) >= state.noticed >> 8


def all_free(state: State, charge: int, blocks: str) -> bool:
    return state.signed[charge] != 0 and state.signed[charge] & ((1 << used(blocks)) - 1) == 0


def _stranger_as_high(state: State, charge: int) -> bool:
    known = charge == 0 and state.noticed and not paid(state.chain, 0)
    return bool(known) and isinstance(state.noticed, int) and len(state.final) >= state.noticed


WRONG: Final = (
    Rule(
        "the newest block shows its nonces used",
        lambda s, c: not paid(s.chain, c) and all_nonces(s, c, s.chain),
        steps=7,
    ),
    Rule(
        "the newest block is past its deadline",
        lambda s, c: not paid(s.chain, c) and expired(s.chain, c),
        steps=7,
    ),
    Rule("we waited long enough", _noticed, "we have waited ten minutes and see nothing of it", steps=6),
    Rule(
        "its receipt shows a revert, in a block that is not final",
        lambda s, c: not paid(s.chain, c) and s.chain.count(CHARGES[c]) == s.signed[c].bit_count(),
        steps=7,
    ),
    Rule("our clock is past its deadline", _noticed, "the chain halts, and our clock passes both deadlines", steps=6),
    Rule("a node took our cancel", _noticed, "a node takes our cancel", steps=6),
    Rule("no provider knows its receipt", lambda s, c: not paid(s.chain, c) and CHARGES[c] not in s.chain, steps=5),
    Rule(
        "one of its nonces is taken in a final block",
        lambda s, c: not paid(s.chain, c) and s.signed[c] & ((1 << used(s.final)) - 1) != 0,
        steps=8,
    ),
    Rule(
        "its nonces were seen taken, and a final block is as high by now",
        _remembered,
        "we see its nonces taken, and remember in which block",
        _where_it_was_taken,
        steps=10,
    ),
    Rule("Rule R, and what is marked dead may be signed again", proof_r, binds=False, steps=8),
    Rule(
        "its inclusion was taken back: its nonce is unused",
        lambda s, c: not paid(s.chain, c) and all_free(s, c, s.chain),
        steps=5,
    ),
    Rule(
        "a stranger has used its nonces, in a block as high as a final one",
        _stranger_as_high,
        "we see its nonces used by a stranger, and remember at which height",
        lambda s: len(s.chain) if s.signed[0] and all_nonces(s, 0, s.chain) else 0,
        steps=9,
    ),
)


def seen_in(state: State) -> str:
    """Return the chain by whose end every nonce of charge 0 was used, as it was seen; "" while it was not."""
    return state.chain if state.signed[0] and all_nonces(state, 0, state.chain) else ""


def proof_seen(state: State, charge: int) -> bool:
    """Judge charge 0 by a block that was seen: it is final, and still the same; and the charge is unpaid.

    This is what the program knows where its providers have forgotten the state of final blocks. What the charge was
    signed for since is not covered by it, and nothing is signed at a nonce that a later block may free.
    """
    if charge != 0 or not isinstance(state.noticed, str) or paid(state.chain, 0):
        return charge == 1 and proof_r(state, 1)
    stands = state.final.startswith(state.noticed)
    return stands and state.signed[0] >> used(state.noticed) == 0


# What the program does when something unknown has used its nonces.
BY_SIGHT: Final = Rule(
    "Rule R, by a block that was seen, is final and is still the same",
    proof_seen,
    "every nonce of the charge is used by the end of this block",
    seen_in,
)


# -- what can happen --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A rule, how many nonces there are, and how many empty blocks in which nothing changes."""

    rule: Rule
    nonces: int = 3
    idle: int = 1

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        yield from self.signatures(state)
        yield from self.world(state)

    def signatures(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield what the sender may do or notice."""
        for charge in (0, 1):
            if state.signed[charge] and not state.dead[charge] and self.rule.proof(state, charge):
                dead = (True, state.dead[1]) if charge == 0 else (state.dead[0], True)
                yield f"dead {charge}", state._replace(dead=dead)
            if not self.may_sign(state, charge):
                continue
            for nonce in range(used(state.final), self.nonces):
                bits = state.signed[charge] | 1 << nonce
                if bits != state.signed[charge]:
                    signed = (bits, state.signed[1]) if charge == 0 else (state.signed[0], bits)
                    yield f"sign {charge} {nonce}", state._replace(signed=signed)
        if self.rule.notice and not state.noticed and self.rule.note(state):
            yield "notice", state._replace(noticed=self.rule.note(state))

    def may_sign(self, state: State, charge: int) -> bool:
        """Tell whether the rule lets this charge be signed: the other is not out, or is marked dead."""
        other = 1 - charge
        return not (self.rule.binds and state.dead[charge]) and (not state.signed[other] or state.dead[other])

    def world(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield what the chain may do, whatever the sender does."""
        kept = state[2:]
        for step, final, later in happens(state.final, state.later, state.signed, self.nonces, self.idle):
            yield step, State(final, later, *kept)


@cache
def happens(final: str, later: str, signed: tuple[int, int], nonces: int, idle: int) -> list[tuple[str, str, str]]:
    """Return what the chain may do next, and its blocks after that; the same whatever the sender has marked or seen."""
    chain = final + later
    nonce = used(chain)
    blocks = "t" if chain.count("t") < 2 else ""
    if chain.count(".") < idle:
        blocks += "."
    if nonce < nonces:
        blocks += "x"
        for charge in (0, 1):
            if signed[charge] >> nonce & 1:
                blocks += CHARGES[charge]
                if not paid(chain, charge) and not expired(chain, charge):
                    blocks += CHARGES[charge].upper()
    steps = [(f"block {block} {nonce}", final, later + block) for block in blocks]
    steps += [(f"reorg {len(later) - left}", final, later[:left]) for left in range(len(later))]
    return [*steps, ("final", final + later[0], later[1:])] if later else steps


@dataclass(frozen=True)
class Believing(Model):
    """The model with a sender that may be shown an inclusion of charge 0 that never was.

    While it believes in one it signs nothing and takes nothing for dead. It takes the inclusion back when at the newest
    block every nonce of the charge is unused, and goes on as before. `forgets` is the sabotage: it takes what was taken
    back for dead.
    """

    forgets: bool = False

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.noticed:
            if all_free(state, 0, state.chain):
                dead = (True, state.dead[1]) if self.forgets else state.dead
                yield "take back", state._replace(noticed=0, dead=dead)
        else:
            yield from self.signatures(state)
            if state.signed[0]:
                yield "believe", state._replace(noticed=1)
        yield from self.world(state)


def both_paid(state: State) -> bool:
    chain = state.chain
    return "A" in chain and "B" in chain


# -- trying all of it -------------------------------------------------------------------------------------------------


def explore(model: Model) -> explored.Result[State]:
    """Visit every state, the nearest first, until both charges are paid or nothing is new."""
    return explored.explore(START, model.steps, both_paid, partial(_sentence, model.rule))


def reachable(model: Model) -> dict[State, list[tuple[str, State]]]:
    """Return every state that can be reached, with everything that can happen next in it."""
    return {state: list(model.steps(state)) for state in explore(model).reached}


def payable(graph: dict[State, list[tuple[str, State]]], charge: int) -> set[State]:
    """Return the states from which this charge is paid, or may come to be paid although nobody signs it again."""
    before: dict[State, list[State]] = {}
    for state, steps in graph.items():
        for step, after in steps:
            if not step.startswith(f"sign {charge}"):
                before.setdefault(after, []).append(state)
    queue = deque(state for state in graph if paid(state.chain, charge))
    found = set(queue)
    while queue:
        for state in before.get(queue.popleft(), ()):
            if state not in found:
                found.add(state)
                queue.append(state)
    return found


# -- telling it -------------------------------------------------------------------------------------------------------


def _sentence(rule: Rule, step: str, state: State) -> str:
    match step.split():
        case ["sign", charge, nonce]:
            return f"charge {_name(charge)} is signed at nonce {nonce}, and its bytes leave"
        case ["dead", charge]:
            return f"charge {_name(charge)} is taken for dead: {rule.name}"
        case ["believe"]:
            return "a provider shows an inclusion of charge A that never was, and it is believed"
        case ["take", "back"]:
            return "its nonce is unused at the newest block: the inclusion is taken back"
        case ["notice"]:
            return rule.notice
        case ["reorg", count]:
            return f"reorganisation: the newest {count} block(s) are gone"
        case ["final"]:
            return f"block {len(state.final) + 1} becomes final"
        case ["block", block, nonce]:
            return f"block {len(state.chain) + 1}: {_content(block, nonce, state)}"
        case _:
            raise AssertionError(step)


def _content(block: str, nonce: str, state: State) -> str:
    if block == "t":
        return f"empty, and later than the deadline of charge {_name(state.chain.count('t'))}"
    if block == ".":
        return "empty"
    if block == "x":
        return f"another transaction takes nonce {nonce}"
    return f"the payment of charge {block.upper()} at nonce {nonce} {'pays' if block.isupper() else 'reverts'}"


def _name(charge: str | int) -> str:
    return CHARGES[int(charge)].upper()


# Two nonces: what is remembered multiplies the states.
SEEN: Final = Model(BY_SIGHT, nonces=2, idle=1)
BELIEVING: Final = Believing(RULE_R, nonces=3, idle=1)


def main() -> int:
    """Print what holds and how the rest fails; return 1 when that is not as it should be."""
    good = [
        explored.holds(name, explore(model), "double payment")
        for name, model in (
            (RULE_R.name, Model(RULE_R)),
            ("by a block that was seen", SEEN),
            ("with an invented inclusion", BELIEVING),
        )
    ]
    good += [explored.fails(rule.name, explore(Model(rule)), "both charges are paid") for rule in WRONG]
    return int(not all([*good, sponsored_model.tell(), wish_model.tell()]))


if __name__ == "__main__":
    sys.exit(main())
