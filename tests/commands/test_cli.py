"""Does each command do what its help says, print one document, and leave with the exit code it promises?"""

import contextlib
import json
import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.generate_docs import commands
from tests.world.served import Served, events_of, no_float, served
from tests.world.stand import lie
from topup.commands.cli import app
from topup.domain.credits import Reading
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.wire.clock import SystemClock

AMOUNTS = (
    *("_usd", "_wei", "_units", "_usdc", "_eth", "hours_to_floor", "hours_to_empty", "credits_before"),
    *("asset_spent", "asset_fee"),
)


COMMANDS = {name.removeprefix("topup "): one for name, one in commands()}


# -- help and usage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    """`--help` and `-h` exit 0 and show one line that can be typed as it stands."""
    shown = [CliRunner().invoke(app, [*name.split(), flag]) for flag in ("--help", "-h")]
    assert [s.exit_code for s in shown] == [0, 0]
    assert shown[0].output == shown[1].output
    assert "Example:" in shown[0].output
    assert f"topup {name}" in " ".join(shown[0].output.partition("Example:")[2].split())


# -- documents --------------------------------------------------------------------------------------------------


# What is asked with --json in one life with one refill.
ASKED = (
    *("check", "once --dry-run", "once --amount 12.5 --yes", "status", "status --live", "history", "show t"),
    *(
        "show t --dossier",
        "reconcile",
        "statement",
        "usage",
        "forecast",
        "fund",
        "ledger verify",
        "config show",
        "doctor",
    ),
    *("pin", "pause", "resume", "resolve --accept-reading", "check", "sandbox", "wallet address", "wallet check"),
)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every command that has --json printed in one life with one refill, by its words; run in this process."""
    told = {}
    with served(tmp_path_factory.mktemp("life")) as place:
        for words in ASKED:
            if words in told:
                place.low()  # asked once more of an account that is low
            hidden = dict.fromkeys(name for name in os.environ if name.startswith("TOPUP_"))
            told[words] = CliRunner().invoke(app, [*words.split(), "--json"], env=hidden | place.environment())
    return told


@pytest.fixture
def documents(life: dict[str, Any]) -> dict[str, Any]:
    return {asked: json.loads(done.stdout) for asked, done in life.items()}


def test_every_command_with_json_was_asked_for_it(documents: dict[str, Any]) -> None:
    """A command that gains --json has to join the documents looked at here."""
    having = {name for name, c in COMMANDS.items() if any("--json" in p.opts for p in c.params)}
    # One needs a chain with access keys (tests/commands/test_limit.py), one somebody who is told (tests/app/
    # test_telling.py), the others write files (test_wallet.py, test_init.py, test_backup.py).
    having -= {"wallet limit", "wallet new", "wallet import", "init", "notify test", "backup", "restore"}
    assert having == {name for name in COMMANDS if any(asked.startswith(name) for asked in documents)}


def test_a_document_is_one_with_its_schema_and_its_amounts_are_strings(life: dict[str, Any]) -> None:
    """One JSON document, schema 1, no number that JSON would round; what is money, in any unit, is text or unknown."""
    found: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(pairs)
        return dict(pairs)

    for asked, done in life.items():
        assert json.loads(done.stdout, parse_float=no_float, object_pairs_hook=keep)["schema"] == 1, asked
    amounts = [(name, value) for name, value in found if name.endswith(AMOUNTS) and not isinstance(value, dict | None)]
    assert len(amounts) > 30
    for name, value in amounts:
        assert isinstance(value, str), (name, value)
        assert Decimal(value).is_finite(), (name, value)


def test_the_purchase_stands_in_every_document(documents: dict[str, Any]) -> None:
    """`once`, `status` and `history` tell of the same transaction."""
    bought = documents["once --amount 12.5 --yes"]
    assert (bought["outcome"], bought["exit_code"], bought["topup"]["amount_usd"]) == ("done", 0, "12.5")
    hashes = bought["topup"]["tx_hashes"]
    assert len(hashes) == 1
    assert documents["history"]["topups"][0]["tx_hashes"] == documents["status"]["last"][0]["tx_hashes"] == hashes
    assert documents["doctor"]["ok"] is True


def test_beside_a_document_the_log_is_json_on_standard_error(life: dict[str, Any]) -> None:
    """What stands on the one output is never mixed with what stands on the other."""
    logs = {asked: done.stderr for asked, done in life.items()}
    log = logs["once --amount 12.5 --yes"]
    assert [e["event"] for e in events_of(log)][-2:] == ["top_up_done", "cycle_done"]
    assert len(events_of(log)) == len(log.splitlines())
    assert {asked for asked, text in logs.items() if text} == {"once --amount 12.5 --yes"}


# -- exit codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", ["ten", "-5", "0", "NaN", "12.345", "Infinity", ""])
def test_exit_2_for_an_amount_that_is_none(amount: str) -> None:
    """Only plain dollars in whole cents are an amount; it is looked at before anything else."""
    done = CliRunner().invoke(app, ["once", f"--amount={amount}", "--yes"])
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("topup: --amount ")
    assert done.stdout == ""


def test_exit_3_while_paused_and_the_daemon_buys_nothing_until_resumed(place: Served) -> None:
    """A pause holds for `once`, for `once --amount --force` and for the daemon, and a resume ends it for the daemon."""
    assert place.run("pause").returncode == 0
    place.low()
    for arguments in (["once"], ["once", "--amount", "12.5"], ["once", "--amount", "12.5", "--force"]):
        done = place.run(*arguments, "--yes", "--json")
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["why"] == "paused"
    daemon = place.start("run")
    assert daemon.await_event("top_up_forbidden")["why"] == "paused"
    daemon.await_event("cycle_done", cycle=3)
    assert place.world.gateway.count("coinbase") == 0
    assert json.loads(place.run("status", "--json").stdout)["paused"] is True
    assert place.run("resume").stdout == "resumed\n"
    daemon.await_event("top_up_done")
    assert place.payments() == 1


def test_exit_3_in_observe_mode_and_4_when_the_balance_cannot_be_learnt(place: Served) -> None:
    """Without `mode = live` a purchase by hand is refused, though there is a key; a silent API is unknown, not low."""
    told = place.document("once", "--amount", "12.5", "--yes", mode="observe")
    assert (told["exit_code"], told["why"]) == (3, "observe_only")
    place.low()
    place.spoil("credits", "server-error-500")
    for arguments in (["check"], ["once", "--yes"], ["once", "--amount", "12.5", "--yes"]):
        assert place.document(*arguments)["exit_code"] == 4, arguments
    assert place.world.gateway.count("coinbase") == 0


def test_exit_5_when_it_is_paid_and_not_credited(place: Served) -> None:
    """`once` and `status` say that money has moved, and a second `once` does not pay again."""
    place.spoil("posting", "never-posts")
    late = {"posting__late_s": "1"}
    told = place.document("once", "--amount", "12.5", "--yes", **late)
    assert (told["exit_code"], told["topup"]["state"]) == (5, "uncredited")
    for again in (["status"], ["check"], ["once", "--amount", "12.5", "--yes"]):
        assert place.run(*again, **late).returncode == 5
    assert place.payments() == 1


def test_exit_5_when_an_error_comes_while_the_money_is_out(place: Served) -> None:
    """A provider that turns out to serve another chain ends `once` with a sentence, and never with "try again"."""
    place.world.mining = False
    running = place.start("once", "--amount", "12.5", "--yes")
    running.await_event("payment_sent")
    place.world.rpc.intercept = lie("eth_chainId", to=lambda _: "0x1")
    code = running.process.wait(timeout=30)
    assert code == 5, running.log()
    assert "Traceback" not in running.log()


# -- once -------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_do_and_spends_nothing(place: Served) -> None:
    """No charge is requested, nothing is sent, no ledger is made; an amount is judged whatever the floor says."""
    told = place.document("once", "--amount", "12.5", "--dry-run")
    assert (told["decision"], told["why"], told["amount_usd"]) == ("buy", "asked", "12.5")
    assert place.document("once", "--dry-run")["decision"] == "hold"
    assert place.world.gateway.count("coinbase") == 0
    assert place.world.rpc.asked["eth_sendRawTransaction"] == 0
    assert not place.state.exists()


def test_an_amount_is_bought_whatever_the_floor_says_and_cool_down_holds_the_next(place: Served) -> None:
    """The floor does not count; cool-down does, unless forced; a cap holds even then; history is newest first."""
    first = place.run("once", "--amount", "12.5", "--yes")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("done: ")
    again = place.document("once", "--amount", "12.5", "--yes")
    assert (again["exit_code"], again["why"]) == (4, "cooldown")
    capped = place.document("once", "--amount", "12.5", "--yes", "--force", policy__cap_24h="20")
    assert (capped["exit_code"], capped["why"]) == (3, "cap_24h")
    assert place.payments() == 1
    forced = place.run("once", "--amount", "6", "--yes", "--force")
    assert forced.returncode == 0, forced.stderr
    assert place.payments() == 2
    assert place.books_match()
    assert [t["amount_usd"] for t in place.document("history")["topups"]] == ["6", "12.5"]
    assert [t["amount_usd"] for t in place.document("history", "--count", "1")["topups"]] == ["6"]


# -- beside a daemon --------------------------------------------------------------------------------------------


def test_once_beside_a_daemon_hands_the_wish_over(place: Served) -> None:
    """The daemon buys it, `once` follows it and leaves with its outcome; the ledger has one writer throughout."""
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    done = place.run("once", "--amount", "12.5", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert "the running daemon does it" in done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["topup"]["state"], told["topup"]["amount_usd"]) == ("following", "done", "12.5")
    daemon.await_event("top_up_done", topup_id=told["topup"]["id"])
    cooled = place.run("once", "--amount", "12.5", "--yes", "--json")
    assert cooled.returncode == 4, cooled.stderr
    assert place.payments() == 1


def test_once_ends_when_the_daemon_it_asked_is_gone(place: Served) -> None:
    """A daemon that dies over the wish leaves `once` waiting for nobody: it leaves, and says that money may be out."""
    daemon = place.start("run", policy__cooldown_s="0")
    daemon.await_event("cycle_done")
    place.world.mining = False
    asking = place.start("once", "--amount", "12.5", "--yes")
    daemon.await_event("payment_sent")
    daemon.killed()
    assert asking.process.wait(timeout=30) == 5, asking.log()


def test_what_a_person_says_counts_even_when_the_ledger_is_ahead_of_the_clock(place: Served) -> None:
    """The clock once ran ten years ahead: a word said today is stamped with ledger time and is not long past."""
    ahead = 10 * 365 * 24 * 3_600_000
    with contextlib.closing(SqliteStore.open_writer(place.state)) as store:
        store.record_reading("default", Reading(Usd.of(20), Usd.of(1), SystemClock().now_ms() + ahead))
    assert place.run("resolve", "--adopt-nonce").returncode == 0
    with contextlib.closing(SqliteStore.open_reader(place.state)) as store:
        now = store.now_ms(SystemClock().now_ms())
        assert store.said_within("default", "adopt_nonce", now, 3_600_000)


# -- light and sturdy -------------------------------------------------------------------------------------------


# What a command need not load that asks no chain, and what one need not besides that reads the ledger alone.
HEAVY = {"web3", "eth_account", "eth_abi", "eth", "httpx", "aiohttp"}
FLOW = {"asyncio", "eth_utils", "structlog", "topup.domain.events", "topup.payment.cycle"}


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["history"], ["config", "show"], ["pause"]])
def test_what_asks_no_chain_loads_no_web3(arguments: list[str], place: Served) -> None:
    """No web3, no sandbox, no HTTP client; where the ledger alone is read no event of the flow: half the time."""
    SqliteStore.open_writer(place.state).close()
    program = (
        "import sys, topup.commands.cli\n"
        f"sys.argv = ['topup', *{arguments!r}]\n"
        "try:\n    topup.commands.cli.main()\n"
        "finally:\n    print(*sorted(m for m in sys.modules if sys.modules[m] is not None), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=place.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert "topup" in loaded
    assert loaded & (HEAVY | FLOW if arguments[0] in ("status", "history") else HEAVY) == set()


def test_status_without_a_ledger_says_how_to_get_one(place: Served) -> None:
    """There is nothing to read yet, which is no defect and no empty answer."""
    for command in ("status", "history"):
        done = place.run(command)
        assert done.returncode == 3
        assert "no ledger in" in done.stderr
        assert "to do:" in done.stderr


def test_config_show_tells_where_each_value_comes_from_and_masks_secrets(place: Served) -> None:
    """A variable over a file over a default; keys as stars, a provider's path as an ellipsis; and which file it was."""
    file = place.directory / "mine.toml"
    file.write_text("[policy]\nfloor = 12\ntopup_max = 50\n", encoding="utf-8")
    told = place.document("config", "show", TOPUP_CONFIG=str(file), chain__rpc_urls="http://u:pass@127.0.0.1:1/v2/abc")
    settings = told["settings"]
    assert settings["policy.floor"] == {"value": "10", "from": "TOPUP_POLICY__FLOOR"}
    assert settings["policy.topup_max"] == {"value": "50", "from": "file"}
    assert settings["policy.count_24h"] == {"value": "6", "from": "default"}
    assert settings["api.key"]["value"] == settings["wallet.private_key"]["value"] == "********"
    assert settings["chain.rpc_urls"]["value"] == "http://127.0.0.1:1/…"
    assert told["file"] == {"path": str(file), "read": True}
    lines = place.run("config", "show", TOPUP_CONFIG=str(file)).stdout.splitlines()
    assert lines[0] == f"settings file: {file}, read"
    assert [line.split() for line in lines if f"file {file}" in line] == [["policy.topup_max", "50", "file", str(file)]]
    home = {"HOME": str(place.directory), "XDG_CONFIG_HOME": None, "TOPUP_CONFIG": None}
    looked = f"{place.directory}/.config/topup/topup.toml"
    assert place.document("config", "show", **home)["file"] == {"path": looked, "read": False}
    first = place.run("config", "show", **home).stdout.splitlines()[0]
    assert first == f"settings file: {looked}, which is not there; TOPUP_CONFIG can name another"


