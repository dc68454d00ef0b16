"""How is a settings file written so that a person can read it? Each setting stands below what it means."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from topup.app.settings import names
from topup.domain.money import plain


def flat(document: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return what stands in a settings file by dotted names; a table that is a setting itself stays whole."""
    rows: dict[str, Any] = {}
    for name, value in document.items():
        inside = isinstance(value, Mapping) and before + name not in names()
        rows |= flat(value, f"{before}{name}.") if inside else {before + name: value}
    return rows


def rendered(rows: Mapping[str, Any], *, head: str) -> str:
    """Return the text of a settings file with these settings, by dotted names; `head` is its first comment."""
    known = names()
    tables: dict[str, list[str]] = {}
    for name in sorted(rows, key=[*known].index):
        table, _, short = name.rpartition(".")
        tables.setdefault(table, []).extend([f"# {known[name].description}", f"{short} = {_value(rows[name])}"])
    parts = [f"# {head}\n# `topup config show --defaults` names every other setting."]
    parts += ["\n".join([f"[{table}]", *lines] if table else lines) for table, lines in tables.items()]
    return "\n\n".join(parts) + "\n"


def _value(value: Any) -> str:
    """Return a value in TOML: its basic strings are written like those of JSON, and its numbers stay exact."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Decimal():
            return plain(value)
        case Mapping():
            return f"{{ {', '.join(f'{_value(k)} = {_value(v)}' for k, v in value.items())} }}"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case datetime():
            return value.isoformat()
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
