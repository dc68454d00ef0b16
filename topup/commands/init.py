"""How does a newcomer get settings that work? Little is asked, each answer is tried at once, and then written down.

The first stop is watching: it needs a management key and nothing else. The second is paying, now or later: it needs a
wallet and providers of its chain.
"""

import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import typer

from topup.accounting.usage import Activity, dearest_request
from topup.app import keys
from topup.app.connections import opened
from topup.app.funding import Funding, funding
from topup.app.output import warn
from topup.app.sections import ApiSection, PolicySection
from topup.app.settings import CONFIG, Settings, env_name, file_of, load, names, read_file
from topup.app.settings_text import flat, rendered
from topup.chain.owners import owner, quorum
from topup.chain.rpc import known, quantity
from topup.commands import wallet_new
from topup.commands.answer import Answer
from topup.commands.doctor import account
from topup.commands.start import wait_for
from topup.domain.errors import Exit, SettingsError, TopupError
from topup.domain.nonpayment import WITNESSES
from topup.payment.config import COINBASE, MPP
from topup.sellers.openrouter import OpenRouter
from topup.signers import new_keystore
from topup.wire import files, new_files

T = TypeVar("T")
KEY_FILE: Final = "api-key"
KEYS_PAGE: Final = "https://openrouter.ai/settings/management-keys"
MORE: Final = "add one of another owner: a single provider can hide a payment or invent one, two have to agree"
# What is typed where a number is not known.
UNKNOWN: Final = "-"
# What one request may cost against what one costs on average: the answer may be as long as the model allows.
DEARER: Final = 10
WATCHING: Final = ("topup doctor", "topup check", "topup run")


@dataclass(frozen=True)
class Given:
    """What was said by flags; None, or nothing, is asked for on a terminal, and elsewhere has its default.

    With `yes` nothing is asked. `pay` None is a question of its own. `values` are other settings, as NAME=VALUE.
    """

    api_url: str | None = None
    api_key_file: Path | None = None
    values: Sequence[str] = ()
    pay: bool | None = None
    rpc_urls: Sequence[str] = ()
    keystore: Path | None = None
    password_file: Path | None = None
    yes: bool = False


def answer(given: Given) -> Answer:
    """Ask, try, write the settings, and say what comes next.

    Raises:
        SettingsError: an answer is refused and nobody is there to give another, or there are settings already.
    """
    path = file_of(os.environ)
    if path is None:
        raise SettingsError("there is no home to write settings into", remedy=f"name a file in {CONFIG}")
    before = _before(path, given)
    setup = Setup(given, path.absolute(), before)
    if before:
        setup.say(f"{path} watches already; what is missing to pay is asked for now.")
    else:
        setup.say("topup keeps a prepaid AI-API account funded. To watch it takes a management key, and no wallet.")
        setup.watch()
    if given.pay or (given.pay is None and setup.agreed("let topup buy credits by itself, from a wallet?")):
        setup.pay()
    return setup.written()


def _before(path: Path, given: Given) -> dict[str, Any]:
    """Return the settings that stand in the file, where paying is added to them."""
    if not path.exists():
        return {}
    if not given.pay:
        remedy = f"`topup init --pay` adds paying to it; else edit it, or name another file in {CONFIG}"
        raise SettingsError(f"{path} exists, and is not written over", remedy=remedy)
    load({CONFIG: str(path)})
    return flat(read_file({CONFIG: str(path)}))


