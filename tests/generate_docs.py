"""What do the documents say that the code already says? Writes those parts anew: `python -m tests.generate_docs`.

A document keeps what people wrote; between `<!-- generated: NAME -->` and `<!-- end -->` stands what BLOCKS[NAME]
returns. FILES are written whole: the manual page, what completes commands in shells, the dashboard, and the alert rules
with their links. `--accept-events` also takes
the events as they are now for tests/golden/events.json: only after deciding that an alert written against the old names
may break.
"""

import ast
import inspect
import json
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as limits
from pydantic import SecretStr
from typer.main import get_command

from tests import manual
from tests.dashboard import dashboard
from tests.rooms import allowed, build, drawing, imports
from tests.tools import ROOT
from topup.app import assembly
from topup.app.settings import Settings, env_name, names
from topup.commands import completion
from topup.commands.answer import code_of
from topup.commands.cli import app
from topup.domain import errors, events, lifecycle, messages, ways_out
from topup.domain.money import Usd
from topup.domain.policy import worst_spend
from topup.web import metrics

DOCS: Final = ROOT / "docs"
GOLDEN: Final = ROOT / "tests" / "golden" / "events.json"
BLOCK: Final = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
AGAIN: Final = "run `python -m tests.generate_docs` and look at what changed"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines: list[tuple[str, ...]] = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def sentence(thing: object) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def remarks(enumeration: type[Enum]) -> dict[str, str]:
    """Return the comment that stands behind each member in the source."""
    found = re.findall(r"^    ([A-Z_0-9]+) = [^#\n]+?(?:  # (.*))?$", inspect.getsource(enumeration), re.MULTILINE)
    return dict(found)


# -- events -----------------------------------------------------------------------------------------------------

MONEY: Final = {errors.Money.NO: "no", errors.Money.MAYBE: "perhaps", errors.Money.YES: "yes"}
FORMS: Final = {
    "Usd": "dollars, decimal text",
    "Wei": "wei, integer text",
    "Usdc": "USDC units (10⁻⁶), integer text",
    "Bps": "basis points, integer",
    "bytes": "0x and hex digits",
    "Decimal": "decimal text",
    "str": "text",
    "bool": "true or false",
    "int": "integer",
}
SUFFIXES: Final = {
    "_s": "seconds, integer",
    "_units": "USDC units (10⁻⁶), integer",
    "_wei": "wei, integer",
}


def field_names(event: type[events.Event]) -> list[str]:
    return [field.name for field in fields(event)]


def form(name: str, kind: Any) -> str:
    """Return how a field of an event is written, and in which unit."""
    parts = [part for part in get_args(kind) if part is not type(None)] or [kind]
    optional = "; absent while unknown" if type(None) in get_args(kind) else ""
    word = parts[0].__name__
    if word == "int":
        return next((unit for end, unit in SUFFIXES.items() if name.endswith(end)), FORMS[word]) + optional
    if word == "Decimal" and name.startswith("hours_"):
        return "hours, decimal text" + optional
    if word == "Usd" and name.endswith("_per_hour"):
        return "dollars an hour, decimal text" + optional
    return FORMS[word] + optional


def event_entries() -> str:
    parts = []
    for event in events.catalogue():
        said = " ".join((inspect.getdoc(event) or "").split())
        head = f"### `{event.name()}`\n\n{said}\n\nLevel **{event.level}**. Money moved: {MONEY[event.money]}."
        todo = f" To do: {event.todo}." if event.todo else ""
        hints = get_type_hints(event)
        rows = [(f"`{f}`", form(f, hints[f])) for f in field_names(event)]
        parts.append(f"{head}{todo}\n\n{table(('field', 'form'), rows)}")
    return "\n" + "\n".join(parts) + "\n"


def golden_events() -> str:
    """Return names, levels, money and fields of all events, as the golden file holds them."""
    told = {e.name(): {"level": e.level, "money": e.money.value, "fields": field_names(e)} for e in events.catalogue()}
    return json.dumps(told, indent=2) + "\n"


# -- settings ---------------------------------------------------------------------------------------------------


