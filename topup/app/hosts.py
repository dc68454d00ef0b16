"""By which rail does a host sell credits, as its own documentation says today?"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from topup.app.sections import ApiSection, Rail

OPENROUTER: Final = "openrouter.ai"
# By host, what is sold by (https://openrouter.ai/docs, November 2026) and what is closed there, in a sentence.
SOLD_BY: Final[Mapping[str, Rail]] = {OPENROUTER: "mpp"}
CLOSED: Final[Mapping[tuple[str, Rail], str]] = {
    (OPENROUTER, "coinbase"): "OpenRouter has closed the endpoint that sold Coinbase charges: it answers 410"
}
CLOSED_REMEDY: Final = 'remove rails.use, or set rails.use = ["mpp"], and see `topup doctor`'


def sold_by(api: ApiSection) -> tuple[Rail, ...]:
    """Return the rails that are used where `rails.use` names none.

    The gateway of a kind of its own has its own rail. A host that is not known is taken for a gateway that sells what
    OpenRouter sold once, as every version before did.
    """
    if api.kind != "openrouter":
        return (api.kind,)
    return (SOLD_BY.get(_host(api.url), "coinbase"),)


def closed(api: ApiSection, rail: Rail) -> str | None:
    """Return why a rail is known to be of no use at this host; None where nothing is known against it."""
    return CLOSED.get((_host(api.url), rail)) if api.kind == "openrouter" else None


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").removeprefix("www.")
