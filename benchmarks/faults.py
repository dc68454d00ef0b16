"""What becomes of a payment when things go wrong? `python -m benchmarks.faults [--json]`.

One run, one table: each story of tests/stories.py told to topup, and, where the same trouble can befall it, to the
recipe beside it: what a user writes from the provider's own documentation, with a retry around it. Then a sample of the
kill matrix (tests/kill_matrix.py) and a soak (tests/simulation.py). Exits with 1 when topup did not survive a row.
The recipe has one provider, as documented; a story that topup meets with several befalls the first of them.

Seconds are those of the world, from the need to the end: for topup credits posted and booked, for the recipe credits
posted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.house import House, Result
    from tests.stories import Story

AMOUNT: Final = 10
FLOOR: Final = Decimal(10)
# What a user would allow for: the documented example leaves the price to whoever writes it.
VALUE_WEI: Final = 37 * 10**14
TIER: Final = 500
# web3.py's and viem's own patience with a receipt is two and three minutes.
RECEIPT_S_MAX: Final = 120
TRIES: Final = 3
RETRY_S: Final = 10
# It is started by cron while the balance is low.
CRON_S: Final = 600
RUNS: Final = 6
# What is still on its way then has arrived long since.
AFTER_S: Final = 3600
SOAK_STEPS: Final = 2000
KILL_SAMPLE: Final = 4
KILL_LIVES: Final = ("refill", "outbid")
SEED: Final = 1


class Unpaid(Exception):
    """The recipe believes that a payment has failed."""


class Recipe:
    """Ask for a charge, simulate, sign, send, wait for the receipt; on any failure ask for a new charge and pay that.

    As the documented example has it, in Python: requests and web3.py with their defaults.
    """

    def __init__(self, house: House) -> None:
        """Live in this house; the first wire is its only provider."""
        import requests
        from eth_account import Account
        from web3 import Web3

        from topup.chain.contracts import interface

        self._house = house
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["authorization"] = f"Bearer {house.world.gateway.management_key}"
        self._web3 = Web3(Web3.HTTPProvider(house.wires[0].url))
        self._account = Account.from_key(house.world.key.to_hex())
        self._abi = interface("payment_protocol")
        self.believed = 0
        self.errors: list[str] = []

    def balance(self) -> Decimal:
        """Return the balance in dollars."""
        said = self._session.get(f"{self._house.api.url}/credits", timeout=20)
        told = json.loads(said.text, parse_float=Decimal)["data"]
        return Decimal(told["total_credits"]) - Decimal(told["total_usage"])

    def hour(self, between: Callable[[], None] = lambda: None) -> None:
        """Be started every ten minutes for an hour, and buy while the balance is low."""
        for _ in range(RUNS):
            if self.balance() < FLOOR:
                self.buy(between)
            self._house.wait(CRON_S)

    def buy(self, between: Callable[[], None] = lambda: None) -> None:
        """Pay until a payment has succeeded, a few times at most; `between` the first signature and its sending."""
        for _ in range(TRIES):
            try:
                self._pay(between)
            except Exception as error:  # noqa: BLE001 - that is how it is written
                self.errors.append(f"{type(error).__name__}: {error}"[:120])
                self._house.wait(RETRY_S)
            else:
                self.believed += 1
                return
            between = lambda: None  # noqa: E731

    def _pay(self, between: Callable[[], None]) -> None:
        raw = self._signed(self._charge())
        between()
        tx_hash = self._web3.eth.send_raw_transaction(raw)
        if self._receipt(tx_hash)["status"] != 1:
            raise Unpaid("reverted")

    def _charge(self) -> dict[str, Any]:
        asked = {"amount": AMOUNT, "sender": self._account.address, "chain_id": 8453}
        said = self._session.post(f"{self._house.api.url}/credits/coinbase", json=asked, timeout=20)
        intent: dict[str, Any] = said.json()["data"]["web3_data"]["transfer_intent"]
        return intent

    def _signed(self, charge: dict[str, Any]) -> Any:
        from web3 import Web3

        said = charge["call_data"]
        contract = self._web3.eth.contract(
            address=Web3.to_checksum_address(charge["metadata"]["contract_address"]), abi=self._abi
        )
        intent = {
            "recipientAmount": int(said["recipient_amount"]),
            "deadline": int(datetime.fromisoformat(said["deadline"]).timestamp()),
            "recipient": Web3.to_checksum_address(said["recipient"]),
            "recipientCurrency": Web3.to_checksum_address(said["recipient_currency"]),
            "refundDestination": Web3.to_checksum_address(said["refund_destination"]),
            "feeAmount": int(said["fee_amount"]),
            "id": said["id"],
            "operator": Web3.to_checksum_address(said["operator"]),
            "signature": said["signature"],
            "prefix": said["prefix"],
        }
        payment = contract.functions.swapAndTransferUniswapV3Native(intent, TIER)
        terms: Any = {"from": self._account.address, "value": VALUE_WEI}
        payment.call(terms)
        # What web3.py and viem fill in by themselves: the pending nonce.
        terms["nonce"] = self._web3.eth.get_transaction_count(self._account.address, "pending")
        return self._account.sign_transaction(payment.build_transaction(terms)).raw_transaction

    def _receipt(self, tx_hash: Any) -> Any:
        """Wait for the receipt as web3.py's own function does, on the world's clock."""
        from web3.exceptions import TransactionNotFound

        end = self._house.clock.now_ms() + RECEIPT_S_MAX * 1000
        while self._house.clock.now_ms() < end:
            try:
                receipt = self._web3.eth.get_transaction_receipt(tx_hash)
            except TransactionNotFound:
                receipt = None
            if receipt is not None:
                return receipt
            self._house.wait(2)
        raise Unpaid(f"no receipt within {RECEIPT_S_MAX} s")


@dataclass(frozen=True)
class Fared:
    """How the recipe fared in a story: paid once and funded is survived, more or less is not.

    `believed` counts the payments it knows to have made; `lost` says that the chain has more.
    """

    survived: bool
    payments: int
    believed: int
    lost: bool
    recovered_in_s: int | None
    detail: str


def fare(story: Story) -> Fared | None:
    """Let the recipe live through the story's trouble; None when nothing of it can befall the recipe."""
    from tests.house import House

    overlapping = story.name == "two_live_senders"
    if story.trouble is None and not overlapping:
        return None
    with (
        tempfile.TemporaryDirectory(prefix="topup-recipe-") as folder,
        House(Path(folder), wallet_wei=story.wallet_wei) as house,
    ):
        recipe = Recipe(house)
        if story.prior:
            recipe.buy()
            house.low()
            house.need()
            recipe = Recipe(house)
        if story.trouble is not None:
            house.trouble(story.trouble)
        # A second copy of it that is started while the first one is between two steps.
        recipe.hour(Recipe(house).buy if overlapping else lambda: None)
        house.mining = True
        house.wait(AFTER_S)
        paid, believed = house.payments() - house.before, recipe.believed + overlapping
        posted = [one.posted_ms for one in house.world.gateway.issued.values() if one.posted_ms is not None]
        funded = [at for at in posted if at >= house.began_ms]
        return Fared(
            survived=paid == 1 and bool(funded),
            payments=paid,
            believed=believed,
            lost=paid > believed,
            recovered_in_s=(min(funded) - house.began_ms) // 1000 if funded else None,
            detail="; ".join(dict.fromkeys(recipe.errors)),
        )


