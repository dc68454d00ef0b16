"""Which settings are there, what are their values, and where does each come from? Secrets are masked."""

import os

from topup.app.settings import CONFIG, env_name, file_of, names, provenance
from topup.commands.answer import Answer
from topup.commands.start import load
from topup.domain.errors import Exit


def answer(*, defaults: bool) -> Answer:
    """Print every setting, its value and where it came from, and which file was read; with `defaults` their meaning."""
    if defaults:
        each = {name: {"variable": env_name(name), "meaning": field.description} for name, field in names().items()}
        meanings = [f"{one['variable']:<44} {one['meaning']}" for one in each.values()]
        return Answer({"schema": 1, "settings": each}, meanings, Exit.OK)
    rows, path = provenance(load(), os.environ), file_of(os.environ)
    read = path is not None and path.exists()
    document = {
        "schema": 1,
        "settings": {name: {"value": value, "from": source} for name, value, source in rows},
        "file": {"path": None if path is None else str(path), "read": read},
    }
    lines = [f"{n:<36} {value:<44} {f'file {path}' if source == 'file' else source}" for n, value, source in rows]
    where = f"{path}, {'read' if read else 'which is not there'}" if path is not None else "none: there is no home"
    return Answer(
        document, [f"settings file: {where}" + ("" if read else f"; {CONFIG} can name another"), *lines], Exit.OK
    )
