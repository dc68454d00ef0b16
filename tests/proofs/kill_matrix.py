"""Is there any step at which a killed topup pays twice, pays for nothing, or loses track? Every one of them is tried.

    python -m tests.proofs.kill_matrix [--sample N] [--seed S] [--life NAME] [--cell LIFE:CELL] [--jobs N]

A life is a real `topup run` against a real anvil, from a low balance to a finished refill, with something particular
happening in it. Each life is lived once to record its trace: every commit of the ledger and every call of a port. From
that trace come the cells. In each cell a fresh world lives the same life up to one step; there the process dies of
SIGKILL, with the answer of a call that changes something kept, lost, delayed or duplicated. Then the ordinary program
is started, without any wrapper, and must finish: one payment on the chain, one top-up, books equal to the chain to the
unit in every asset, and nothing on the chain or with the seller that the ledger does not hold.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, NoReturn

from tests.proofs import kill_worlds
from tests.proofs.kill_lives import LIVES
from tests.proofs.kill_telling import untold
from tests.proofs.kill_worlds import CHILDREN, TEN, WIRE, House, Life, house_of, until
from tests.proofs.killed import FOREIGN, LATER, TELL, UNSIGNED, Cell
from tests.world import proxy
from tests.world.stage import spent_in_books
from topup.domain.lifecycle import State, TopUp
from topup.ledger.store import SqliteStore

UNDER_TEST: Final = (sys.executable, "-m", "tests.proofs.killed")
# Calls that change nothing on the other side: of them only the moment of death matters.
READS: Final = frozenset(
    {
        "api.credits",
        "api.key",
        "chain.preflight",
        "chain.simulate",
        "chain.look",
        "chain.payment_status",
        "chain.flag",
        "tokens.preflight",
        "tokens.simulate",
        "tokens.look",
        "tokens.payment_status",
        "seller.get",
    }
)
# By these the signed bytes leave.
SENDS: Final = frozenset({"chain.send", "seller.post"})
FAULT: Final[dict[str, Callable[[], proxy.Fault]]] = {
    "lost": proxy.lose,
    "delayed": proxy.hold,
    "duplicated": lambda: proxy.duplicate("second"),
}
# What polling repeats while nothing changes is the same step again; its first two times are tried.
POLLED: Final = READS | {"store.record_reading"}
REPEATS: Final = 2
# A step may be missed when the machine is busy, for then it polls more or less often; so often it is tried again.
TRIES: Final = 3
MISSED: Final = "this step was never reached"
# Of the steps that polling takes, so many may be missed for good; they are named, and count neither way.
MISSED_MAX: Final = Fraction(1, 20)


# -- what must hold in the end ----------------------------------------------------------------------------------------


def wrongs(house: House) -> list[str]:
    """Hold chain, account and ledger against each other; return a sentence for each thing that is wrong."""
    found = []
    ground, topups, payments = house.life.ground, house.topups(), house.payments()
    if ground.recipient:
        moves = house.world.do(lambda: ground.moves(house.world))
        payments = len(moves)
        if any((to, units) != (ground.recipient, TEN) for _, to, units in moves):
            found.append(f"dollars went elsewhere, or others than asked for: {moves}")
    if payments != int(house.life.pays):
        found.append(f"{payments} payments on the chain")
    counted = [t.state for t in topups if not (house.life.role.drops and t.state is State.DROPPED)]
    if counted != [State.DONE if house.life.pays else State.FAILED]:
        found.append(f"top-ups: {', '.join(f'{t.id} {t.state} {t.reason}' for t in topups) or 'none'}")
    bought = house.world.do(lambda: house.world.gateway.account.total_credits) - 20
    if bought != 10 * int(house.life.pays):
        found.append(f"{bought} dollars of credit arrived")
    now = house.world.do(lambda: ground.held(house.world))
    left = Counter({asset: before - now[asset] for asset, before in house.held.items()})
    with closing(SqliteStore.open_reader(house.state)) as store:
        if (booked := spent_in_books(store)) != left:
            found.append(f"the journal says that {booked} have left the wallet, the chain {left}")
        if damage := store.damage():
            found.append(f"the ledger's file is damaged: {damage}")
        if nonces := store._all("SELECT nonce FROM slot WHERE state = 'in_flight'"):
            found.append(f"{len(nonces)} nonces are still in flight")
    return found + _unknown(house, topups) + (untold(house) if house.life.told else [])


def _unknown(house: House, topups: Sequence[TopUp]) -> list[str]:
    """Tell what chain, node or seller have seen of the wallet that the ledger does not hold with its intent to send."""
    found = []
    ours = [a for t in topups for a in t.attempts if a.intended_ms is not None]
    held = {"0x" + a.tx_hash.hex() for a in ours if a.tx_hash is not None}
    mined = house.world.do(lambda: _mined(house))
    if lost := mined - held:
        found.append(f"on the chain and not in the ledger: {', '.join(sorted(lost))}")
    handed = house.world.do(lambda: house.life.ground.handed(house.world.gateway))
    if strange := handed - {a.hash.hex() for a in ours if a.hash is not None}:
        found.append(f"{len(strange)} payments were handed to the seller that the ledger does not hold")
    claimed = {"0x" + a.tx_hash.hex() for a in ours if a.tx_hash is not None and a.inclusion is not None}
    if claimed != mined:
        found.append(f"the ledger says {len(claimed)} attempts are in a block, the chain {len(mined)}")
    if strange := set(house.arrived) - {"0x" + a.raw.hex() for a in ours if a.raw is not None}:
        found.append(f"{len(strange)} transactions were sent that the ledger does not hold")
    if open_ones := [a.id for a in ours if a.inclusion is not None and not a.booked]:
        found.append(f"attempts {open_ones} are in a block and not in the books")
    return found


def _mined(house: House) -> set[str]:
    """Return the hashes of what the wallet has sent, or what took its dollars, in the whole chain; call it inside."""
    world = house.world
    found = {tx_hash for tx_hash, _, _ in house.life.ground.moves(world)}
    for number in range(1, int(world.chain.rpc("eth_blockNumber", []), 16) + 1):
        block = world.chain.rpc("eth_getBlockByNumber", [hex(number), True])
        found |= {tx["hash"] for tx in block["transactions"] if tx["from"].lower() == world.wallet.lower()}
    return found


# -- one life, and one death ------------------------------------------------------------------------------------------


def record(life: Life, program: Sequence[str] = UNDER_TEST) -> list[dict[str, Any]]:
    """Live a whole life undisturbed; return its trace."""
    with house_of(life, wired=False) as house:
        role, running = life.role, house.under_test(None, program)
        until("lived", lambda: role.over(house, running), running)
        role.end(house, running)
        found = wrongs(house)
        if found:
            raise AssertionError(f"life {life.name}, undisturbed: {'; '.join(found)}")
        return role.steps(house.use())


def cells(use: Iterable[dict[str, Any]]) -> list[Cell]:
    """Derive every way to die from a trace."""
    made: dict[Cell, None] = {}
    for one in use:
        call, at = one["call"], (one["phase"], one["call"], one["nth"])
        if call in POLLED and one["nth"] > REPEATS:
            continue
        made[Cell(*at, "before")] = None
        made[Cell(*at, "after")] = None
        if one["kind"] not in (FOREIGN, TELL) or call in READS:
            continue
        if call not in WIRE:
            raise KeyError(f"{call} is neither in READS nor in WIRE")
        for answer in FAULT:
            made[Cell(*at, "after", answer)] = None
            if one["kind"] == FOREIGN:  # no step of a top-up follows from what somebody was told
                made[Cell(*at, "used", answer)] = None
    return list(made)


def die_at(house: House, cell: Cell, program: Sequence[str]) -> list[proxy.Rule] | None:
    """Let the watched process live until its death; return what is still on its way, None where it never died."""
    rules: list[proxy.Rule] = []
    if cell.answer != "kept":
        rules = house.bend(cell.call, FAULT[cell.answer], house.armed.exists)
    role, running = house.life.role, house.under_test(cell, program)
    hangs = (cell.answer, cell.when) == ("delayed", "after")
    end = time.monotonic() + kill_worlds.LIFE_S
    while running.process.poll() is None and not role.over(house, running):
        if hangs and all(rule.hits for rule in rules):
            running.process.kill()  # it cannot do that itself in the midst of a call
        if time.monotonic() > end:
            raise TimeoutError(f"neither dead nor at rest: {running.log()[-1500:]}")
        time.sleep(0.03)
    code = running.process.poll()
    if role.over(house, running):
        return None
    if code != -signal.SIGKILL:
        raise AssertionError(f"ended by itself with {code}: {running.log()[-1500:]}")
    if not all(rule.hits for rule in rules):
        raise AssertionError(f"dead, and the answer was never {cell.answer}")
    return rules if cell.answer == "delayed" else []


@dataclass(frozen=True)
class Outcome:
    """What became of one cell; `wrong` is empty when it survived."""

    life: str
    cell: Cell
    wrong: str

    @property
    def name(self) -> str:
        return f"{self.life}:{self.cell}"

    @property
    def replay(self) -> str:
        return f"python -m tests.proofs.kill_matrix --cell '{self.name}'"


def survive(life: Life, cell: Cell, program: Sequence[str] = UNDER_TEST) -> Outcome:
    """Die at a cell, start again, and see what is wrong in the end."""
    wrong = MISSED
    for _ in range(TRIES):
        try:
            wrong = _attempt(life, cell, program)
        except (AssertionError, OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong != MISSED:
            break
    return Outcome(life.name, cell, wrong)


def _attempt(life: Life, cell: Cell, program: Sequence[str]) -> str:
    with house_of(life, wired=cell.answer != "kept") as house:
        late = die_at(house, cell, program)
        if late is None:
            return MISSED
        life.role.rest(house, late)
        return "; ".join(wrongs(house))


# -- the matrix -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How many cells were tried, how many survived, and what became of the others."""

    cells: int
    survived: int
    failures: tuple[Outcome, ...]
    missed: tuple[Outcome, ...]
    whole: int