def test_config_show_says_which_file_a_secret_is_in(place: Served) -> None:
    """A file that a setting names, or a credential of systemd's; never what stands in it, and no star for no file."""
    key = place.directory / "api.key"
    key.write_text("sk-canary", encoding="utf-8")
    alone: dict[str, str | None] = {"api__key": None, "wallet__private_key": None}
    done = place.document("config", "show", api__key_file=str(key), wallet__private_key_file="/nowhere/key", **alone)
    settings = done["settings"]
    assert settings["api.key"] == {"value": "********", "from": f"api.key_file: {key}"}
    lost = "wallet.private_key_file: /nowhere/key, which cannot be read"
    assert settings["wallet.private_key"] == {"value": "None", "from": lost}
    credentials = place.directory / "credentials"
    credentials.mkdir()
    for name in ("topup-api-key", "topup-keystore-password"):
        (credentials / name).write_text("sk-canary", encoding="utf-8")
    settings = place.document("config", "show", CREDENTIALS_DIRECTORY=str(credentials), mode="observe", **alone)[
        "settings"
    ]
    whence = f"$CREDENTIALS_DIRECTORY: {credentials}"
    assert settings["api.key"] == {"value": "********", "from": f"{whence}/topup-api-key"}
    password = f"{credentials}/topup-keystore-password"
    assert settings["wallet.keystore_password_file"] == {
        "value": password,
        "from": f"$CREDENTIALS_DIRECTORY: {password}",
    }
    assert settings["wallet.private_key"] == {"value": "None", "from": "default"}


