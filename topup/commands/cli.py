"""Which commands are there? Arguments in, one document or a few lines out, an exit code; the work is done elsewhere.

Logs go to standard error, results to standard output. What is slow to load is loaded by the command that needs it.
"""

import sys

from topup.app import signals

signals.hold(sys.argv)  # before what takes long to load

import atexit  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated, Literal  # noqa: E402

import typer  # noqa: E402

from topup import __version__, commands  # noqa: E402
from topup.app.output import document, leave, prepare, say, warn, why_lost  # noqa: E402
from topup.commands.answer import Answer, deliver, refusal, refused  # noqa: E402
from topup.commands.help import BOOKS, LOOK, PAY, SETTLE, SHELL, START, Commands  # noqa: E402
from topup.domain.errors import Exit, TopupError  # noqa: E402

app = typer.Typer(
    name="topup",
    help="Keeps a prepaid AI-API account funded from a crypto wallet, unattended.",
    epilog="Exit codes: 0 done or nothing to do, 2 usage or settings, 3 held back on purpose, 4 unknown, try later, "
    "5 money may have moved, do not retry, 6 (check) a top-up is due.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config = typer.Typer(help="The settings.", cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config, name="config")
ledger = typer.Typer(help="The ledger itself.", cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ledger, name="ledger")
wallet = typer.Typer(help="The wallet's key.", cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(wallet, name="wallet")

notify = typer.Typer(help="Who is told what happens.", cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(notify, name="notify")

TIMEOUT_S = 600
Json = Annotated[bool, typer.Option("--json", help="print one JSON document")]


def main() -> None:
    """Run the command line."""
    # Loading makes no garbage, and looking for it takes a fifth of the time that a short command takes; see `wait_for`.
    # Nor does the search at the very end, a tenth more, find any that the system does not take back by itself.
    gc.disable()
    atexit.register(gc.freeze)
    # httpx loads a command line of its own, with click, pygments and rich, and structlog loads rich, where they find
    # them; nothing here uses either, and a daemon would keep them: 6 MiB. None makes an import fail, which both allow.
    for unused in ("httpx._main", "rich"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]
    # Typer reads options with pydantic, which would look for plugins in every package; none has any business here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    prepare()
    code: int | str | None = 0
    try:
        app()
    except SystemExit as error:
        # So typer wraps the outputs, and leaves with 1, where the reader of its own text, such as --help, is gone.
        code = 0 if type(sys.stdout).__name__ == "PacifyFlushWrapper" else error.code
    except OSError as error:  # what typer itself writes, such as --help, cannot be written
        warn(f"topup: the output could not be written: {error.strerror}")
        code = Exit.LATER
    leave()
    sys.exit(code)


def guarded(work: Callable[[], Answer], *, as_json: bool = False, does: bool = False) -> None:
    """Do a command's work and print its answer; every error of ours becomes a sentence and an exit code.

    The result of a command that only tells is its output. One that `does` something has done it, whoever reads that.
    """
    answer = None
    try:
        answer = work()
        code = deliver(answer, as_json=as_json)
    except TopupError as error:
        if as_json and answer is None:  # what has been answered has its document
            document(refused(error))
        warn(f"topup: {error}")
        if error.remedy:
            warn(f"topup: to do: {error.remedy}")
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:  # noqa: BLE001 - its own text may hold a key or a URL: only where it came from is shown
        frames = "".join(traceback.format_tb(error.__traceback__))
        code = getattr(error, "exit_code", Exit.INTERNAL)
        if as_json and answer is None:
            document(refusal("internal", f"{type(error).__name__}: a defect of topup", code, remedy="report it"))
        warn(f"{frames}topup: {type(error).__name__}: a defect of topup; please report the lines above")
        raise typer.Exit(code) from None
    if (why := why_lost()) is not None:
        warn(f"topup: the output could not be written: {why}")
        code = Exit.LATER if code == Exit.OK and not does else code
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        say(__version__)
        raise typer.Exit


@app.command(rich_help_panel=SHELL)
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="for which shell")]) -> None:
    """Print the script that completes commands and options. Example: topup completion bash > topup.bash."""
    guarded(lambda: commands.completion.answer(shell))