def kind_of(annotation: Any) -> tuple[str, list[Any]]:
    """Return a setting's type in words, and the constraints that hang on it."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        told = [kind_of(part) for part in inside if part is not type(None)]
        return " or ".join(word for word, _ in told), [c for _, some in told for c in some]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside), []
    if origin is dict:
        return f"table of {kind_of(inside[1])[0]}; in the environment as JSON", []
    if origin is tuple:
        return f"list of {kind_of(inside[0])[0]}", []
    if hasattr(annotation, "__metadata__"):
        word, some = kind_of(annotation.__origin__)
        return checked(word, annotation.__metadata__), [*some, *constraints_of(annotation.__metadata__)]
    words: dict[Any, str] = {str: "text", int: "integer", Decimal: "decimal", Path: "path", SecretStr: "secret"}
    return (words | {bool: "`true` or `false`"})[annotation], []


def checked(word: str, metadata: Any) -> str:
    """Return a type's word, narrowed by the validator that hangs on it."""
    named = {getattr(getattr(one, "func", None), "__qualname__", "") for one in metadata}
    if named & {"_url", "_base_url"}:
        return "URL"
    if "_exact.<locals>.read" in named:
        return "decimal"
    return "hex digits" if any(name.startswith(("_hex.", "written")) for name in named) else word


def constraints_of(metadata: Any) -> list[Any]:
    """Return the constraints among what hangs on a type; a pydantic Field holds several."""
    return [c for one in metadata for c in (getattr(one, "metadata", None) or [one])]


def bounds(constraints: list[Any]) -> str:
    told = []
    above_zero = any(isinstance(one, limits.Gt) for one in constraints)
    for one in constraints:
        match one:
            case limits.Ge(ge=least) if not (least == 0 and above_zero):
                told.append(f"≥ {least}")
            case limits.Gt(gt=above):
                told.append(f"> {above}")
            case limits.Le(le=most):
                told.append(f"≤ {most}")
            case limits.MinLen(min_length=least):
                told.append(f"at least {least} long")
            case limits.MaxLen(max_length=most):
                told.append(f"at most {most} long")
            case _ if getattr(one, "pattern", None):
                told.append(f"`{one.pattern}`")
            case _:
                continue
    return ", ".join(dict.fromkeys(told))


def default_of(name: str, field: Any) -> str:
    """Return a setting's default as one would write it."""
    if name == "state_dir":
        return "`$STATE_DIRECTORY`, else `~/.local/state/topup`"
    value = field.default
    if value is None or value in ((), {}):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "`" + (",".join(map(str, value)) if isinstance(value, tuple) else str(value)) + "`"


def setting_rows() -> str:
    """Describe every setting, a table a section."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for name, field in names().items():
        section, _, last = name.rpartition(".")
        word, constraints = kind_of(field.annotation)
        constraints += constraints_of(field.metadata)
        word = checked(word, field.metadata)
        held = bounds(constraints)
        form_ = f"{word}, {held}" if held else word
        row = (f"`{last}`<br>`{env_name(name)}`", form_, default_of(name, field), field.description)
        parts.setdefault(section, []).append(row)
    head = ("name in the file, in the environment", "form", "default", "meaning")
    title = {section: f"`[{section}]`" if section else "top level" for section in parts}
    return "\n" + "\n".join(f"### {title[s]}\n\n{table(head, rows)}" for s, rows in parts.items()) + "\n"


def worst_case() -> str:
    """Compute from the defaults what can be lost at most, and by what it is held."""
    s = Settings.model_construct()
    p = s.policy
    attempts = s.posting.retries_max + 1
    one = worst_spend(Usd(Decimal(25)), assembly.limits(s))
    lying = "ETH for those 24 hours, even if the API and the one provider lie together"
    quoted = "what is sent above the quote; the contract returns what the swap leaves"
    rows = [
        (f"{p.cap_24h} dollars", "charges within any 24 hours, their fees included", "policy.cap_24h"),
        (f"{p.cap_30d} dollars", "the same within any 30 days", "policy.cap_30d"),
        (f"{p.cap_24h / s.price.eth_usd_min} ETH", lying, "price.eth_usd_min"),
        (f"{p.topup_max} dollars", "credits of one top-up", "policy.topup_max"),
        (f"{one} dollars", "what a top-up of 25 dollars counts against the caps", "rails.coinbase.fee_ceiling_bps"),
        (f"{s.price.deviation_bps / 100:g} %", "what a payment may cost above the feed", "price.deviation_bps"),
        (f"{s.price.slippage_bps / 100:g} %", quoted, "price.slippage_bps"),
        (f"{s.fees.network_fee_max_eth} ETH", "gas and L1 data fee of one attempt", "fees.network_fee_max_eth"),
        (f"{attempts}", "tries of one charge that may be mined, each costing a network fee", "posting.retries_max"),
        (
            f"{p.revert_gas_24h_eth} ETH",
            "gas of failed tries and of approvals without a payment within 24 hours; beyond it no payment is planned",
            "policy.revert_gas_24h_eth",
        ),
        (f"{s.wallet.payment_max_eth} ETH", "the value of one payment, held by the signer", "wallet.payment_max_eth"),
        (f"{p.count_24h}", "top-ups within any 24 hours", "policy.count_24h"),
    ]
    rows = [(most, what, f"`{setting}`") for most, what, setting in rows]
    return "\n" + table(("at most", "of what", "set by"), rows) + "\n"


# -- commands ---------------------------------------------------------------------------------------------------


def commands(inside: Any = None, before: str = "topup") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name."""
    group: Any = inside or get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def command_entries() -> str:
    parts = []
    for name, command in commands():
        says, _, example = command.help.partition(" Example: ")
        parts.append(f"### `{name}`\n\n{says}\n\n```sh\n{example.rstrip('.')}\n```\n")
        rows = [(f"`{shown}`", means) for shown, means in map(manual.described, command.params)]
        if rows:
            parts.append(table(("option", "meaning"), rows))
    return "\n" + "\n".join(parts) + "\n"


