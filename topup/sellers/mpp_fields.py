"""How is a seller of the Payment scheme asked, and where do things stand in its answers? A seller is data.

One record a seller, of plain fields that the settings replace (`rails.mpp.fields`): paths below the base URL, names of
fields, words for a purchase's state, and where the balance is read. The protocol itself is the same for all of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from topup.domain.money import Usd, plain


@dataclass(frozen=True)
class Fields:
    """One seller, in plain fields; docs/configuration.md says what each of them holds, under `rails.mpp.fields`."""

    request_path: str = "/credits/purchases"
    amount_field: str = "amount"
    amount_as: Literal["number", "text"] = "number"
    body: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ("/credits/purchases/setup", "/credits/purchases/SKILL.md")
    envelope: str = "data"
    purchase_path: str = "/credits/purchases/{id}"
    id_field: str = "id"
    status_field: str = "status"
    credited: tuple[str, ...] = ("credited",)
    failed: tuple[str, ...] = ("failed",)
    balance_path: str = ""
    balance_field: str = "balance"

    def request(self, amount: Usd) -> bytes:
        """Write the body that asks for so many dollars: a number from the Decimal's own text, never a float."""
        dollars = plain(amount.amount)
        said = dollars if self.amount_as == "number" else json.dumps(dollars)
        members = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in self.body.items()]
        return ("{" + ", ".join([f"{json.dumps(self.amount_field)}: {said}", *members]) + "}").encode()


# OpenRouter's API reference tells its paths; the names of its fields are in no document that could be read.
OPENROUTER: Final = Fields()