@app.command(rich_help_panel=START)
def init(
    api_url: Annotated[str | None, typer.Option(help="base URL of the credits API")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="file that holds the management key")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="any setting, such as policy.floor=5; may repeat")
    ] = None,
    pay: Annotated[bool | None, typer.Option("--pay/--watch", help="let it buy from a wallet, or watch only")] = None,
    rpc_url: Annotated[list[str] | None, typer.Option(help="provider of the chain that is paid on; may repeat")] = None,
    keystore: Annotated[Path | None, typer.Option(help="keystore of the wallet; a new one where none is named")] = None,
    password_file: Annotated[Path | None, typer.Option(help="file of the keystore's password")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing: what no flag says has its default")] = False,
    as_json: Json = False,
) -> None:
    """Ask a little, try each answer, and write settings that work. Example: topup init --api-key-file key --watch."""
    guarded(
        lambda: commands.init.answer(
            commands.init.Given(api_url, api_key_file, values or (), pay, rpc_url or (), keystore, password_file, yes)
        ),
        as_json=as_json,
        does=True,
    )


@app.command(rich_help_panel=PAY)
def run() -> None:
    """Watch the credits and refill them, until stopped. Example: TOPUP_MODE=live topup run."""
    guarded(lambda: commands.run.answer(), does=True)


