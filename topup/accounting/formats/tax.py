"""How do the wallet's movements become rows that Koinly or rotki imports?

Only what left or reached the wallet is told: what a top-up paid is spent, with the network's part as its fee; what the
network took of a payment that failed is a cost of its own. Credits are no coin, and these tools know nothing of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from topup.accounting.closing import OPENING, PAD
from topup.accounting.formats.csv_journal import safe
from topup.accounting.journal import GAS, GAS_REVERTED, L1_FEE, WALLET, Commodity, Entry
from topup.accounting.statement import Statement, amount
from topup.domain.dollars import BASE_DOLLAR, PATH_DOLLAR, TEMPO_DOLLAR
from topup.domain.moments import moment
from topup.domain.money import plain

# support.koinly.io, "How to create a custom CSV file", the universal template
KOINLY: Final = (
    "Date",
    "Sent Amount",
    "Sent Currency",
    "Received Amount",
    "Received Currency",
    "Fee Amount",
    "Fee Currency",
    "Net Worth Amount",
    "Net Worth Currency",
    "Label",
    "Description",
    "TxHash",
)
# docs.rotki.com, "rotki generic events import": assets by CAIP-19, times in milliseconds
ROTKI: Final = ("Type", "Location", "Currency", "Amount", "Fee", "Fee Currency", "Description", "Timestamp")
ASSETS: Final[Mapping[Commodity, str]] = {
    Commodity.ETH: "ETH",
    Commodity.USDC: f"eip155:{BASE_DOLLAR.chain_id}/erc20:0x{BASE_DOLLAR.token.hex()}",
    Commodity.USDC_E: f"eip155:{TEMPO_DOLLAR.chain_id}/erc20:0x{TEMPO_DOLLAR.token.hex()}",
    Commodity.PATH_USD: f"eip155:{PATH_DOLLAR.chain_id}/erc20:0x{PATH_DOLLAR.token.hex()}",
}


# rotki's word for what came and for what left: of a top-up, and of what somebody else moved.
_TYPES: Final = {False: ("Income", "Spend"), True: ("Deposit", "Withdrawal")}


@dataclass(frozen=True)
class Moved:
    """What one entry moved of one coin: units that left the wallet beside the fee, negative where they came back.

    `wallet` is its address, "" where the account has only ever used one.
    """

    entry: Entry
    wallet: str
    commodity: Commodity
    units: int
    fee: int

    @property
    def transfer(self) -> bool:
        """Tell whether it was neither bought nor spent here: what was there before, or what somebody else moved."""
        return any(x.account in (PAD, OPENING) for x in self.entry.lines)

    @property
    def described(self) -> str:
        """Return what it was, of which top-up and wallet."""
        return safe(" ".join(one for one in (self.entry.text, self.entry.topup_id, self.wallet) if one))


def koinly(told: Statement) -> str:
    """Return the wallet's movements as Koinly's universal CSV, dates in UTC."""
    return _csv(KOINLY, (_koinly(one) for one in _moved(told)))


def rotki(told: Statement) -> str:
    """Return the wallet's movements as rotki's generic events."""
    return _csv(ROTKI, (_rotki(one) for one in _moved(told)))


def _koinly(one: Moved) -> tuple[object, ...]:
    entry, name = one.entry, one.commodity.value
    out, fee = (one.units, one.fee) if one.units else (one.fee, 0)
    sent, received = (out, 0) if out >= 0 else (0, -out)
    alone = len([x for x in entry.lines if x.account == WALLET]) == 1
    worth = str(entry.usd_value) if entry.usd_value is not None and alone else ""
    return (
        moment(entry.at_ms // 1000).removesuffix("Z") + " UTC",
        *(_told(sent, one.commodity), name if sent else ""),
        *(_told(received, one.commodity), name if received else ""),
        *(_told(fee, one.commodity), name if fee else ""),
        *(worth, "USD" if worth else ""),
        "cost" if sent and not one.transfer else "",
        one.described,
        "0x" + entry.tx_hash.hex() if entry.tx_hash is not None else "",
    )


def _rotki(one: Moved) -> tuple[object, ...]:
    entry, name = one.entry, ASSETS[one.commodity]
    out, fee = (one.units, one.fee) if one.units else (one.fee, 0)
    return (
        _TYPES[one.transfer][out >= 0],
        "blockchain",
        *(name, _told(abs(out), one.commodity)),
        *(_told(fee, one.commodity), name if fee else ""),
        one.described,
        entry.at_ms,
    )


def _moved(told: Statement) -> Iterator[Moved]:
    for entry in told.entries:
        for commodity in ASSETS:
            mine = [x for x in entry.lines if x.commodity is commodity]
            left = -sum(x.units for x in mine if x.account == WALLET)
            fee = sum(x.units for x in mine if x.account in (GAS, GAS_REVERTED, L1_FEE))
            if left or fee:
                yield Moved(entry, told.wallet(entry), commodity, left - fee, fee)


def _told(units: int, commodity: Commodity) -> str:
    return plain(amount(units, commodity)) if units else ""


def _csv(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()
