"""How do the wallet's movements become rows that Koinly or rotki imports?

Only what left or reached the wallet is told: what a top-up paid is spent, with the network's part as its fee; what the
network took of a payment that failed is a cost of its own. Credits are no coin, and these tools know nothing of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from topup.accounting.closing import OPENING, PAD
from topup.accounting.formats.csv_journal import safe, sheet
from topup.accounting.journal import NETWORK, WALLET, Commodity, Entry, units
from topup.accounting.statement import Statement, shown
from topup.domain.dollars import BASE_DOLLAR, PATH_DOLLAR, TEMPO_DOLLAR
from topup.domain.moments import moment

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
    def out(self) -> int:
        """Return what left: the fee, where nothing did beside it."""
        return self.units or self.fee

    @property
    def beside(self) -> int:
        """Return the fee, 0 where it is all that left."""
        return self.fee if self.units else 0

    @property
    def transfer(self) -> bool:
        """Tell whether it was neither bought nor spent here: what was there before, or what somebody else moved."""
        return any(x.account in (PAD, OPENING) for x in self.entry.lines)

    @property
    def described(self) -> str:
        """Return what it was, of which top-up and wallet."""
        return safe(" ".join(filter(None, (self.entry.text, self.entry.topup_id, self.wallet))))


def koinly(statement: Statement) -> str:
    """Return the wallet's movements as Koinly's universal CSV, dates in UTC."""
    return sheet(KOINLY, (_koinly(move) for move in _moves(statement)))


def rotki(statement: Statement) -> str:
    """Return the wallet's movements as rotki's generic events."""
    return sheet(ROTKI, (_rotki(move) for move in _moves(statement)))


def _koinly(move: Moved) -> tuple[object, ...]:
    entry = move.entry
    alone = len([x for x in entry.lines if x.account == WALLET]) == 1
    worth = str(entry.usd_value) if entry.usd_value is not None and alone else ""
    name = move.commodity.value
    return (
        moment(entry.at_ms // 1000).removesuffix("Z") + " UTC",
        *_coin(max(move.out, 0), move.commodity, name),
        *_coin(max(-move.out, 0), move.commodity, name),
        *_coin(move.beside, move.commodity, name),
        *(worth, "USD" if worth else ""),
        "cost" if move.out > 0 and not move.transfer else "",
        move.described,
        entry.tx,
    )


def _rotki(move: Moved) -> tuple[object, ...]:
    name = ASSETS[move.commodity]
    amount, fee = shown(abs(move.out), move.commodity), _coin(move.beside, move.commodity, name)
    kind = _TYPES[move.transfer][move.out >= 0]
    return (kind, "blockchain", name, amount, *fee, move.described, move.entry.at_ms)


def _coin(count: int, commodity: Commodity, name: str) -> tuple[str, str]:
    """Return an amount and the coin's name, both "" where it is nothing."""
    return (shown(count, commodity), name) if count else ("", "")


def _moves(statement: Statement) -> Iterator[Moved]:
    for entry in statement.entries:
        for commodity in ASSETS:
            left, fee = -units(entry.lines, (WALLET,), (commodity,)), units(entry.lines, NETWORK, (commodity,))
            if left or fee:
                yield Moved(entry, statement.wallet(entry), commodity, left - fee, fee)