@app.command(rich_help_panel=PAY)
def once(
    amount: Annotated[str | None, typer.Option(help="buy this many dollars now, regardless of the floor")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="decide and say so; buy nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before buying")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="skip cool-down and back-off; never a cap, a pause or a proof")
    ] = False,
    request_id: Annotated[
        str | None, typer.Option(help="a name for this wish: under it, it is bought at most once, ever")
    ] = None,
    timeout: Annotated[
        int, typer.Option(min=1, max=604_800, help="seconds after which it leaves, with 4 or 5")
    ] = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Make one cycle: look, and refill if it is due. Example: topup once --amount 25 --request-id june --yes."""
    guarded(
        lambda: commands.once.answer(amount, request_id, timeout, dry_run=dry_run, yes=yes, force=force),
        as_json=as_json,
        does=True,
    )


@app.command(rich_help_panel=LOOK)
def check(as_json: Json = False) -> None:
    """Read and decide, buy nothing; exit 6 when a top-up is due. Example: topup check --json."""
    guarded(lambda: commands.check.answer(), as_json=as_json)


@app.command(rich_help_panel=LOOK)
def status(
    as_json: Json = False,
    live: Annotated[bool, typer.Option("--live", help="ask the API and the chain as well")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="look again every two seconds, until Ctrl-C")] = False,
) -> None:
    """Say how things stand, from the ledger. Example: topup status --json."""
    guarded(lambda: commands.status.watch() if watch else commands.status.answer(live=live), as_json=as_json)


@app.command(rich_help_panel=LOOK)
def forecast(as_json: Json = False) -> None:
    """Say how long credits and wallet may last, from the ledger. Example: topup forecast."""
    guarded(lambda: commands.forecast.answer(), as_json=as_json)


@app.command(rich_help_panel=LOOK)
def history(
    as_json: Json = False, count: Annotated[int, typer.Option(min=1, max=100_000, help="how many, newest first")] = 20
) -> None:
    """List past top-ups, newest first. Example: topup history --count 5."""
    guarded(lambda: commands.history.answer(count), as_json=as_json)


@app.command("show", rich_help_panel=LOOK)
def show_topup(
    topup_id: Annotated[str, typer.Argument(help="its id, or the beginning of it", show_default=False)],
    as_json: Json = False,
    for_support: Annotated[
        bool, typer.Option("--dossier", help="only what the provider's support needs to find the payment")
    ] = False,
) -> None:
    """Tell the whole life of one top-up, from the ledger. Example: topup show t0123456789ab."""
    guarded(lambda: commands.show.answer(topup_id, for_support=for_support), as_json=as_json)


@app.command(rich_help_panel=PAY)
def pause(as_json: Json = False) -> None:
    """Stop deciding, signing and first sends; what is out is still followed. Example: topup pause."""
    guarded(lambda: commands.pause.answer(on=True), as_json=as_json, does=True)


@app.command(rich_help_panel=PAY)
def resume(as_json: Json = False) -> None:
    """Go on after a pause, after failures in a row, or after a rail was gone. Example: topup resume."""
    guarded(lambda: commands.pause.answer(on=False), as_json=as_json, does=True)


@config.command("show", rich_help_panel=LOOK)
def config_show(
    as_json: Json = False,
    defaults: Annotated[bool, typer.Option("--defaults", help="show the defaults and what each setting means")] = False,
) -> None:
    """Print every setting, its value and where it came from; secrets are masked. Example: topup config show."""
    guarded(lambda: commands.config_show.answer(defaults=defaults), as_json=as_json)


@notify.command("test", rich_help_panel=SETTLE)
def notify_test(as_json: Json = False) -> None:
    """Tell each target of [notify] that this is a test, and say what came of it. Example: topup notify test."""
    guarded(lambda: commands.notify_test.answer(), as_json=as_json)


@app.command(rich_help_panel=START)
def sandbox(
    rail: Annotated[Literal["coinbase", "mpp", "x402"], typer.Option(help="how the credits are bought")] = "coinbase",
    pay_with: Annotated[Literal["eth", "usdc"], typer.Option(help="what a coinbase charge is paid with")] = "eth",
    as_json: Json = False,
    fault: Annotated[str | None, typer.Option(help="switch one fault or hostile charge on")] = None,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="name every fault of the rail and leave")] = False,
    keep: Annotated[Path | None, typer.Option(help="leave the ledger in this directory")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="keep the world up and print its environment")] = False,
    anvil: Annotated[Path | None, typer.Option(help="use this anvil binary as the chain; mpp needs it")] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=400, help="let the daemon run for so many days of a fast clock; with --keep"),
    ] = None,
) -> None:
    """Show a refill from end to end on an embedded chain: no account, no key, no money. Example: topup sandbox."""
    tell = (lambda _: None) if as_json else say
    guarded(
        lambda: commands.sandbox.answer(
            rail, pay_with, anvil, keep, fault=fault, days=days, list_faults=list_faults, serve=serve, tell=tell
        ),
        as_json=as_json,
    )


@app.command(rich_help_panel=START)
def pin(yes: Annotated[bool, typer.Option("--yes", help="pin without asking")] = False, as_json: Json = False) -> None:
    """Show who would be paid, and pin the recipient of a Coinbase charge, asked for and unpaid. Example: topup pin."""
    guarded(lambda: commands.pin.answer(yes=yes), as_json=as_json, does=True)


@app.command(rich_help_panel=START)
def doctor(
    as_json: Json = False,
    rail: Annotated[str | None, typer.Option(help="show what this rail's seller demands, unpaid: mpp or x402")] = None,
) -> None:
    """Check that everything is in place; one line a check, nothing is spent. Example: topup doctor."""
    guarded(lambda: commands.doctor.answer() if rail is None else commands.offers.answer(rail), as_json=as_json)


@app.command(rich_help_panel=SETTLE)
def resolve(
    topup_id: Annotated[str | None, typer.Argument(help="a top-up that needs a word", show_default=False)] = None,
    attest_unpaid: Annotated[
        bool, typer.Option("--attest-unpaid", help="I have seen for myself that it was never paid")
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="take its nonce with a transaction that moves nothing; it may lose the race"),
    ] = False,
    credited: Annotated[
        bool, typer.Option("--credited", help="it was paid, and I have seen its credits in the account")
    ] = False,
    accept_reading: Annotated[
        bool, typer.Option("--accept-reading", help="believe a lower total seen for a day")
    ] = False,
    adopt_nonce: Annotated[
        bool, typer.Option("--adopt-nonce", help="the wallet's other transactions are none of topup's")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would do, and store nothing")] = False,
    as_json: Json = False,
) -> None:
    """Tell the ledger what only a person can know. Example: topup resolve t0123456789ab --attest-unpaid."""
    guarded(
        lambda: commands.resolve.answer(
            topup_id,
            attest=attest_unpaid,
            cancel=cancel,
            credited=credited,
            reading=accept_reading,
            nonce=adopt_nonce,
            dry_run=dry_run,
        ),
        as_json=as_json,
        does=True,
    )


@app.command(rich_help_panel=SETTLE)
def reconcile(
    adopt: Annotated[
        bool, typer.Option("--adopt", help="take over what only the chain knows; no daemon may run")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="a block or day before the wallet's first payment", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="adopt without asking")] = False,
    as_json: Json = False,
) -> None:
    """Hold the ledger against all this wallet did on the chain. Example: topup reconcile --since 2026-01-31."""
    guarded(lambda: commands.reconcile.answer(since, take_over=adopt, yes=yes), as_json=as_json, does=adopt)


@ledger.command("verify", rich_help_panel=BOOKS)
def ledger_verify(
    head: Annotated[
        str | None, typer.Option(help="a hash that was printed earlier: 64 hex digits", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold every entry of the journal against its hash, and against the top-ups. Example: topup ledger verify."""
    guarded(lambda: commands.ledger_verify.answer(head), as_json=as_json)


