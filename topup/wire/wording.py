"""How does a message read for a person? A title and lines, from the document that a webhook gets."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from topup.domain.messages import MessageKind


def title(document: Mapping[str, Any]) -> str:
    """Return it in a line: whose it is, what it is about, and whether that is over."""
    data = document["data"]
    return f"topup: {data['account']}: {document['type']}{' is over' if data.get('state') == 'resolved' else ''}"


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield all that it says; what is empty is left out."""
    data = document["data"]
    if document["type"] == MessageKind.DIGEST:
        from topup.accounting.formats import digest

        yield from digest.lines(data)
        return
    for name, value in data.items():
        if value:
            yield f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
