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
from collections.abc import Callable, Coroutine  # noqa: E402
from enum import StrEnum  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar  # noqa: E402

import typer  # noqa: E402

from topup import __version__  # noqa: E402
from topup.app.output import document, leave, lost, prepare, say, warn, why_lost, write  # noqa: E402
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

T = TypeVar("T")
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


def load() -> Settings:
    """Read the settings; pydantic is loaded here, so that `--help` does not wait for it."""
    from topup.app import exposure, settings

    found = settings.load()
    if said := exposure.close(os.environ):
        warn(f"topup: {said}")
    return found


def held_ledger(settings: Settings, command: str) -> SqliteStore:
    """Take the ledger as its writer for a command, and say what of it was open to others."""
    from topup.ledger.store import SqliteStore

    store = SqliteStore.open_writer(settings.state_dir, command)
    for said in store.mended:
        warn(f"topup: {said}")
    return store


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    gc.enable()  # whatever waits may go on for long
    return asyncio.run(work)


def fail(error: TopupError) -> NoReturn:
    """Print what is wrong and what to do about it, and leave with the error's exit code."""
    warn(f"topup: {error}")
    if error.remedy:
        warn(f"topup: to do: {error.remedy}")
    raise typer.Exit(error.exit_code)


def guarded(act: Callable[[], int], *, does: bool = False) -> None:
    """Run a command's body; every error of ours becomes a sentence and an exit code.

    The result of a command that only tells is its output. One that `does` something has done it, whoever reads that.
    """
    try:
        code = act()
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
    from topup.payment.config import PurchaseOrder

    return _decide(load(), PurchaseOrder(), as_json=as_json)


def _decide(settings: Settings, wish: Any, *, as_json: bool) -> Exit:
    from topup.commands.check import ask_and_decide

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
    guarded(lambda: _status(as_json=as_json, live=live))


def _status(*, as_json: bool, live: bool) -> Exit:
    from topup.app.assembly import limits
    from topup.commands.status import status as report
    from topup.commands.status import status_lines
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    told = report(store, settings.account, limits(settings), SystemClock().now_ms())
    if live:
        from topup.commands.check import ask_live

        told["live"] = wait_for(ask_live(settings))
    if as_json:
        document(told)
    else:
        for line in status_lines(told):
            say(line)
    unfinished = told["open"]
    return Exit.MONEY_MAY_HAVE_MOVED if unfinished and unfinished["state"] in ("halted", "uncredited") else Exit.OK


@app.command()
def forecast(as_json: Json = False) -> None:
    """Say how long credits and wallet may last, from the ledger. Example: topup forecast."""
    guarded(lambda: _forecast(as_json=as_json))


def _forecast(*, as_json: bool) -> Exit:
    from topup.app.assembly import ceilings, limits
    from topup.commands.forecast import forecast_document, forecast_lines, forecast_of
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    store, allowed = SqliteStore.open_reader(settings.state_dir), limits(settings)
    now_ms = store.now_ms(SystemClock().now_ms())
    found = forecast_of(store, settings.account, allowed, ceilings(settings).reserve, now_ms)
    told = forecast_document(found, settings.account, allowed, now_ms)
    if as_json:
        document(told)
    else:
        for line in forecast_lines(told):
            say(line)
    return Exit.OK


@app.command()
def history(
    as_json: Json = False, count: Annotated[int, typer.Option(min=1, max=100_000, help="how many, newest first")] = 20
) -> None:
    """List past top-ups, newest first. Example: topup history --count 5."""
    guarded(lambda: _history(count, as_json=as_json))


def _history(count: int, *, as_json: bool) -> Exit:
    from topup.commands.status import history_lines, topup_document
    from topup.ledger.store import SqliteStore

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    told = [topup_document(t) for t in store.latest(settings.account, count)]
    if as_json:
        document({"schema": 1, "account": settings.account, "topups": told})
    else:
        for line in history_lines(told):
            say(line)
    return Exit.OK


@app.command("show")
def show_topup(
    topup_id: Annotated[str, typer.Argument(help="its id, or the beginning of it", show_default=False)],
    as_json: Json = False,
    dossier: Annotated[
        bool, typer.Option("--dossier", help="only what the provider's support needs to find the payment")
    ] = False,
) -> None:
    """Tell the whole life of one top-up, from the ledger. Example: topup show t0123456789ab."""
    guarded(lambda: _show(topup_id, dossier=dossier, as_json=as_json))


def _show(topup_id: str, *, dossier: bool, as_json: bool) -> Exit:
    from topup.commands.show import dossier_document, dossier_lines, find, life_document, life_lines
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    life = find(store, settings.account, topup_id)
    if dossier:
        told = dossier_document(store, life)
        lines = dossier_lines(told)
    else:
        told = life_document(life, store.now_ms(SystemClock().now_ms()))
        lines = life_lines(told)
    if as_json:
        document(told)
    else:
        for line in lines:
            say(line)
    return Exit.OK


