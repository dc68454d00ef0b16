"""Which settings are there, what are their values, and where does each come from? Secrets are masked."""

import os

from topup.app.settings import env_name, names, provenance
from topup.commands.answer import Answer
from topup.commands.start import load
from topup.domain.errors import Exit


def answer(*, defaults: bool) -> Answer:
    """Print every setting, its value and where it came from; with `defaults` what each means."""
    if defaults:
        meanings = [f"{env_name(name):<44} {setting.description}" for name, setting in names().items()]
        return Answer({}, meanings, Exit.OK)
    rows = provenance(load(), os.environ)
    document = {"schema": 1, "settings": {name: {"value": value, "from": source} for name, value, source in rows}}
    return Answer(document, [f"{name:<36} {value:<44} {source}" for name, value, source in rows], Exit.OK)
