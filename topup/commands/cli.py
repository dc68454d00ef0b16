"""Which commands are there? Arguments in, one document or a few lines out, an exit code; the work is done elsewhere.

Logs go to standard error, results to standard output. What is slow to load is loaded by the command that needs it.
"""

from __future__ import annotations

import sys

from topup.app import signals

signals.hold(sys.argv)  # before what takes long to load

import atexit  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn  # noqa: E402

import typer  # noqa: E402

from topup import __version__  # noqa: E402
from topup.app.output import document, leave, lost, prepare, say, warn, why_lost  # noqa: E402
from topup.commands.answer import Answer, deliver  # noqa: E402
from topup.domain.errors import Exit, SettingsError, TopupError  # noqa: E402

if TYPE_CHECKING:
    from topup.app.settings import Settings
    from topup.commands.once import Ending
    from topup.domain.money import Usd
    from topup.ledger.store import SqliteStore
    from topup.ports.ledger import Wish

app = typer.Typer(
    name="topup",
    help="Keeps a prepaid AI-API account funded from a crypto wallet, unattended.",
    epilog="Exit codes: 0 done or nothing to do, 2 usage or settings, 3 held back on purpose, 4 unknown, try later, "
    "5 money may have moved, do not retry, 6 (check) a top-up is due.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
config = typer.Typer(help="The settings.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config, name="config")
ledger = typer.Typer(help="The ledger itself.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ledger, name="ledger")
wallet = typer.Typer(help="The wallet's key.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(wallet, name="wallet")

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


def held_ledger(settings: Settings, command: str) -> SqliteStore:
    """Take the ledger as its writer for a command, and say what of it was open to others."""
    from topup.ledger.store import SqliteStore

    store = SqliteStore.open_writer(settings.state_dir, command)
    for said in store.mended:
        warn(f"topup: {said}")
    return store


def fail(error: TopupError) -> NoReturn:
    """Print what is wrong and what to do about it, and leave with the error's exit code."""
    warn(f"topup: {error}")
    if error.remedy:
        warn(f"topup: to do: {error.remedy}")
    raise typer.Exit(error.exit_code)


def guarded(work: Callable[[], Answer | int], *, as_json: bool = False, does: bool = False) -> None:
    """Do a command's work and print its answer; every error of ours becomes a sentence and an exit code.

    The result of a command that only tells is its output. One that `does` something has done it, whoever reads that.
    """
    try:
        answer = work()
        code = deliver(answer, as_json=as_json) if isinstance(answer, Answer) else answer
    except TopupError as error:
        fail(error)
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:  # noqa: BLE001 - its own text may hold a key or a URL: only where it came from is shown
        frames = "".join(traceback.format_tb(error.__traceback__))
        warn(f"{frames}topup: {type(error).__name__}: a defect of topup; please report the lines above")
        raise typer.Exit(getattr(error, "exit_code", Exit.INTERNAL)) from None
    if (why := why_lost()) is not None:
        warn(f"topup: the output could not be written: {why}")
        code = Exit.LATER if code == Exit.OK and not does else code
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def run() -> None:
    """Watch the credits and refill them, until stopped. Example: TOPUP_MODE=live topup run."""
    guarded(_run, does=True)


def _run() -> Exit:
    from topup.app.assembly import limits, masker, works
    from topup.app.daemon import DAEMON, Daemon, SdNotify
    from topup.app.log import LogSink
    from topup.commands.start import load, wait_for
    from topup.domain import events
    from topup.wire.clock import SystemClock

    settings, clock = load(), SystemClock()
    sink = LogSink(level=settings.log.level, form=settings.log.format, now_ms=clock.now_ms, hide=masker(settings))
    store = held_ledger(settings, DAEMON)
    running = works(settings, store, sink, clock)
    allowed = limits(settings)
    sink.emit(
        events.Started(
            version=__version__,
            mode=settings.mode,
            account=settings.account,
            chain_id=settings.chain.id,
            wallet="0x" + running.wallet.hex() if running.wallet is not None else None,
            api_host=_host(settings.api.url),
            rpc_hosts=" ".join(_host(url) for url in settings.chain.rpc_urls),
            floor_usd=allowed.floor,
            cap_24h_usd=allowed.cap_24h,
            ledger=str(settings.state_dir),
        )
    )

    raw = settings.wallet.private_key or settings.wallet.private_key_file
    if settings.mode == "live" and raw is not None:
        name = "wallet.private_key" if settings.wallet.private_key is not None else "wallet.private_key_file"
        sink.emit(events.RawKeyInUse(setting=name))

    async def serve() -> Exit:
        daemon = Daemon(running.cycle, store, clock, sink, settings.account, SdNotify.of(os.environ))
        daemon.listen()
        try:
            return await daemon.run()
        finally:
            await running.close()
            sink.close()

    return wait_for(serve())


def _host(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[2]


@app.command()
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
        lambda: _once((amount, request_id), timeout, dry_run=dry_run, yes=yes, force=force, as_json=as_json), does=True
    )


def _amount(text: str | None) -> Usd | None:
    """Read --amount: whole cents, and no more of them than a treasury holds."""
    from topup.domain.errors import SettingsError
    from topup.domain.money import Usd

    if text is None:
        return None
    try:
        amount = Usd.of(text)
        plain = all(c in "0123456789." for c in text)
        sound = plain and 0 < amount.amount < 10**9 and amount == amount.cents_down()
    except ValueError:
        sound = False
    if not sound:
        raise SettingsError(
            f"--amount {text[:40]} is no amount to buy", remedy="give dollars and cents: --amount 12.50"
        )
    return amount


def _name(text: str | None) -> str | None:
    """Read --request-id: short, and what can be printed."""
    if text is not None and not (text.isprintable() and 0 < len(text.strip()) == len(text) <= 200):
        remedy = "give up to 200 printable characters, such as an invoice's number"
        raise SettingsError(f"--request-id {text[:40]!a} is no name for a wish", remedy=remedy)
    return text


def _once(
    asked: tuple[str | None, str | None], timeout_s: int, *, dry_run: bool, yes: bool, force: bool, as_json: bool
) -> int:
    from topup.commands.start import load
    from topup.ports.ledger import Wish

    wish = Wish(_amount(asked[0]), force, _name(asked[1]), os.getuid())
    settings = load()
    if dry_run:
        from topup.payment.config import PurchaseOrder

        return _decide(settings, PurchaseOrder(wish.amount, wish.forced), as_json=as_json)
    from topup.commands.once import remember

    if settings.mode == "live" and sys.stdin.isatty() and not yes:
        interrupted = _asked(settings, wish)
        if interrupted is not None:
            return interrupted
    ending = _bought(settings, wish, timeout_s)
    if as_json:
        document(ending.document())
    else:
        say(ending.line())
    # Where all is well a log that somebody reads holds no advice; a person at a terminal may want to know.
    if ending.remedy and (ending.code or ending.repeated or sys.stderr.isatty()):
        warn(f"topup: to do: {ending.remedy}")
    remember(settings, ending, reached=not lost())
    return ending.code


def _asked(settings: Settings, wish: Wish) -> int | None:
    """Ask a person before buying; return the exit code where the question was interrupted.

    Raises:
        typer.Abort: the answer was no.
    """
    from topup.commands.once import unbegun
    from topup.wire.clock import SystemClock

    what = f"buy {wish.amount} dollars of credit" if wish.amount is not None else "refill if it is due"
    try:
        with signals.Raised():
            typer.confirm(f"{what} from the wallet?", abort=True, err=True)
    except (KeyboardInterrupt, typer.Abort):
        if signals.first() is None:
            raise
        return unbegun(settings, wish, SystemClock())
    return None


def _bought(settings: Settings, wish: Wish, timeout_s: int) -> Ending:
    from topup.app.assembly import masker
    from topup.app.log import LogSink
    from topup.commands.once import Once
    from topup.commands.start import wait_for
    from topup.wire.clock import SystemClock

    clock = SystemClock()
    sink = LogSink(level=settings.log.level, form=settings.log.format, now_ms=clock.now_ms, hide=masker(settings))
    try:
        return wait_for(Once(settings, wish, timeout_s=timeout_s, clock=clock, sink=sink, warn=warn).run())
    finally:
        sink.close()


@app.command()
def check(as_json: Json = False) -> None:
    """Read and decide, buy nothing; exit 6 when a top-up is due. Example: topup check --json."""
    guarded(lambda: _check(as_json=as_json))


def _check(*, as_json: bool) -> Exit:
    from topup.commands.start import load
    from topup.payment.config import PurchaseOrder

    return _decide(load(), PurchaseOrder(), as_json=as_json)


def _decide(settings: Settings, wish: Any, *, as_json: bool) -> Exit:
    from topup.commands.check import ask_and_decide
    from topup.commands.start import wait_for

    result = wait_for(ask_and_decide(settings, wish))
    if as_json:
        document(result.document)
    else:
        say(result.sentence)
    return result.exit_code


@app.command()
def status(
    as_json: Json = False,
    live: Annotated[bool, typer.Option("--live", help="ask the API and the chain as well")] = False,
) -> None:
    """Say how things stand, from the ledger. Example: topup status --json."""

    def work() -> Answer:
        from topup.commands import status

        return status.answer(live=live)

    guarded(work, as_json=as_json)


@app.command()
def forecast(as_json: Json = False) -> None:
    """Say how long credits and wallet may last, from the ledger. Example: topup forecast."""

    def work() -> Answer:
        from topup.commands import forecast

        return forecast.answer()

    guarded(work, as_json=as_json)


@app.command()
def history(
    as_json: Json = False, count: Annotated[int, typer.Option(min=1, max=100_000, help="how many, newest first")] = 20
) -> None:
    """List past top-ups, newest first. Example: topup history --count 5."""

    def work() -> Answer:
        from topup.commands import history

        return history.answer(count)

    guarded(work, as_json=as_json)


@app.command("show")
def show_topup(
    topup_id: Annotated[str, typer.Argument(help="its id, or the beginning of it", show_default=False)],
    as_json: Json = False,
    dossier: Annotated[
        bool, typer.Option("--dossier", help="only what the provider's support needs to find the payment")
    ] = False,
) -> None:
    """Tell the whole life of one top-up, from the ledger. Example: topup show t0123456789ab."""

    def work() -> Answer:
        from topup.commands import show

        return show.answer(topup_id, dossier=dossier)

    guarded(work, as_json=as_json)


@app.command()
def pause(as_json: Json = False) -> None:
    """Stop deciding, signing and first sends; what is out is still followed. Example: topup pause."""

    def work() -> Answer:
        from topup.commands import pause

        return pause.answer(on=True)

    guarded(work, as_json=as_json, does=True)


@app.command()
def resume(as_json: Json = False) -> None:
    """Go on after a pause, after failures in a row, or after a rail was gone. Example: topup resume."""

    def work() -> Answer:
        from topup.commands import pause

        return pause.answer(on=False)

    guarded(work, as_json=as_json, does=True)


@config.command("show")
def config_show(
    as_json: Json = False,
    defaults: Annotated[bool, typer.Option("--defaults", help="show the defaults and what each setting means")] = False,
) -> None:
    """Print every setting, its value and where it came from; secrets are masked. Example: topup config show."""

    def work() -> Answer:
        from topup.commands import config_show

        return config_show.answer(defaults=defaults)

    guarded(work, as_json=as_json)


@app.command()
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
    if days is not None:
        guarded(lambda: _days(days, rail, pay_with, keep, anvil, as_json=as_json))
    guarded(lambda: _sandbox(rail, pay_with, fault, keep, anvil, as_json=as_json, list_faults=list_faults, serve=serve))


def _days(days: int, rail: str, pay_with: str, keep: Path | None, anvil: Path | None, *, as_json: bool) -> Exit:
    gc.enable()
    if keep is None:
        raise SettingsError("--days leaves a ledger, and --keep does not say where", remedy="add --keep DIRECTORY")
    try:
        from topup.commands import demo_days as life
    except ModuleNotFoundError as error:
        raise SettingsError(f"the sandbox needs {error.name}", remedy="pip install 'topup[sandbox]'") from None
    silent = (lambda _: None) if as_json else say
    told, code = life.live(keep, days=days, rail=rail, pay_with=pay_with, anvil=anvil, say=silent)
    if as_json:
        document(told)
    else:
        for line in life.summary(told, keep):
            say(line)
    return code


def _sandbox(
    rail: str,
    pay_with: str,
    fault: str | None,
    keep: Path | None,
    anvil: Path | None,
    *,
    as_json: bool,
    list_faults: bool,
    serve: bool,
) -> Exit:
    import tempfile

    from topup.domain.errors import SettingsError

    gc.enable()

    try:
        from topup.commands import demo
        from topup.sandbox.faults import of_rail

        faults = of_rail(rail, pay_with)
    except ModuleNotFoundError as error:
        raise SettingsError(f"the sandbox needs {error.name}", remedy="pip install 'topup[sandbox]'") from None
    if list_faults:
        for one in faults.values():
            say(f"{one.name:<34} {one.expected_result:<12} exit {int(one.expected_exit)}  {one.says}")
        return Exit.OK
    if fault is not None and fault not in faults:
        asked = f"`topup sandbox --rail {rail} --list-faults`"
        raise SettingsError(f"--fault {fault} is not known", remedy=f"{asked} names them all")
    if serve:
        return demo.serve(rail, pay_with, anvil, say)
    with tempfile.TemporaryDirectory(prefix="topup-sandbox-") as temporary:
        told, code = demo.perform(
            keep if keep is not None else Path(temporary),
            rail=rail,
            pay_with=pay_with,
            fault=faults[fault] if fault is not None else None,
            anvil=anvil,
            say=(lambda _: None) if as_json else say,
        )
    if as_json:
        document(told)
    else:
        for line in demo.summary(told):
            say(line)
    return code


@app.command()
def pin(yes: Annotated[bool, typer.Option("--yes", help="pin without asking")] = False, as_json: Json = False) -> None:
    """Show who would be paid, and pin the recipient of a Coinbase charge, asked for and unpaid. Example: topup pin."""
    guarded(lambda: _pin(yes=yes, as_json=as_json), does=True)


def _pin(*, yes: bool, as_json: bool) -> Exit:
    from topup.commands.check import named
    from topup.commands.pin import propose, remember
    from topup.commands.start import load, wait_for
    from topup.payment.config import COINBASE

    settings = load()
    others = named(settings)  # whose recipients stand in the settings; a charge is asked for where one is bought
    proposal = wait_for(propose(settings)) if COINBASE in settings.rails.use else None
    if as_json:
        shown = {"schema": 1} if proposal is None else proposal.document
        document(shown | ({"settings": [one.document() for one in others]} if others else {}))
    else:
        for line in [*(proposal.lines if proposal is not None else ()), *(one.line() for one in others)]:
            say(line)
    if proposal is None:
        return Exit.OK if all(one.recipients for one in others) else Exit.PERSON
    if proposal.known:
        return Exit.OK
    if not yes:
        if not sys.stdin.isatty():
            warn("topup: not pinned: pass --yes, or answer on a terminal")
            return Exit.PERSON
        if not typer.confirm(f"pin {proposal.recipient} as the one to be paid?", err=True):
            return Exit.PERSON
    remember(settings, proposal)
    warn(f"topup: pinned {proposal.recipient}")
    return Exit.OK


@app.command()
def doctor(
    as_json: Json = False,
    rail: Annotated[str | None, typer.Option(help="show what this rail's seller demands, unpaid: mpp or x402")] = None,
) -> None:
    """Check that everything is in place; one line a check, nothing is spent. Example: topup doctor."""
    guarded(lambda: _doctor(as_json=as_json) if rail is None else _offers(rail, as_json=as_json))


def _offers(rail: str, *, as_json: bool) -> Exit:
    from topup.app.settings import fixed_amount
    from topup.commands import offers
    from topup.commands.start import load, wait_for
    from topup.domain.money import Usd

    settings = load()
    told = wait_for(offers.look(settings, rail, Usd(fixed_amount(settings) or settings.policy.topup_min)))
    if as_json:
        document(told)
    else:
        for line in offers.lines(told):
            say(line)
    return Exit.OK if told["fits"] else Exit.PERSON


def _doctor(*, as_json: bool) -> Exit:
    from topup.commands.doctor import examine
    from topup.commands.start import wait_for

    checks = wait_for(examine(os.environ))
    failed = [c for c in checks if not c.ok]
    if as_json:
        document({"schema": 1, "ok": not failed, "checks": [c.document() for c in checks]})
    else:
        for one in checks:
            say(one.line())
    return Exit.PERSON if failed else Exit.OK


@app.command()
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

    def work() -> Answer:
        from topup.commands import resolve

        return resolve.answer(
            topup_id,
            attest=attest_unpaid,
            cancel=cancel,
            credited=credited,
            reading=accept_reading,
            nonce=adopt_nonce,
            dry_run=dry_run,
        )

    guarded(work, as_json=as_json, does=True)


@app.command()
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
    guarded(lambda: _reconcile(since, take_over=adopt, yes=yes, as_json=as_json), does=adopt)


def _reconcile(since: str | None, *, take_over: bool, yes: bool, as_json: bool) -> Exit:
    from topup.commands.reconcile import adopt, examine, ledger
    from topup.commands.start import load, wait_for

    settings = load()
    store = ledger(settings, adopt=take_over)
    try:
        report = wait_for(examine(settings, store, since))
        if take_over and report.adoptable and not (yes or _agreed_to(report.lines())):
            warn("topup: nothing was adopted: pass --yes, or answer on a terminal")
        elif take_over:
            adopt(report, store, f"uid {os.getuid()}")
    finally:
        store.close()
    if as_json:
        document(report.document())
    else:
        for line in report.lines():
            say(line)
    return report.exit_code


@ledger.command("verify")
def ledger_verify(
    head: Annotated[
        str | None, typer.Option(help="a hash that was printed earlier: 64 hex digits", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold every entry of the journal against its hash, and against the top-ups. Example: topup ledger verify."""

    def work() -> Answer:
        from topup.commands import ledger_verify

        return ledger_verify.answer(head)

    guarded(work, as_json=as_json)


@wallet.command("limit")
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
    if amount is None or show:
        guarded(lambda: _limit_shown(amount, as_json=as_json))
    guarded(
        lambda: _limit_set(
            (amount, period_days, expires_days),
            (root_keystore, root_password_file),
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
        ),
        does=not dry_run,
    )


def _limit_shown(amount: str | None, *, as_json: bool) -> Exit:
    from topup.commands import wallet_limit
    from topup.commands.start import load, wait_for

    if amount is not None:
        raise SettingsError("--show and --amount contradict each other", remedy="choose one")
    state = wait_for(wallet_limit.look(load()))
    if as_json:
        document(state.document())
    else:
        say("\n".join(state.lines()))
    return state.exit_code


def _limit_set(
    wish: tuple[str | None, int | None, int | None],
    files: tuple[Path | None, Path | None],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> Exit:
    from topup.commands import wallet_limit
    from topup.commands.start import load, wait_for

    amount, (_, period_days, expires_days), (keystore, password) = _amount(wish[0]), wish, files
    if amount is None or period_days is None:
        raise SettingsError("--period-days is missing", remedy="say how long a period is: --period-days 1")
    if not dry_run and (keystore is None or password is None):
        remedy = "give --root-keystore FILE and --root-password-file FILE, or --dry-run; the daemon never needs them"
        raise SettingsError("the root key of the account is not named", remedy=remedy)
    settings = load()
    proposed = wait_for(wallet_limit.propose(settings, amount, period_days, expires_days))
    (warn if as_json else say)("\n".join(proposed.lines()))
    after, tx_hash, code = None, None, Exit.OK
    if keystore is not None and password is not None and not dry_run:
        key = wallet_limit.root_key(settings, keystore, password)
        if not yes and not (sys.stdin.isatty() and typer.confirm("sign and send this?", err=True)):
            warn("topup: not sent: pass --yes, or answer on a terminal")
            code = Exit.PERSON
        else:
            after, tx_hash = wait_for(wallet_limit.send(settings, proposed, key))
    if as_json:
        document(
            {
                "schema": 1,
                "before": proposed.before.document(),
                "proposed": proposed.document(),
                "tx_hash": "0x" + tx_hash.hex() if tx_hash is not None else None,
                "after": after.document() if after is not None else None,
            }
        )
    elif after is not None and tx_hash is not None:
        say("\n".join(["", f"done by      0x{tx_hash.hex()}", *after.lines()]))
    return code


Month = Annotated[str | None, typer.Option(help="a month, such as 2026-11; default: this one")]
First = Annotated[str | None, typer.Option("--from", help="first day, such as 2026-11-01 (UTC)")]
Last = Annotated[str | None, typer.Option("--to", help="last day, included")]
Form = Literal["text", "json", "csv", "beancount", "hledger", "koinly", "rotki"]
Table = Literal["text", "json", "csv"]
Split = Literal["day", "model", "key", "label"]


@app.command()
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

    def work() -> Answer:
        from topup.commands import statement

        return statement.answer((month, first, last), form, html)

    guarded(work, as_json=form == "json")


@app.command()
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

    def work() -> Answer:
        from topup.commands import usage

        return usage.answer(by, (month, first, last), form)

    guarded(work, as_json=form == "json")


def _agreed_to(lines: list[str]) -> bool:
    """Show on a terminal what would be done, and ask."""
    if not sys.stdin.isatty():
        return False
    warn("\n".join(lines))
    return typer.confirm("take all this over into the ledger?", err=True)