def dangerous(cell: Cell) -> bool:
    """Tell whether money hangs on this very step: the bytes may leave, and the ledger may not have heard of it."""
    if cell.call in ("store.intend", "store.replace"):
        return cell.when == "after"
    if cell.call in SENDS and cell.phase not in UNSIGNED:
        return cell.answer in ("kept", "duplicated") and cell.when in ("before", "after")
    return cell.call == "store.delivered" and cell.when == "before"


def matrix(lives: Sequence[str], pool: Executor) -> list[tuple[str, Cell]]:
    """Record these lives and return every cell of theirs."""
    uses = zip(lives, pool.map(_record, lives), strict=True)
    every = [(life, cell) for life, use in uses for cell in cells(use)]
    return [(life, cell) for life, cell in every if LIVES[life].early or cell.phase not in UNSIGNED]


def _record(life: str) -> list[dict[str, Any]]:
    return record(LIVES[life])


def _survive(life: str, cell: Cell) -> Outcome:
    return survive(LIVES[life], cell)


def run(
    sample: int | None,
    seed: int,
    pool: Executor,
    *,
    lives: Sequence[str] = tuple(LIVES),
    say: Callable[[Outcome], None] = lambda _: None,
) -> Result:
    """Try every cell of these lives, or the dangerous ones and `sample` others, chosen by `seed`."""
    every = matrix(lives, pool)
    others = [one for one in every if not dangerous(one[1])]
    random.Random(seed).shuffle(others)
    chosen = [one for one in every if dangerous(one[1])] + others[:sample]
    outcomes = []
    for outcome in pool.map(_survive, *zip(*chosen, strict=True)):
        say(outcome)
        outcomes.append(outcome)
    # On a busy machine a block comes a moment later, and what follows it stands in another order: what was missed is
    # tried again with nothing beside it. A step that is missed even so is named and counts neither way, but only where
    # its life has died of the same call, at the same moment, in another phase: of whichever comes first, if need be.
    outcomes = [_survive(one.life, one.cell) if one.wrong == MISSED else one for one in outcomes]
    died = {_moment(one) for one in outcomes if not one.wrong}
    for one in outcomes:
        if one.wrong == MISSED and one.cell.call not in POLLED and _moment(one) not in died:
            elsewhere = _survive(one.life, replace(one.cell, phase=LATER, nth=1))
            died |= {_moment(elsewhere)} if not elsewhere.wrong else set()
    missed = tuple(one for one in outcomes if one.wrong == MISSED and (one.cell.call in POLLED or _moment(one) in died))
    tried_all = [one for one in outcomes if one not in missed]
    if len(missed) > MISSED_MAX * len(outcomes):
        tried_all, missed = outcomes, ()
    failures = tuple(one for one in tried_all if one.wrong)
    return Result(len(tried_all), len(tried_all) - len(failures), failures, missed, len(every))