# -- the run ----------------------------------------------------------------------------------------------------------


def told(story: Story) -> Result:
    """Tell a story to topup; one that breaks is not survived."""
    from tests.house import Result

    with tempfile.TemporaryDirectory(prefix="topup-story-") as folder:
        try:
            return story(Path(folder))
        except Exception as error:  # noqa: BLE001 - a row of the table whatever happens
            wrong = f"{type(error).__name__}: {error}"[:300]
            return Result(story.name, False, 0, False, False, "", (), None, "", (wrong,))


def rows(names: Sequence[str], say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Tell these stories, to topup and to the recipe."""
    from tests.stories import STORIES

    for story in sorted(STORIES.values(), key=lambda one: one.number):
        if names and story.name not in names:
            continue
        say(story.name)
        ours, theirs = told(story), fare(story)
        row = asdict(replace(ours, events=()))
        del row["events"]
        yield row | {
            "number": story.number,
            "says": story.says,
            "recipe": None if theirs is None else asdict(theirs),
        }


def killed(sample: int, lives: Sequence[str], jobs: int) -> dict[str, Any]:
    """Try a sample of the kill matrix; `cells` is None, with a reason, where it cannot run."""
    from tests import tools

    if sample < 0:
        return {"cells": None, "survived": None, "reason": "not asked for"}
    if tools.find("anvil") is None:
        return {"cells": None, "survived": None, "reason": "anvil is missing: python -m tests installs it"}
    from tests import kill_matrix

    chosen = [kill_matrix.LIVES[name] for name in lives]
    result = kill_matrix.run(sample, SEED, jobs, lives=chosen)
    failures = [{"cell": one.name, "wrong": one.wrong} for one in result.failures]
    return {"cells": result.cells, "survived": result.survived, "failures": failures}


def soaked(steps: int) -> dict[str, Any]:
    """Live so many steps of random trouble on the simulated world."""
    from tests import simulation

    result = simulation.soak(SEED, steps)
    return {
        "seed": result.seed,
        "steps": result.steps,
        "double_payments": result.double_payments,
        "lost": result.lost,
    }


def sound(told: dict[str, Any]) -> bool:
    """Tell whether every row was survived."""
    kill, soak = told["kill_matrix"], told["soak"]
    right = all(row["survived"] for row in told["stories"]) and kill["cells"] == kill["survived"]
    return right and not soak["double_payments"] and not soak["lost"]


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Write the table for a person."""
    yield f"{'':<34}| topup                                | the documented recipe with a retry"
    yield f"{'story':<34}| survived  payments  recovered in     | survived  payments  funded in"
    for row in told["stories"]:
        theirs = row["recipe"]
        ours = f"{_yes(row):<10}{row['payments']:<10}{_time(row['recovered_in_s'], asked=row['halted']):<17}"
        beside = f"{_yes(theirs):<10}{theirs['payments']:<10}{_time(theirs['recovered_in_s'])}" if theirs else "—"
        yield f"{row['number']:>2} {row['story']:<31}| {ours}| {beside}"
        yield from (f"     wrong: {one}" for one in row["wrong"])
    kill, soak = told["kill_matrix"], told["soak"]
    tried = f"{kill['survived']} of {kill['cells']} cells survived" if kill["cells"] is not None else kill["reason"]
    yield f"\nkill matrix: {tried}"
    yield from (f"     {one['cell']}: {one['wrong']}" for one in kill.get("failures", []))
    yield (
        f"soak: seed {soak['seed']}, {soak['steps']} steps, {soak['double_payments']} double payments,"
        f" {soak['lost']} lost"
    )


def _yes(row: dict[str, Any]) -> str:
    return "yes" if row["survived"] else "NO"


def _time(seconds: int | None, *, asked: bool = False) -> str:
    if asked:
        return "a person's word"
    if seconds is None:
        return "never"
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def main() -> int:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--stories", nargs="+", metavar="NAME", default=[], help="only these")
    parser.add_argument("--soak-steps", type=int, default=SOAK_STEPS, help="length of the soak")
    parser.add_argument(
        "--kill-sample", type=int, default=KILL_SAMPLE, help="cells beside the dangerous; -1: no matrix"
    )
    parser.add_argument("--kill-lives", nargs="+", default=KILL_LIVES, help="which lives are killed")
    parser.add_argument("--jobs", type=int, default=2, help="killed lives at a time")
    options = parser.parse_args()
    try:
        from tests.stories import STORIES
    except ImportError as error:
        print(f"{error.name} is missing: install requirements/test.txt, and run this from a checkout", file=sys.stderr)
        return 2
    if unknown := set(options.stories) - set(STORIES):
        print(f"no story is called {', '.join(sorted(unknown))}; there are {', '.join(STORIES)}", file=sys.stderr)
        return 2

    def say(what: str) -> None:
        if sys.stderr.isatty():
            print(what, file=sys.stderr, flush=True)

    document = {
        "schema": 1,
        "stories": list(rows(options.stories, say)),
        "kill_matrix": killed(options.kill_sample, options.kill_lives, options.jobs),
        "soak": soaked(options.soak_steps),
    }
    print(json.dumps(document, indent=2) if options.json else "\n".join(lines(document)))
    return int(not sound(document))


if __name__ == "__main__":
    sys.exit(main())