NewKeystore = Annotated[
    Path | None,
    typer.Option(
        "--keystore", help="where it is written; default: wallet.keystore, or wallet.json beside the settings"
    ),
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="file of the new keystore's password; asked for without one")
]


@wallet.command("new", rich_help_panel=START)
def wallet_new(keystore: NewKeystore = None, password_file: PasswordFile = None, as_json: Json = False) -> None:
    """Make a new key, in a keystore v3 that only its owner can read. Example: topup wallet new --password-file pw."""
    guarded(lambda: commands.wallet_new.answer(keystore, password_file), as_json=as_json, does=True)


@wallet.command("import", rich_help_panel=START)
def wallet_import(
    key_file: Annotated[
        Path | None, typer.Option(help="file of the raw key, in hex; asked for without one", show_default=False)
    ] = None,
    from_keystore: Annotated[Path | None, typer.Option(help="take this keystore's key", show_default=False)] = None,
    from_password_file: Annotated[Path | None, typer.Option(help="its password", show_default=False)] = None,
    keystore: NewKeystore = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Put a key that exists already into a keystore v3. Example: topup wallet import --key-file raw.key."""
    source = from_keystore, from_password_file
    guarded(
        lambda: commands.wallet_import.answer(key_file, source, keystore, password_file), as_json=as_json, does=True
    )


@wallet.command("address", rich_help_panel=START)
def wallet_address(
    keystore: Annotated[Path | None, typer.Option(help="ask this one, not that of the settings")] = None,
    as_json: Json = False,
) -> None:
    """Print the address of the wallet's key, without opening its keystore. Example: topup wallet address."""
    guarded(lambda: commands.wallet_address.answer(keystore), as_json=as_json)


@wallet.command("check", rich_help_panel=LOOK)
def wallet_check(as_json: Json = False) -> None:
    """Say what the wallet holds in every dollar, what it has sent, and its code. Example: topup wallet check."""
    guarded(lambda: commands.wallet_check.answer(), as_json=as_json)


@wallet.command("limit", rich_help_panel=PAY)
def wallet_limit(
    show: Annotated[bool, typer.Option("--show", help="only say what the chain holds; so without --amount")] = False,
    amount: Annotated[
        str | None, typer.Option(help="what the access key may spend in each period, in dollars", show_default=False)
    ] = None,
    period_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="how long a period is", show_default=False)
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="when a new key expires; default: never", show_default=False)
    ] = None,
    root_keystore: Annotated[
        Path | None, typer.Option(help="keystore of the account's root key, used once", show_default=False)
    ] = None,
    root_password_file: Annotated[Path | None, typer.Option(help="its password", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the call, sign nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="sign and send without asking")] = False,
    as_json: Json = False,
) -> None:
    """Say or set what the wallet's access key may spend on Tempo. Example: topup wallet limit --show."""
    guarded(
        lambda: commands.wallet_limit.answer(
            (amount, period_days, expires_days),
            (root_keystore, root_password_file),
            show=show,
            dry_run=dry_run,
            yes=yes,
            tell=warn if as_json else say,
        ),
        as_json=as_json,
        does=not (amount is None or show or dry_run),
    )