def _moment(one: Outcome) -> tuple[str, str, str, str]:
    return one.life, one.cell.call, one.cell.when, one.cell.answer


def _stop(*_: object) -> NoReturn:
    """Leave no daemon behind, and no process that lives lives."""
    for worker in multiprocessing.active_children():
        worker.terminate()
    for one in CHILDREN:
        if one.poll() is None:
            one.kill()
    os._exit(128 + signal.SIGTERM)


def _stoppable() -> None:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)


def main(arguments: Sequence[str]) -> int:
    """Run the matrix; the exit code is 1 when anything did not survive."""
    reader = argparse.ArgumentParser(prog="python -m tests.proofs.kill_matrix", description=__doc__.splitlines()[0])
    reader.add_argument("--sample", type=int, help="try the dangerous cells and so many others")
    reader.add_argument("--seed", type=int, default=None, help="chooses the sample")
    reader.add_argument("--life", choices=LIVES, help="only the cells of this life")
    reader.add_argument("--cell", help="one cell: LIFE:CELL, as it was printed")
    reader.add_argument("--jobs", type=int, default=2, help="so many worlds at a time")
    asked = reader.parse_args(arguments)

    _stoppable()
    tried = 0

    def say(one: Outcome) -> None:
        nonlocal tried
        tried += 1
        if tried % 50 == 0:
            print(f"{tried} cells tried", file=sys.stderr, flush=True)
        if one.wrong:
            print(f"{one.name}: {one.wrong}\n    {one.replay}", file=sys.stderr, flush=True)

    if asked.cell is not None:
        life, _, cell = asked.cell.partition(":")
        outcome = survive(LIVES[life], Cell.of(cell))
        say(outcome)
        print("lost" if outcome.wrong else "survived")
        return int(bool(outcome.wrong))
    seed = asked.seed if asked.seed is not None else random.SystemRandom().getrandbits(32)
    lives = [asked.life] if asked.life else list(LIVES)
    # Each world is a process of its own: what plays the world is Python too, and two of them would wait for each other.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=context, initializer=_stoppable) as pool:
        result = run(asked.sample, seed, pool, lives=lives, say=say)
    print(
        f"kill matrix: {result.cells} of {result.whole} cells, {result.survived} survived,"
        f" {len(result.missed)} polls never reached, seed {seed}"
    )
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
