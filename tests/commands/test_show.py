"""Does `topup show` tell the whole life of a top-up, and the dossier what a provider's support needs; and no secret?"""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.world import ledger
from tests.world.builders import ACCOUNT, NOW_MS, WALLET, operator, topup
from tests.world.served import asked, no_float
from tests.world.stage import refilled
from tests.world.tempo import buying
from tests.world.tempo import selling as mpp_world
from topup.accounting.journal import attempt_entry, posting_entry
from topup.commands.show import life_document
from topup.domain import events
from topup.domain.coinbase_charge import Charge, parse
from topup.domain.credits import Reading
from topup.domain.lifecycle import Fact, TopUp
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.purchases import RECIPIENT
from topup.sandbox.tempo import USDC_E
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling
from topup.sandbox.x402_seller import RECIPIENT as SELLS_FOR

CREDITED_MS = NOW_MS + 60_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore.open_writer(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def show(tmp_path: Path) -> Any:
    own = {"TOPUP_API__KEY": "sk-or-v1-canary", "TOPUP_CHAIN__RPC_URLS": "https://rpc.example.com/canary"}
    return partial(asked, tmp_path / "state", "show", **own)


def demand_of(kept: TopUp) -> Charge:
    return parse(kept.raw_of(kept.attempts[0]))


def done(store: SqliteStore) -> TopUp:
    """A top-up with its whole life behind it, and the readings around it."""
    store.record_reading(ACCOUNT, Reading(Usd.of(100), Usd.of("96.79"), NOW_MS - 1000))
    kept = ledger.paid(store, operator())
    kept = store.move(kept, Fact.POSTED, CREDITED_MS)
    store.record_reading(ACCOUNT, Reading(Usd.of(110), Usd.of("96.80"), CREDITED_MS))
    demand = demand_of(kept)
    attempt = kept.attempts[0]
    kept = store.settle(kept, attempt, attempt_entry(kept.id, attempt, demand), CREDITED_MS)
    return store.finish(kept, posting_entry(kept, attempt, demand, CREDITED_MS), CREDITED_MS + 500)


def test_a_life_is_told_on_one_screen(store: SqliteStore, show: Any) -> None:
    """State, arrows with their times and lengths, charge, attempt, evidence, journal; no line too long to read."""
    kept = done(store)
    shown = show("t1")
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 160
    assert lines[0] == "t1  done  10 dollars"
    for fact in ("decide", "ask", "answered", "reserve", "signed", "intend", "paid", "posted", "settled"):
        assert [line for line in lines if re.match(rf"  \d{{4}}-\S+ \S+Z  {fact} ", line)], fact
    tx_hash = kept.attempts[0].hash
    assert tx_hash is not None
    for text in ("1.0 min", "0x" + tx_hash.hex(), "nonce 7", "in block 101", "paid, booked", "10.5 USDC to 0x"):
        assert text in shown.stdout, text


def test_the_document_holds_everything(store: SqliteStore, show: Any) -> None:
    """Schema 1; amounts are text; every table of the ledger that speaks of the top-up is in it."""
    kept = done(store)
    told = json.loads(show("t1", "--json").stdout, parse_float=no_float)
    assert told["schema"] == 1
    assert [m["fact"] for m in told["moves"]] == [m["fact"] for m in store.moves("t1")]
    assert [m["stayed_ms"] for m in told["moves"]][-3:] == [60_000, 500, None]
    (charge,), (attempt,) = told["charges"], told["attempts"]
    assert (charge["total_units"], charge["fees_usdc"], charge["proven"]) == ("10500000", "0.5", True)
    assert (attempt["kind"], attempt["nonce"], attempt["sends"]) == ("pay", "7", 1)
    assert attempt["inclusion"]["spent_wei"] == str(kept.payment.spent.units) if kept.payment else False
    assert [e["kind"] for e in told["evidence"]] == ["paid"]
    assert [e["text"] for e in told["entries"]] == ["payment", "credits posted"]
    assert all(sum(int(x["units"]) for x in e["lines"] if x["commodity"] == "ETH") == 0 for e in told["entries"])


@pytest.mark.parametrize("how", [(), ("--json",), ("--dossier",), ("--dossier", "--json")])
def test_no_way_of_showing_prints_signed_bytes_or_secrets(store: SqliteStore, show: Any, how: tuple[str, ...]) -> None:
    """The raw transaction, the operator's signature, the API key and the provider's address stay where they are."""
    kept = done(store)
    raw = kept.attempts[0].raw
    assert raw is not None
    signature = demand_of(kept).intent.signature
    shown = show("t1", *how).output
    assert shown.count("t1") >= 1
    for hidden in (raw.hex(), signature.hex(), "canary"):
        assert hidden not in shown


def test_the_dossier_is_enough_to_find_the_payment(store: SqliteStore, show: Any) -> None:
    """Charge, intent, transaction, block, both parties, what was paid, what was expected, what was read last."""
    kept = ledger.paid(store, operator())
    store.record_reading(ACCOUNT, Reading(Usd.of(100), Usd.of(97), CREDITED_MS))
    store.move(kept, Fact.POSTING_LATE, CREDITED_MS)
    demand = demand_of(kept)
    attempt, intent = kept.attempts[0], demand.intent
    assert attempt.hash is not None
    told = json.loads(show("t1", "--dossier", "--json").stdout)
    assert told["schema"] == 1
    for name, value in {
        "state": "uncredited",
        "credited": False,
        "charge_id": demand.charge_id,
        "intent_id": "0x" + intent.id.hex(),
        "operator": "0x" + intent.operator.hex(),
        "recipient": "0x" + intent.recipient.hex(),
        "contract": "0x" + demand.contract.hex(),
        "chain_id": 8453,
        "tx_hash": "0x" + attempt.hash.hex(),
        "block_number": 101,
        "block_hash": "0x" + "0b" * 32,
        "block_ms": NOW_MS,
        "payer": "0x" + WALLET.hex(),
        "paid_units": "10500000",
        "paid_usdc": "10.5",
        "credits_expected_usd": "10",
        "total_credits_before_usd": "100",
        "total_credits_last_usd": "100",
        "total_credits_last_ms": CREDITED_MS,
    }.items():
        assert told[name] == value, name
    assert [one["what"] for one in told["timeline"]][-2:] == ["payment seen in a block", "credits overdue"]
    text = show("t1", "--dossier").stdout
    assert text.startswith("Purchase of 10 dollars of credit: paid on the chain, not credited\n")
    for name in ("charge_id", "intent_id", "operator", "recipient", "contract", "tx_hash", "block_hash", "payer"):
        assert told[name] in text, name


def test_what_was_not_paid_has_no_dossier(store: SqliteStore, show: Any) -> None:
    """A payment that may be out is no payment to complain about; the error names where its life is told."""
    ledger.sent(store, operator())
    shown = show("t1", "--dossier")
    assert shown.exit_code == 2
    assert "`topup show t1`" in shown.output


def bought(made: AbstractContextManager[World], directory: Path) -> tuple[TopUp, bytes, list[dict[str, Any]]]:
    """Buy once from a seller that carries the payment; return the top-up, what was signed, and its token's logs."""
    with made as world:
        own: Any = world.gateway
        kept = refilled(world, directory, own.environment() if hasattr(own, "environment") else buying(world.rpc.url))
        payment = kept.paying
        assert payment is not None and payment.raw is not None and payment.inclusion is not None
        at = hex(payment.inclusion.block_number)
        wanted = {"fromBlock": at, "toBlock": at, "address": "0x" + payment.plan.to.hex()}
        return kept, payment.raw, world.do(lambda: world.chain.rpc("eth_getLogs", [wanted]))


def secret_of(raw: bytes) -> list[str]:
    """What was signed, and its signature apart: for an authorization, or a whole transaction, as it was handed over."""
    header = raw.decode().rpartition(" ")[2]
    payload = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["payload"]
    return [header, payload["signature"].removeprefix("0x")]


def dossier_of(show: Any, raw: bytes, wanted: dict[str, Any], named: str) -> dict[str, Any]:
    """The dossier of a payment, which holds this, names these in its text, and tells what was signed in no form."""
    told: dict[str, Any] = json.loads(show("t", "--dossier", "--json").stdout)
    assert {name: told[name] for name in wanted} == wanted
    text = show("t", "--dossier").stdout
    assert [name for name in named.split() if told[name] not in text] == []
    assert f"10 {wanted['asset']} ({wanted['paid_units']} units)" in text
    for how in ((), ("--json",), ("--dossier",), ("--dossier", "--json")):
        assert not [hidden for hidden in secret_of(raw) if hidden in show("t", *how).output]
    return told


def test_the_dossier_of_an_x402_payment(tmp_path: Path, show: Any) -> None:
    """The transaction is the chain's, not the nonce; recipient, amount and nonce stand there; the signature nowhere."""
    made = World(embedded, scale=10, make_gateway=selling("venice"))
    kept, raw, logs = bought(made, tmp_path / "state")
    (used,) = [log for log in logs if len(log["topics"]) == 3 and log["data"] == "0x"]
    wanted = {
        "rail": "x402",
        "credited": True,
        "authorization_nonce": used["topics"][2],
        "tx_hash": used["transactionHash"],
        "block_number": int(used["blockNumber"], 16),
        "payer": "0x" + kept.wallet.hex(),
        "recipient": SELLS_FOR.lower(),
        "token": contracts.USDC.lower(),
        "asset": "USDC",
        "paid_units": "10000000",
        "paid_usdc": "10",
        "credits_expected_usd": "10",
        "idempotency_key": None,
        "memo": None,
    }
    named = "authorization_nonce tx_hash recipient token payer seller valid_until_at"
    told = dossier_of(show, raw, wanted, named)
    assert told["seller"].startswith("http://127.0.0.1:")
    (charge,) = json.loads(show("t", "--json").stdout)["charges"]
    assert (charge["unreadable"], charge["recipient"], charge["total_units"]) == (None, SELLS_FOR.lower(), "10000000")


def test_the_dossier_of_a_machine_payment(tmp_path: Path, show: Any) -> None:
    """Purchase, idempotency key, challenge and the memo that the chain repeats; the signed transaction nowhere."""
    kept, raw, logs = bought(mpp_world(), tmp_path / "state")
    (noted,) = [log for log in logs if len(log["topics"]) == 4]
    asked = json.loads(kept.raw_of(kept.attempts[0]))
    wanted = {
        "rail": "mpp",
        "credited": True,
        "reference": kept.attempts[0].reference,
        "idempotency_key": asked["key"],
        "memo": noted["topics"][3],
        "tx_hash": noted["transactionHash"],
        "recipient": RECIPIENT.lower(),
        "token": USDC_E.lower(),
        "asset": "USDC.e",
        "paid_units": "10000000",
        "chain_id": 4217,
        "authorization_nonce": None,
    }
    told = dossier_of(show, raw, wanted, "reference idempotency_key challenge_id memo tx_hash recipient token")
    assert told["reference"].startswith("pi_")
    assert f'id="{told["challenge_id"]}"' in asked["challenges"][0]


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(store: SqliteStore, show: Any) -> None:
    """Two that begin alike are named; a whole id that is the beginning of another is meant itself."""
    for name in ("t1", "t12", "t2"):
        kept = store.begin(topup(id=name))
        store.move(kept, Fact.DROP, NOW_MS, "no_longer_needed")
    assert show("t2").stdout.startswith("t2  dropped")
    assert show("t1").stdout.startswith("t1  dropped")
    assert show("t12").stdout.startswith("t12  dropped")
    several = show("t")
    assert several.exit_code == 2
    assert "t1, t12, t2" in several.output


@pytest.mark.parametrize("name", ["t9", "", "%", "t_"])
def test_an_unknown_id_names_the_remedy(store: SqliteStore, show: Any, name: str) -> None:
    """Exit 2, and the command that lists those there are."""
    store.begin(topup(id="t1"))
    shown = show(name)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "`topup history`" in shown.stderr


def test_a_state_that_lasts_is_measured_until_now(store: SqliteStore) -> None:
    """How long an open top-up has been where it is, by ledger time."""
    ledger.sent(store, operator())
    told = life_document(store.life("t1"), NOW_MS + 90_000)
    assert told["moves"][-1]["stayed_ms"] == 90_000


def test_what_others_wrote_cannot_command_a_terminal(store: SqliteStore, show: Any) -> None:
    """A reason with control characters is printed as text."""
    store.move(store.begin(topup()), Fact.DROP, NOW_MS, "refused\x1b[2J\r\u202eand more")
    shown = show("t1").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J\\r\\u202eand more" in shown


def test_a_charge_that_cannot_be_read_is_shown_as_such(store: SqliteStore, show: Any) -> None:
    """The answer was no charge: its life goes on being told."""
    kept = store.ask(store.begin(topup()), NOW_MS)
    kept = store.answered(kept, b'{"data": {}}', NOW_MS + 5)
    store.move(kept, Fact.CHARGE_DEAD, NOW_MS + 6, "refused: no field")
    (charge,) = json.loads(show("t1", "--json").stdout)["charges"]
    assert (charge["charge_id"], charge["proven"], charge["abandoned"]) == (None, False, "refused: no field")
    assert charge["unreadable"]
    assert "charge 1  asked" in show("t1").stdout


def test_the_alarm_names_the_dossier() -> None:
    """Whoever is called because credits are missing is told which command writes the ticket."""
    assert "topup show ID --dossier" in events.PaidNotCredited.todo