@app.command()
def pause(as_json: Json = False) -> None:
    """Stop deciding, signing and first sends; what is out is still followed. Example: topup pause."""
    said = "paused: nothing new is bought; what is out is still followed"
    guarded(lambda: _tell("paused", "1", said, as_json=as_json), does=True)


@app.command()
def resume(as_json: Json = False) -> None:
    """Go on after a pause, after failures in a row, or after a rail was gone. Example: topup resume."""
    guarded(lambda: _resume(as_json=as_json), does=True)


def _resume(*, as_json: bool) -> Exit:
    from topup.payment.config import RAILS
    from topup.ports.ledger import GONE

    for rail in RAILS:
        _tell(GONE + rail, "0", None, as_json=as_json)
    return _tell("paused", "0", "resumed", as_json=as_json)


def _tell(name: str, value: str, sentence: str | None, *, as_json: bool) -> Exit:
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    if not SqliteStore.exists(settings.state_dir):
        SqliteStore.open_writer(settings.state_dir).close()
    store = SqliteStore.open_reader(settings.state_dir)
    # Ledger time, which may be ahead of the machine's: what a person says now must not look long past.
    store.say(settings.account, name, value, store.now_ms(SystemClock().now_ms()), f"uid {os.getuid()}")
    if sentence is not None and as_json:
        document({"schema": 1, "account": settings.account, "said": name, "value": value, "detail": sentence})
    elif sentence is not None:
        say(sentence)
    return Exit.OK


@config.command("show")
def config_show(
    as_json: Json = False,
    defaults: Annotated[bool, typer.Option("--defaults", help="show the defaults and what each setting means")] = False,
) -> None:
    """Print every setting, its value and where it came from; secrets are masked. Example: topup config show."""
    guarded(lambda: _config_show(as_json=as_json, defaults=defaults))


def _config_show(*, as_json: bool, defaults: bool) -> Exit:
    from topup.app.settings import env_name, names, provenance

    if defaults:
        for name, found in names().items():
            say(f"{env_name(name):<44} {found.description}")
        return Exit.OK
    rows = provenance(load(), os.environ)
    if as_json:
        document({"schema": 1, "settings": {n: {"value": v, "from": w} for n, v, w in rows}})
    else:
        for name, value, where in rows:
            say(f"{name:<36} {value:<44} {where}")
    return Exit.OK


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
    guarded(
        lambda: _resolve(
            topup_id,
            attest=attest_unpaid,
            cancel=cancel,
            credited=credited,
            reading=accept_reading,
            nonce=adopt_nonce,
            dry_run=dry_run,
            as_json=as_json,
        ),
        does=True,
    )


def _resolve(
    topup_id: str | None,
    *,
    attest: bool,
    cancel: bool,
    credited: bool,
    reading: bool,
    nonce: bool,
    dry_run: bool,
    as_json: bool,
) -> Exit:
    from topup.domain.errors import SettingsError
    from topup.domain.ways_out import ATTEST, CANCEL, CREDITED, LOOK, RESOLVE
    from topup.payment.monitor import ACCEPT_READING
    from topup.payment.preparation import ADOPT_NONCE

    if topup_id is not None:
        words = [word for word, said in ((ATTEST, attest), (CANCEL, cancel), (CREDITED, credited)) if said] or [LOOK]
        if len(words) > 1:
            said = "--attest-unpaid, --cancel and --credited contradict each other"
            raise SettingsError(said, remedy="choose one")
        name, value, does = RESOLVE + topup_id, words[0], _answered(topup_id, words[0])
    elif reading:
        name, value = ACCEPT_READING, "1"
        does = "for a day from now, a lower total is believed once it has been seen for a day"
    elif nonce:
        name, value = ADOPT_NONCE, "1"
        does = "for an hour from now, the wallet's other transactions are taken as they are"
    else:
        raise SettingsError("nothing to resolve was named", remedy="`topup resolve --help`")
    if not dry_run:
        return _tell(name, value, does, as_json=as_json)
    if as_json:
        document({"schema": 1, "account": load().account, "said": None, "value": value, "detail": does})
    else:
        say(f"nothing was stored; {does}")
    return Exit.OK


def _answered(topup_id: str, word: str) -> str:
    """Return what this word about a top-up will do, or refuse one that can do nothing."""
    from topup.domain.errors import SettingsError
    from topup.domain.ways_out import answer
    from topup.ledger.store import SqliteStore

    store = SqliteStore.open_reader(load().state_dir)
    try:
        topup = store.topup(topup_id)
    except KeyError:
        raise SettingsError(f"there is no top-up {topup_id}", remedy="`topup history` lists them") from None
    told = answer(topup, word, contested=bool(store.taken(topup_id)))
    if not told.taken:
        raise SettingsError(f"{topup_id} is {topup.state}: {told.sentence}", remedy=told.remedy or "`topup status`")
    return f"{topup_id} is {topup.state}; with its next pass, this {told.sentence}"


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
    guarded(lambda: _ledger_verify(head, as_json=as_json))


