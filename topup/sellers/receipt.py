"""What becomes of a seller's answer that cannot be read?

A refusal before anything is signed, silence after it was sent.

What stands in an answer is judged, echoed and stored as it came, so that it is read whole or refused whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from topup.domain.errors import ChargeRefused, TopupError
from topup.ports.chain import Delivery, Sent
from topup.wire.reading import nonsense

P = ParamSpec("P")


def unreadable(said: str) -> ChargeRefused:
    """Return the refusal of an answer that ends in an error nobody foresaw; `said` tells which."""
    return ChargeRefused("answer", said, "one that can be read")


def leaky() -> ChargeRefused:
    """Return the refusal of an answer that repeats a secret of ours: it would be kept, shown and handed on."""
    remedy = "trust this seller with no key: change it"
    return ChargeRefused("answer", "one that repeats a secret of ours", "free of them", remedy=remedy)


def unclear(send: Callable[P, Coroutine[Any, Any, Sent]]) -> Callable[P, Coroutine[Any, Any, Sent]]:
    """Put a rail's `send` behind the wall: once something has left, no answer ends anything."""

    @functools.wraps(send)
    async def sent(*arguments: P.args, **named: P.kwargs) -> Sent:
        try:
            return await send(*arguments, **named)
        except TopupError:
            raise
        except Exception as error:  # noqa: BLE001 - the payment may be on its way, whatever came back for it
            return Sent(Delivery.UNCLEAR, f"the seller gave {nonsense(error)}")

    return sent