def test_the_meanings_of_all_settings_are_a_document_too(place: Served) -> None:
    """`config show --defaults --json` names the variable and the meaning of each."""
    settings = place.document("config", "show", "--defaults")["settings"]
    assert settings["policy.floor"]["variable"] == "TOPUP_POLICY__FLOOR"
    assert all(setting["meaning"] for setting in settings.values())


def test_doctor_ends_in_one_line_that_sums_it_up(place: Served) -> None:
    """How many are how, and what to mend first; a program finds the same in fields."""
    sound = place.document("doctor")
    statuses = [check["status"] for check in sound["checks"]]
    counts = {"ok": statuses.count("ok"), "warnings": statuses.count("warning"), "failed": 0, "skipped": 0}
    assert sound["summary"] == counts | {"first": None}
    last = place.run("doctor").stdout.splitlines()[-1]
    assert last == f"{counts['ok']} ok, {counts['warnings']} warnings, 0 failed"
    broken = place.document("doctor", api__key="sk-wrong")
    first = next(check for check in broken["checks"] if check["status"] == "failed")
    summary = broken["summary"]
    assert (summary["failed"] > 0, summary["skipped"] > 0, summary["first"]["name"]) == (True, True, first["name"])
    last = place.run("doctor", api__key="sk-wrong").stdout.splitlines()[-1]
    assert last.endswith(f"skipped; first mend {first['name']}: {first['remedy']}")
    unread = place.run("doctor", policy__floor="ten").stdout.splitlines()[-1]
    assert unread.startswith("0 ok, 0 warnings, 1 failed, 6 skipped; first mend settings: ")


def test_resolve_wants_to_be_told_what(place: Served) -> None:
    """Nothing named, and a top-up nobody knows: a usage error each, with where to look."""
    place.run("pause")
    assert place.run("resolve").returncode == 2
    done = place.run("resolve", "t000000000000", "--attest-unpaid")
    assert (done.returncode, "topup history" in done.stderr) == (2, True)