def _ledger_verify(head: str | None, *, as_json: bool) -> Exit:
    from topup.commands.status import audit_lines
    from topup.ledger.store import SqliteStore

    if head is not None and (len(head) != 64 or not set(head.lower()) <= set("0123456789abcdef")):
        raise SettingsError(f"--head {head[:80]!r} is no hash of a ledger", remedy="give the 64 hex digits as printed")
    settings = load()
    sought = bytes.fromhex(head) if head is not None else None
    audit = SqliteStore.open_reader(settings.state_dir).audit(sought)
    fine = audit.wrong is None and (sought is None or audit.since is not None) and not audit.gaps
    if as_json:
        document(
            {
                "schema": 1,
                "verified": fine,
                "entries": audit.count,
                "ledger_head": audit.head.hex() or None,
                "wrong_entry": audit.wrong[0] if audit.wrong is not None else None,
                "entries_since": audit.since,
                "gaps": list(audit.gaps),
            }
        )
    else:
        for line in audit_lines(audit, head):
            say(line)
    return Exit.OK if fine else Exit.PERSON


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


class Form(StrEnum):
    """As what a statement is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    KOINLY = "koinly"
    ROTKI = "rotki"


@app.command()
def statement(
    month: Month = None,
    first: First = None,
    last: Last = None,
    form: Annotated[Form, typer.Option("--format", help="as what it is written")] = Form.TEXT,
    html: Annotated[Path | None, typer.Option(help="write a page with pictures into this file instead")] = None,
    as_json: Json = False,
) -> None:
    """Say what was bought, used and paid in a period. Example: topup statement --month 2026-11 --format beancount."""
    guarded(lambda: _statement((month, first, last), Form.JSON if as_json else form, html))


def _statement(days: tuple[str | None, str | None, str | None], form: Form, html: Path | None) -> Exit:
    from topup.accounting.formats import csv_journal, plaintext, tax, text
    from topup.accounting.formats import html as pages
    from topup.app.assembly import ceilings, limits
    from topup.commands.forecast import bands, forecast_of
    from topup.commands.statement import period_of, statement_of
    from topup.commands.usage import spend_of
    from topup.domain.money import Usd
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    now_ms = store.now_ms(SystemClock().now_ms())
    told = statement_of(store, settings.account, period_of(*days, now_ms), now_ms)
    if html is not None:
        spend = spend_of(store, settings.account, told.period, settings.labels)
        ahead = []
        if now_ms in told.period:
            allowed = limits(settings)
            expected = forecast_of(store, settings.account, allowed, ceilings(settings).reserve, now_ms)
            ahead = [pages.Band(*one) for one in bands(expected)]
        readings = store.readings(settings.account, told.period.first_ms)
        _write(html, pages.page(told, pages.Pictures(readings, Usd(settings.policy.floor), spend, ahead)))
        return Exit.OK
    match form:
        case Form.TEXT:
            say("\n".join(text.lines(told)))
        case Form.JSON:
            document(text.document(told))
        case Form.CSV:
            write(csv_journal.write(told.entries, told.wallets))
        case Form.BEANCOUNT:
            write(plaintext.beancount(told))
        case Form.HLEDGER:
            write(plaintext.hledger(told))
        case Form.KOINLY:
            write(tax.koinly(told))
        case Form.ROTKI:
            write(tax.rotki(told))
    return Exit.OK


class Table(StrEnum):
    """As what a table is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


class Split(StrEnum):
    """By what usage is split."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    LABEL = "label"


@app.command()
def usage(
    by: Annotated[Split, typer.Option(help="by what it is split; labels are of `labels` in the settings")] = Split.DAY,
    month: Month = None,
    first: First = None,
    last: Last = None,
    form: Annotated[Table, typer.Option("--format", help="as what it is written")] = Table.TEXT,
    as_json: Json = False,
) -> None:
    """Say who used what, and what it has cost. Example: topup usage --by label --month 2026-11 --format csv."""
    guarded(lambda: _usage(by, (month, first, last), Table.JSON if as_json else form))


def _usage(by: Split, days: tuple[str | None, str | None, str | None], form: Table) -> Exit:
    from topup.accounting.formats import usage as written
    from topup.commands.statement import period_of
    from topup.commands.usage import usage_of
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    now_ms = store.now_ms(SystemClock().now_ms())
    told = usage_of(store, settings.account, written.By(by.value), period_of(*days, now_ms), settings.labels, now_ms)
    match form:
        case Table.TEXT:
            say("\n".join(written.lines(told)))
        case Table.JSON:
            document(written.document(told))
        case Table.CSV:
            write(written.write(told))
    return Exit.OK


def _write(path: Path, text: str) -> None:
    """Write a file in one go.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", remedy="give a file that can") from None


def _agreed_to(lines: list[str]) -> bool:
    """Show on a terminal what would be done, and ask."""
    if not sys.stdin.isatty():
        return False
    warn("\n".join(lines))
    return typer.confirm("take all this over into the ledger?", err=True)