Month = Annotated[str | None, typer.Option(help="a month, such as 2026-11; default: this one")]
First = Annotated[str | None, typer.Option("--from", help="first day, such as 2026-11-01 (UTC)")]
Last = Annotated[str | None, typer.Option("--to", help="last day, included")]
Form = Literal["text", "json", "csv", "beancount", "hledger", "koinly", "rotki"]
Table = Literal["text", "json", "csv"]
Split = Literal["day", "model", "key", "label"]


@app.command(rich_help_panel=START)
def fund(
    refills: Annotated[int, typer.Option(min=1, max=10_000, help="for so many refills")] = 4,
    rail: Annotated[
        str | None, typer.Option(help="by which way to pay; default: the first in use", show_default=False)
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="draw the address as a code off a terminal as well")] = False,
    as_json: Json = False,
) -> None:
    """Say where to send what, so that the wallet can pay, and what can go wrong. Example: topup fund --refills 10."""
    guarded(lambda: commands.fund.answer(refills, rail, qr=qr), as_json=as_json)


@app.command(rich_help_panel=SETTLE)
def backup(
    file: Annotated[
        Path | None, typer.Argument(help="a new file; default: one here, named after the moment", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the ledger, also beside a running daemon, and prove the copy. Example: topup backup /mnt/ledger.sqlite3."""
    guarded(lambda: commands.backup.answer(file), as_json=as_json, does=True)


@app.command(rich_help_panel=SETTLE)
def restore(
    file: Annotated[Path, typer.Argument(help="a file that `topup backup` wrote")],
    yes: Annotated[bool, typer.Option("--yes", help="put it back without asking")] = False,
    as_json: Json = False,
) -> None:
    """Put a copy in the place of the ledger; buying is paused in it. Example: topup restore /mnt/ledger.sqlite3."""
    guarded(lambda: commands.restore.answer(file, yes=yes), as_json=as_json, does=True)


@app.command(rich_help_panel=LOOK)
def mcp() -> None:
    """Answer an agent that asks about its funds: an MCP server over stdio that only reads. Example: topup mcp."""
    guarded(lambda: commands.mcp.answer())


@app.command(rich_help_panel=BOOKS)
def statement(
    month: Month = None,
    first: First = None,
    last: Last = None,
    form: Annotated[Form, typer.Option("--format", help="as what it is written")] = "text",
    html: Annotated[Path | None, typer.Option(help="write a page with pictures into this file instead")] = None,
    as_json: Json = False,
) -> None:
    """Say what was bought, used and paid in a period. Example: topup statement --month 2026-11 --format beancount."""
    form = "json" if as_json else form
    guarded(lambda: commands.statement.answer((month, first, last), form, html), as_json=form == "json")


@app.command(rich_help_panel=BOOKS)
def usage(
    by: Annotated[Split, typer.Option(help="by what it is split; labels are of `labels` in the settings")] = "day",
    month: Month = None,
    first: First = None,
    last: Last = None,
    form: Annotated[Table, typer.Option("--format", help="as what it is written")] = "text",
    as_json: Json = False,
) -> None:
    """Say who used what, and what it has cost. Example: topup usage --by label --month 2026-11 --format csv."""
    form = "json" if as_json else form
    guarded(lambda: commands.usage.answer(by, (month, first, last), form), as_json=form == "json")