class Setup:
    """The settings as far as they are known, by dotted names."""

    def __init__(self, given: Given, path: Path, before: dict[str, Any]) -> None:
        """Begin with what was set before."""
        self._given, self._path, self._rows, self._before = given, path, dict(before), before
        self._asks = sys.stdin.isatty() and not given.yes
        self._key = ""  # typed, and not yet in a file
        self._values = dict(map(_pair, given.values))
        self._next: list[str] = []

    # -- asking -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Tell a person at a terminal; who scripts this reads the result."""
        if self._asks:
            warn(text)

    def agreed(self, question: str) -> bool:
        """Ask for a yes; nobody's silence is one."""
        return self._asks and typer.confirm(question, default=False, err=True)

    def _asked(self, question: str, said: T | None, default: T, use: Callable[[T], None]) -> None:
        """Take what a flag said, or ask; `use` tries it, and its error is said before it is asked again.

        Without a `question` it is `use` that asks.
        """
        while True:
            value = said
            if value is None:
                value = self._typed(question, default) if self._asks and question else default
            try:
                use(value)
            except TopupError as error:
                if said is not None or not self._asks:
                    raise
                warn(f"  {error}; to do: {error.remedy}")
            else:
                return

    def _typed(self, question: str, default: Any) -> Any:
        return typer.prompt(question, default=default, err=True, show_default=default != "")

    def _set(self, rows: Mapping[str, object]) -> None:
        """Take settings if they fit together with what is known."""
        wanted = {name: value for name, value in {**self._rows, **rows}.items() if value not in ("", None)}
        self._tried(wanted)
        self._rows = wanted

    def _number(self, name: str, question: str, default: str) -> None:
        """Ask for one setting, unless a flag gives it."""

        def use(text: str) -> None:
            text = "" if text == UNKNOWN else text
            self._set({name: text, **(self._covering(name, text) if self._asks else {})})

        self._asked(question, self._values.pop(name, None), default, use)

    def _covering(self, name: str, text: str) -> dict[str, object]:
        """Return an amount that passes the floor for as long as a person has not chosen one: that is asked last."""
        if name == "policy.amount":
            return {}
        rows = {n: v for n, v in self._rows.items() if n.startswith("policy.")} | {name: text}
        try:
            floor = PolicySection(**{n.partition(".")[2]: v for n, v in rows.items() if v}).highest_floor
        except ValueError:
            return {}  # whoever tries it says what is wrong
        return {"policy.amount": str(max(floor, PolicySection().fixed_amount or 0))}

    def _tried(self, rows: dict[str, Any] | None = None) -> Settings:
        """Return these settings as they would be loaded, alone: no variable of the environment hides a mistake."""
        values = dict(self._rows if rows is None else rows)
        if self._key:
            values["api.key"] = self._key
        texts = {env_name(n): ",".join(v) if isinstance(v, list | tuple) else str(v) for n, v in values.items()}
        return load({CONFIG: os.devnull, **texts})

    # -- the first stop -----------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Ask whose credits, and when more are needed."""
        given = self._given
        self._asked("API", given.api_url, ApiSection().url, lambda url: self._set({"api.url": url}))
        self.say(f"A management key reads the credits ({KEYS_PAGE}). It is kept in a file of its own.")
        self._asked("", given.api_key_file, None, self._opens)
        self.say("A seller turns a request away when the balance is below the most that it may cost.")
        costs = f"most that one request may cost, in dollars (such as 2; {UNKNOWN}: unknown)"
        self._number("policy.request_max_usd", costs, self._suggested() if self._asks else "")
        if "policy.request_max_usd" in self._rows:
            self._number("policy.requests_at_once", "how many of them run at once", "1")
        p = self._tried().policy
        self._number("policy.floor", "dollars below which to refill", str(p.floor))
        self._number("policy.amount", "dollars to buy each time", str(p.fixed_amount))

    def _suggested(self) -> str:
        """Return what a request may cost at most, by what the account's requests of late have cost on average."""
        try:
            average = dearest_request(wait_for(_activity(self._tried())))
        except TopupError:
            average = None  # not every seller tells it
        if average is None:
            return UNKNOWN
        self.say(
            f"On the dearest day a model took {average.cents_up()} dollars a request; {DEARER} times that is safe."
        )
        return str(average.times(DEARER).cents_up())

    def _opens(self, file: Path | None) -> None:
        """Take the key from a file, or typed unseen, and ask the API by it."""
        self._key, self._rows["api.key_file"] = "", str(file.absolute()) if file is not None else ""
        if file is None:
            self._key = wallet_new.typed("management key", "--api-key-file")
            del self._rows["api.key_file"]
        checks = wait_for(account.api(self._tried()))
        for check in checks:
            self.say(f"  {check.line()}")
        wrong = next((check for check in checks if not check.ok), None)
        if wrong is not None:
            self._rows.pop("api.key_file", None)
            raise SettingsError(f"{wrong.name}: {wrong.says}", remedy=wrong.remedy or "give another key")

    # -- the second stop ----------------------------------------------------------------------------------------

    def pay(self) -> None:
        """Ask for a wallet, and for providers of the chain that the host's way to pay runs on."""
        settings = self._tried()
        rail = settings.rails_in_use[0]
        funds = funding(settings, rail)
        self.say(f"{urlsplit(settings.api.url).hostname} is paid by {rail}: {funds.dollar.asset} on {funds.chain}.")
        self._set({"rails.use": [rail]})  # written down, so that no later default changes how this account pays
        self._wallet()
        self._providers(funds)
        self._set({"mode": "live"})
        pins = ["topup pin"] if rail == COINBASE else ["topup doctor --rail mpp"] if rail == MPP else []
        self._next = ["topup fund", *pins]

    def _wallet(self) -> None:
        def opens(keystore: object) -> None:
            path = Path(str(keystore)).absolute() if keystore else self._path.with_name(wallet_new.NAME)
            password = self._given.password_file or self._path.with_name("wallet.password")
            if not keystore and not path.exists():
                self._made(path, password)
            elif self._asks and self._given.password_file is None:
                password = Path(self._typed("file that holds its password", str(password)))
            before = self._rows
            self._set({"wallet.keystore": str(path), "wallet.keystore_password_file": str(password.absolute())})
            try:
                keys.signer(self._tried())
            except TopupError:
                self._rows = before
                raise

        if "wallet.keystore" not in self._rows:
            self._asked("keystore of the wallet (empty: make a new one)", self._given.keystore, "", opens)

    def _made(self, path: Path, password: Path) -> None:
        if self._given.password_file is None and not password.exists():
            new_files.create(password, secrets.token_urlsafe(24) + "\n", "the password's file")
        text = files.password(password, "--password-file")
        address = new_keystore.write(path, new_keystore.fresh(), text, "--keystore")
        warn(f"new wallet {address}: back up {path} and {password}, or what it holds is lost")

    def _providers(self, funds: Funding) -> None:
        urls: list[str] = []

        def speaks(url: str) -> None:
            wait_for(_of_chain(self._tried(), url, funds))
            urls.append(url)

        given = list(self._given.rpc_urls)
        self._asked(f"provider of {funds.chain}", given.pop(0) if given else None, funds.urls[0], speaks)
        for url in given:
            speaks(url)
        self._set({funds.said: urls})
        if quorum(urls, None) < WITNESSES:
            self.say(f"{owner(urls[0])} alone tells what happens on {funds.chain}: {MORE}.")
            if self._asks:
                self._asked("another provider (empty: none)", None, "", lambda url: speaks(url) if url else None)
            self._set({funds.said: urls})
        if quorum(urls, None) < WITNESSES:
            warn(f"topup: one owner of providers: {MORE} ({funds.said})")

    # -- the end ------------------------------------------------------------------------------------------------

    def written(self) -> Answer:
        """Write the settings, and what was typed, into files that only their owner can read."""
        self._set(self._values)  # whatever does not fit together is refused before a file is written
        if self._key:
            file = self._path.with_name(KEY_FILE)
            new_files.create(file, self._key + "\n", "the key's file")
            self._rows["api.key_file"], self._key = str(file), ""
        text = rendered(self._rows, head=f"Settings of topup, written by `topup init` on {datetime.now(UTC):%Y-%m-%d}.")
        kept = new_files.replace(self._path, text, "settings") if self._before else None
        if not self._before:
            new_files.create(self._path, text, "settings")
        load({CONFIG: str(self._path)})  # what was written is what is read
        mode = "pays" if self._rows.get("mode") == "live" else "watches"
        steps = [*self._next, *WATCHING, *([] if mode == "pays" else ["topup init --pay"])]
        document = {
            "schema": 1,
            "settings": str(self._path),
            "before": str(kept) if kept is not None else None,
            "mode": mode,
            "next": steps,
        }
        lines = [f"wrote      {self._path}, for its owner alone: it {mode}"]
        lines += [f"before     is kept in {kept}"] if kept is not None else []
        return Answer(document, [*lines, *(f"next       {step}" for step in steps)], Exit.OK)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or name not in names():
        raise SettingsError(
            f"--set {text[:60]!a} is no setting and its value",
            remedy="write it like --set policy.floor=5; `topup config show --defaults` names every setting",
        )
    return name, value


async def _activity(settings: Settings) -> list[Activity]:
    """Ask the account's API what was used of late."""
    async with opened(settings) as connections:
        api = connections.api
        return await api.activity() if isinstance(api, OpenRouter) else []


async def _of_chain(settings: Settings, url: str, funds: Funding) -> None:
    """Ask a provider which chain it serves."""
    trial = {CONFIG: os.devnull, env_name(funds.said): url}
    load(trial)  # says in a sentence what is wrong with the URL
    async with opened(settings) as connections:
        (rpc,) = connections.providers([url])
        (said,) = await rpc.batch([("eth_chainId", [])])
        served = quantity(known(said, "the chain's id"), "the chain's id")
    if served != funds.dollar.chain_id:
        raise SettingsError(
            f"{owner(url)} serves chain {served}, and not {funds.dollar.chain_id} ({funds.chain})",
            remedy=f"give a provider of {funds.chain}",
        )
