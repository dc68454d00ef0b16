"""How is a seller of the Payment scheme asked, and where do things stand in its answers? A seller is data.

One record a seller, of plain fields that the settings replace (`rails.mpp.fields`): paths below the base URL, names of
fields, words for a purchase's state, and where the balance is read. The protocol itself is the same for all of them.
"""

import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from topup.domain.money import Usd, plain

UrlPath = Annotated[str, Field(pattern=r"^/[!-~]{1,255}$")]
UrlPathOrNone = Annotated[str, Field(pattern=r"^(/[!-~]{1,255})?$")]
PurchasePath = Annotated[str, Field(pattern=r"^(/[!-z|~]{0,200}\{id\}[!-z|~]{0,55})?$")]
Member = Annotated[str, Field(pattern=r"^[!-~]{0,64}$")]
Name = Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]


class Fields(BaseModel):
    """One seller, in plain fields; the defaults are OpenRouter's."""

    model_config = ConfigDict(frozen=True)

    request_path: UrlPath = Field(default="/credits/purchases", description="where a purchase is asked for, by POST")
    amount_field: Name = Field(default="amount", description="member of the request that holds the dollars")
    amount_as: Literal["number", "text"] = Field(
        default="number", description="whether the dollars stand there as a JSON number or as a text"
    )
    body: dict[str, str] = Field(default={}, description="other members of the request, always the same")
    texts: tuple[UrlPath, ...] = Field(
        default=("/credits/purchases/setup", "/credits/purchases/SKILL.md"),
        description="paths of what the seller has written for machines",
    )
    envelope: Member = Field(default="data", description="member that an answer is wrapped in; empty for none")
    purchase_path: PurchasePath = Field(
        default="/credits/purchases/{id}",
        description="where a purchase is looked up, with {id} in it; empty for nowhere",
    )
    id_field: Name = Field(default="id", description="member that names a purchase")
    status_field: Name = Field(default="status", description="member that tells a purchase's state")
    credited: tuple[Name, ...] = Field(default=("credited",), description="words for a purchase that was credited")
    failed: tuple[Name, ...] = Field(default=("failed",), description="words for a purchase that will never be")
    balance_path: UrlPathOrNone = Field(
        default="", description="where the balance is read, for api.kind mpp; empty for nowhere"
    )
    balance_field: Name = Field(default="balance", description="members that lead to the balance, joined by points")

    def request(self, amount: Usd) -> bytes:
        """Write the body that asks for so many dollars: a number from the Decimal's own text, never a float."""
        dollars = plain(amount.amount)
        said = dollars if self.amount_as == "number" else json.dumps(dollars)
        members = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in self.body.items()]
        return ("{" + ", ".join([f"{json.dumps(self.amount_field)}: {said}", *members]) + "}").encode()


# OpenRouter's API reference tells its paths; the names of its fields are in no document that could be read.
OPENROUTER: Final = Fields()