def exit_codes() -> str:
    said = remarks(errors.Exit)
    rows = [(str(int(code)), f"`{code.name}`", said[code.name]) for code in errors.Exit]
    return "\n" + table(("code", "name", "meaning"), rows) + "\n"


def error_codes() -> str:
    every = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.TopupError)]
    rows = [(f"`{code_of(one)}`", str(int(one.exit_code)), sentence(one)) for one in every[1:]]
    rows += [("`internal`", "1", "A defect of topup."), ("`usage`", "2", "The command line cannot be understood.")]
    return "\n" + table(("code", "exit", "meaning"), sorted(rows)) + "\n"


# -- the life of a top-up ---------------------------------------------------------------------------------------

STATE, FACT = lifecycle.State, lifecycle.Fact
# What each state waits for, and what a restart does with it. A state without its line here is an error.
WAITS: Final[dict[lifecycle.State, tuple[str, str]]] = {
    STATE.DECIDED: ("a pause to end, and its turn to ask", "asks"),
    STATE.ASKING: ("the answer, within `api.timeout_s`", "gives the answer up for lost, and asks again later"),
    STATE.CHARGED: ("limits, price, fees, wallet and providers to permit the payment", "proves the charge again"),
    STATE.RESERVED: ("nothing", "gives the nonce back and plans again"),
    STATE.SIGNED: ("nothing", "erases the bytes, gives the nonce back and plans again"),
    STATE.SENT: ("a block", "looks for it and sends the same bytes again"),
    STATE.REVERTED: ("nothing: tries again or gives up", "sees whether the block still stands"),
    STATE.DEATHWATCH: ("final blocks that prove it", "asks for the proof again"),
    STATE.PAID: ("the credits, until `posting.late_s`", "sees whether the block still stands, reads the account"),
    STATE.UNCREDITED: ("the credits, for as long as it takes", "the same"),
    STATE.CREDITED: ("a safe block", "the same"),
    STATE.HALTED: ("a person's word", "keeps looking; sends nothing"),
}
# What is committed with each arrow, and what follows once it is. An arrow without its line here is an error.
ARROWS: Final[dict[lifecycle.Fact, tuple[str, str]]] = {
    FACT.ASK: ("number and time of the request", "the charge is requested"),
    FACT.ANSWERED: ("the answer, byte for byte", "the charge is proven, quoted and simulated"),
    FACT.APPROVED: ("the block in which the contract was allowed the token", "the payment itself is planned"),
    FACT.ANSWER_LOST: ("that this charge is abandoned", "another is requested after a while"),
    FACT.CHARGE_DEAD: (
        "that it grew too old, or that a lost copy of this ledger used its name; no payment of it was ever sent",
        "another is requested",
    ),
    FACT.RESERVE: ("the unsigned payment, its nonce, the credits before it", "the key signs"),
    FACT.SIGNED: ("the signed bytes and their hash", "nothing yet"),
    FACT.INTEND: ("the intent to send", "the bytes go to every provider"),
    FACT.BUMP: ("a dearer payment of this charge at this nonce: signed, intended", "its bytes go to every provider"),
    FACT.CANCEL: ("a transaction that moves nothing at this nonce: signed, intended", "its bytes go to every provider"),
    FACT.GIVEN_UP: ("why", "proof of death is waited for"),
    FACT.WITHDRAWN: ("that the nonce is free; the signed bytes are erased", "the payment is planned again"),
    FACT.REVERTED: ("block, cost and reason", "it is tried again or given up"),
    FACT.RETRY: ("nothing else", "the same charge is planned at the next nonce"),
    FACT.EXPIRED: ("that a block past the deadline was seen", "proof of death is waited for"),
    FACT.PROVEN_DEAD: ("the proof, on the charge; its nonce is free", "buying is decided again, with another charge"),
    FACT.PAID: ("block and cost of the payment", "credits are waited for"),
    FACT.VANISHED: ("that the block was replaced", "the payment is looked for and sent again"),
    FACT.POSTED: ("when the credits were there", "a safe block is waited for"),
    FACT.POSTING_LATE: ("nothing else", "nothing more is bought until they come"),
    FACT.SETTLED: ("the purchase, in the books", "nothing: the end"),
    FACT.DROP: ("why", "nothing: the end"),
    FACT.FAIL: ("the proof, or the person's word", "nothing: the end"),
    FACT.HALT: ("the reason", "nothing is sent; it is still looked for"),
}


