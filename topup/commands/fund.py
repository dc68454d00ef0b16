"""Where does the wallet's money have to go: which address, token and chain, how much, and what usually goes wrong?

From the settings and the ledger alone. Nobody is asked, so what the wallet holds already is not looked at; `topup
wallet check` does that.
"""

import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from eth_utils.address import to_checksum_address

from topup.app import keys
from topup.app.assembly import pay_with
from topup.app.funding import Funding, funding, refill_total
from topup.app.settings import Settings
from topup.commands.answer import Answer, labelled
from topup.commands.start import load
from topup.domain.credits import Reading
from topup.domain.errors import Exit, SettingsError
from topup.domain.money import Asset, Usdc, plain
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, RAILS, X402

# What people have lost money by, or time.
SAME_ADDRESS: Final = (
    "the address is the same on every chain: what is sent on another one arrives there, and buys nothing"
)
SMALL_FIRST: Final = "send a little first, and see it by `topup wallet check`, before you send the rest"
MISTAKES: Final[dict[str, tuple[str, ...]]] = {
    MPP: (
        "choose Tempo where you send from; what comes from an exchange that does not know it takes a bridge",
        "there are several dollars on Tempo, and each is another token: `topup wallet check` finds one sent by mistake",
        "no other coin is needed: the network takes its fee in the same dollar",
    ),
    X402: (
        "choose Base where you send from, not Ethereum",
        "USDbC, the older bridged dollar, is another token and pays nothing here",
        "no ETH is needed: the seller carries the payment to the chain",
        "the address must be a plain wallet: code at it (EIP-7702) breaks the payment; `topup wallet check` tells",
    ),
    COINBASE: (
        "choose Base where you send from, not Ethereum",
        "the network's fee is paid in ETH, and wallet.reserve_eth of it is never spent",
    ),
}


@dataclass(frozen=True)
class Wanted:
    """What has to be sent for some refills.

    Attributes:
        token: the contract of what is paid with; None for ETH.
        amount: of that, fees included; None where it depends on a price that is not known here.
        dollars: what the refills may cost at most, fees of the seller included.
    """

    rail: str
    chain: str
    chain_id: int
    asset: str
    token: bytes | None
    amount: Usdc | None
    dollars: Usdc
    reserve_eth: str | None


def answer(refills: int, rail: str | None, *, qr: bool) -> Answer:
    """Say where to send what, for so many refills; with `qr`, or on a terminal, also as a code to be photographed."""
    settings = load()
    rail = rail if rail is not None else settings.rails_in_use[0]
    if rail not in RAILS:
        raise SettingsError(f"--rail {rail[:40]} is no way to pay", remedy=f"name one of {', '.join(RAILS)}")
    address, wanted = str(to_checksum_address(_payer(settings, rail))), _wanted(settings, rail, refills)
    mistakes = [*MISTAKES[rail], SAME_ADDRESS, SMALL_FIRST]
    uri = f"ethereum:{address}@{wanted.chain_id}"  # EIP-681: an address and its chain, which every wallet app reads
    document = {
        "schema": 1,
        "account": settings.account,
        "rail": rail,
        "address": address,
        "chain": wanted.chain,
        "chain_id": wanted.chain_id,
        "asset": wanted.asset,
        "token": str(to_checksum_address(wanted.token)) if wanted.token is not None else None,
        "refills": refills,
        "amount": plain(wanted.amount.usdc) if wanted.amount is not None else None,
        "worth_usd": plain(wanted.dollars.usdc),
        "reserve_eth": wanted.reserve_eth,
        "uri": uri,
        "mistakes": mistakes,
    }
    code = _code(uri) if qr or (sys.stdout is not None and sys.stdout.isatty()) else []
    return Answer(document, [*_lines(document), *(f"beware    {one}" for one in mistakes), *code], Exit.OK)


def _payer(settings: Settings, rail: str) -> bytes:
    root = settings.rails.mpp.root if rail == MPP else None
    address = bytes.fromhex(root[2:]) if root is not None else keys.known(settings) or keys.wallet(settings)
    if address is None:
        raise SettingsError("no wallet is set", remedy="`topup wallet new` makes one; or set wallet.address")
    return address


def _wanted(settings: Settings, rail: str, refills: int) -> Wanted:
    """Return what these refills may take of the wallet."""
    funds, total = funding(settings, rail), refill_total(settings, _last(settings))
    dollars = Usdc(refills * total.units)
    if rail == COINBASE:
        return _charges(settings, funds, dollars)
    amount = Usdc(refills * (total + funds.fee_max).units)
    dollar = funds.dollar
    return Wanted(rail, funds.chain, dollar.chain_id, dollar.asset.value, dollar.token, amount, dollars, None)


def _charges(settings: Settings, funds: Funding, dollars: Usdc) -> Wanted:
    usdc, reserve = pay_with(settings) is Asset.USDC, plain(settings.wallet.reserve_eth)
    asset, token = (Asset.USDC, funds.dollar.token) if usdc else (Asset.ETH, None)
    amount = dollars if usdc else None
    return Wanted(COINBASE, funds.chain, settings.chain.id, asset.value, token, amount, dollars, reserve)


def _last(settings: Settings) -> Reading | None:
    if not SqliteStore.exists(settings.state_dir):
        return None
    with closing(SqliteStore.open_reader(settings.state_dir)) as store:
        return store.last_reading(settings.account)


def _lines(document: dict[str, Any]) -> list[str]:
    asset, worth, refills = document["asset"], document["worth_usd"], document["refills"]
    amount = f"{document['amount']} {asset}" if document["amount"] is not None else f"{asset} worth {worth} dollars"
    refill = "one refill" if refills == 1 else f"{refills} refills"
    rows = {
        "to": document["address"],
        "on": f"{document['chain']}, chain {document['chain_id']}",
        "send": f"{amount}: {refill}, each at its most, fees included",
        "besides": f"ETH for fees, and {document['reserve_eth']} ETH that stays" if document["reserve_eth"] else None,
        "token": document["token"],
    }
    return labelled(9, rows)


def _code(uri: str) -> list[str]:
    """Return a QR code of two rows a line, light on dark as most terminals are."""
    import segno

    rows = [bytes(row) for row in segno.make(uri, error="m").matrix_iter(border=2)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    halves = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return ["", *("".join(halves[above, below] for above, below in zip(*pair, strict=True)) for pair in _pairs(rows))]


def _pairs(rows: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(rows[::2], rows[1::2], strict=True))
