"""Which variables of the environment are settings? A name that is almost one is an error, not a limit that fails."""

import re
from collections.abc import Collection, Mapping
from typing import Final

from topup.domain.errors import SettingsError

# What a cluster adds to every pod for each service of its namespace, in the shape that Docker's links once had. Beside
# a service called topup, or topup-something, these begin like settings, and are nobody's.
LINK: Final = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
LINKED: Final = re.compile(r"((tcp|udp|sctp)://)?(\[?[0-9a-fA-F:.]+\]?|[a-z0-9.-]+)(:[0-9]{1,5})?|[0-9]{1,5}")
# What Docker's links add beside those: whose link it is, and a copy of the other container's environment.
ALIAS: Final = re.compile(r"/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
WHENCE: Final = (
    "correct or unset it; a cluster adds such names for a service called topup (`enableServiceLinks: false` leaves them"
    " out), Docker for a link"
)
# What an editor or a file with foreign ends of lines leaves around a name.
AROUND: Final = "\ufeff\u200b \t\r\n\x00"


def must_be_known(environ: Mapping[str, str], prefix: str, known: Collection[str]) -> None:
    """Refuse, by a SettingsError, a variable with the prefix that is no setting, unless a cluster has put it there."""
    strange = sorted(
        name
        for name, value in environ.items()
        if name.strip(AROUND).upper().startswith(prefix) and name not in known and not _linked(name, value, environ)
    )
    if strange:
        near = {name: nearest(name.strip(AROUND), known, prefix) for name in strange}
        raise SettingsError(
            "; ".join(f"{_shown(k)} is no setting" + (f", did you mean {n}?" if n else "") for k, n in near.items()),
            remedy=WHENCE if any(map(_like_a_link, strange)) else "`topup config show` lists every setting",
        )


def _like_a_link(name: str) -> bool:
    return LINK.fullmatch(name) is not None or name.endswith(("_PORT", "_HOST", "_NAME")) or "_ENV_" in name


def _linked(name: str, value: str, environ: Mapping[str, str]) -> bool:
    if name.endswith("_NAME"):
        return ALIAS.fullmatch(value) is not None
    of, copied, _ = name.partition("_ENV_")
    if copied:
        return ALIAS.fullmatch(environ.get(f"{of}_NAME", "")) is not None
    # `…_PORT` alone is a URL in a cluster; with a number it is a setting of somebody who guesses.
    named = LINK.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in value)
    return named and LINKED.fullmatch(value) is not None


def _shown(name: str) -> str:
    return name if name.isprintable() and name == name.strip() else ascii(name)


def nearest(name: str, known: Collection[str], prefix: str = "") -> str | None:
    """Return the known name that this one is almost."""
    import difflib  # for the one who has mistyped

    sought = name.upper() if prefix and name.upper().startswith(prefix) else name
    return next(iter(difflib.get_close_matches(sought, known, n=1, cutoff=0.75)), None)