def life() -> str:
    """Show the diagram, the states and every arrow of the table."""
    drawn = (inspect.getdoc(lifecycle) or "").partition("\n\n")[2].partition("\n\nEvery arrow")[0]
    said = remarks(lifecycle.State)
    states = [
        (f"`{s}`", said[s.name] or "an end", *(("–", "–") if s in lifecycle.TERMINAL else WAITS[s]))
        for s in lifecycle.State
    ]
    arrows = [
        (f"`{state}`", f"`{fact}`", f"`{to}`", *ARROWS[fact])
        for (state, fact), to in sorted(
            lifecycle.TABLE.items(), key=lambda arrow: list(lifecycle.State).index(arrow[0][0])
        )
        if fact is not lifecycle.Fact.HALT
    ]
    halts = ", ".join(f"`{s}`" for s, fact in lifecycle.TABLE if fact is lifecycle.Fact.HALT)
    committed, then = ARROWS[lifecycle.Fact.HALT]
    return (
        f"\n```text\n{drawn}\n```\n\n"
        f"{table(('state', 'meaning', 'waits for', 'a restart'), states)}\n"
        f"{table(('from', 'what happened', 'to', 'committed with it', 'then'), arrows)}\n"
        f"`halt` leads to `halted` from {halts}. Committed with it: {committed}. Then: {then}.\n\n"
    )


def way_rows() -> str:
    """Show what ends each state, and what a person may say of it."""
    rows = []
    for state in lifecycle.State:
        way = ways_out.WAYS[state]
        words = "<br>".join(f"`{ways_out.COMMANDS[word]}` {does}" for word, does in way.words.items())
        rows.append((f"`{state}`", way.ends or ("a person" if state is lifecycle.State.HALTED else "–"), words))
    return "\n" + table(("state", "what ends it", "what a person may say"), rows) + "\n"


# -- rooms ------------------------------------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Return every module of the package under its path; a package's path ends in a slash."""
    found = {}
    for path in sorted((ROOT / "topup").rglob("*.py")):
        name = path.relative_to(ROOT / "topup").as_posix()
        if name != "__init__.py":
            found[name.removesuffix("__init__.py")] = path
    return found


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, up to its question mark."""
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return first.partition("?")[0] + "?" if "?" in first else first


def rooms() -> str:
    """Return a table for each package: its modules and the question that each of them answers."""
    text, known = "", modules()
    for room in sorted({name.rpartition("/")[0] for name in known}):
        package = f"{room}/"
        about = first_line(known[package]) if room else ""
        inside = [
            (f"`{n.removeprefix(package)}`", first_line(p)) for n, p in known.items() if n.rpartition("/")[0] == room
        ]
        rows = [row for row in inside if row[0] != "``"]
        text += f"\n### `topup/{package if room else ''}`\n\n" + (f"{about}\n\n" if about else "")
        text += table(("module", "its question"), rows)
    return text + "\n"


def house() -> str:
    """Return the drawing of the rooms, and a table of what is in each and what it may import."""
    may, stands = allowed(), build(imports())
    downward = sorted(stands.floors, key=lambda room: (-stands.floors[room], room))
    rows = []
    for room in downward:
        path = ROOT / "topup" / f"{room}.py"
        about = first_line(path if path.exists() else path.with_suffix("") / "__init__.py")
        rows.append((f"`{room}`", about, ", ".join(f"`{name}`" for name in downward if name in may[room]) or "nothing"))
    return f"\n```text\n{drawing(stands)}```\n\n{table(('room', 'what is in it', 'may import'), rows)}\n"


def message_rows() -> str:
    rows = [
        (f"`{kind}`", kind.tier.name.lower(), "alarm" if kind in messages.ALARMS else "", kind.meaning)
        for kind in messages.MessageKind
    ]
    return "\n" + table(("type", "tier", "", "what has happened"), rows) + "\n"


def metric_rows() -> str:
    """Show every metric: the labels with all values that are known beforehand."""
    rows = []
    for metric in metrics.METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append((f"`{metric.name}`", metric.kind, labels, metric.says))
    return "\n" + table(("metric", "type", "labels", "what it is"), rows) + "\n"


def alerts(text: str) -> list[tuple[str, str, str]]:
    """Return name, severity and summary of each alert rule."""
    return re.findall(r'- alert: (\w+)\n.*?severity: (\w+)\n.*?summary: "(.*?)"\n', text, re.DOTALL)


def alert_rows() -> str:
    rules = alerts((PROMETHEUS / "topup.rules.yml").read_text(encoding="utf-8"))
    rows = [(f"[`{name}`](runbook.md#{name.lower()})", severity, says) for name, severity, says in rules]
    return "\n" + table(("alert", "severity", "what has happened"), rows) + "\n"


def linked(path: Path) -> str:
    """Return a file whose links to the runbook lead to where the repository is, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runbook = project["urls"]["Repository"] + "/blob/main/docs/runbook.md#"
    return re.sub(r"(runbook_url: )\S*#", rf"\1{runbook}", path.read_text(encoding="utf-8"))


BLOCKS: Final[dict[str, Callable[[], str]]] = {
    "events": event_entries,
    "settings": setting_rows,
    "worst-case": worst_case,
    "commands": command_entries,
    "exit-codes": exit_codes,
    "error-codes": error_codes,
    "life": life,
    "ways": way_rows,
    "messages": message_rows,
    "metrics": metric_rows,
    "alerts": alert_rows,
    "house": house,
    "rooms": rooms,
}


PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
RULES: Final = (PROMETHEUS / "topup.rules.yml", PROMETHEUS / "topup.rules.test.yml")
SHARE: Final = ROOT / "deploy" / "share"
FILES: Final[dict[Path, Callable[[], str]]] = {
    SHARE / "man" / "man1" / "topup.1": lambda: manual.page(remarks(errors.Exit)),
    SHARE / "bash-completion" / "completions" / "topup": lambda: completion.answer("bash").file or "",
    SHARE / "zsh" / "site-functions" / "_topup": lambda: completion.answer("zsh").file or "",
    SHARE / "fish" / "vendor_completions.d" / "topup.fish": lambda: completion.answer("fish").file or "",
    ROOT / "deploy" / "grafana" / "topup.json": dashboard,
    **{path: partial(linked, path) for path in RULES},
}


def written(text: str) -> str:
    """Return a document with its generated blocks written anew."""
    return BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[3], text)


def main(arguments: list[str]) -> None:
    texts = {path: written(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}
    texts |= {path: whole() for path, whole in FILES.items()}
    if "--accept-events" in arguments:
        texts[GOLDEN] = golden_events()
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
