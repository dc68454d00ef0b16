"""What may the wallet's access key spend, and how does the account's owner change it?

The daemon's key is an access key of the account that pays: the chain lets it spend so much in each period and call
nothing but the transfer. Only the account's root key can say so. It signs here, once, for a person who names its file.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from topup.app.connections import Connections, opened
from topup.app.funding import funding, refill_total
from topup.app.settings import Settings
from topup.chain.blocks import head
from topup.chain.preflight import reason
from topup.chain.providers import first
from topup.chain.rpc import Rpc, RpcError, quantity
from topup.commands.answer import Answer, labelled, to_do
from topup.commands.start import agreed, dollars_of, load, wait_for
from topup.domain import tempo
from topup.domain.dollars import TEMPO_TOKENS
from topup.domain.errors import ChainError, ChainUnknown, Exit, PaymentForbidden, SettingsError, SignerError
from topup.domain.moments import END_OF_CALENDAR_S, moment
from topup.domain.money import Usd, Usdc, Wei, gas_dollars, plain
from topup.domain.policy import Permission, usable
from topup.domain.reasons import Reason
from topup.payment.config import MPP
from topup.ports.chain import Preflight
from topup.wire import files
from topup.wire.clock import SystemClock

if TYPE_CHECKING:  # reading a limit opens no root key
    from topup.signers.root import RootKey

DAY_S: Final = 86_400
# The chain takes the signed call within this time or never.
LIFE_S: Final = 120
LOOK_S: Final = 0.5
EXPIRES_SOON_S: Final = 30 * DAY_S
LOOKS: Final = 10
SHOW: Final = "topup wallet limit --show"


@dataclass(frozen=True)
class Keys:
    """Whose key it is that may spend which token: account, access key, token, each 20 bytes."""

    account: bytes
    key: bytes
    token: bytes


@dataclass(frozen=True)
class State:
    """What the chain holds of the access key now, and the most that a refill may take."""

    keys: Keys
    permission: Permission
    refill: Usdc

    @property
    def wrong(self) -> PaymentForbidden | None:
        """Return what keeps the key from paying a refill, None where nothing does."""
        may = self.permission
        try:
            usable(may)
        except PaymentForbidden as error:
            return error
        most = may.limit if may.limit is not None else may.left
        if most is not None and most < self.refill:
            says = f"the limit of {self._shown(most)} is less than a refill may cost: {self._shown(self.refill)}"
            return PaymentForbidden(Reason.ACCESS_LIMIT, says, remedy="raise it: `topup wallet limit --amount USD`")
        return None

    @property
    def unwise(self) -> tuple[str, str]:
        """Return what a person should know although it works, and what to do; both "" where there is nothing."""
        may = self.permission
        anew = "make a new key and authorize it with a limit: `topup wallet limit`"
        if may.left is None:
            return "no limit is kept: whoever has the key can spend all that the account holds", anew
        if may.ends_s == 0:
            return "the limit is for once, it does not begin anew", anew
        if may.left < self.refill:
            return f"less is left than the {self._shown(self.refill)} of a refill, until {moment(may.ends_s)}", ""
        if may.expires_s - may.now_s < EXPIRES_SOON_S:
            return f"it expires at {moment(may.expires_s)} and cannot be prolonged", anew
        return "", ""

    def _shown(self, units: Usdc) -> str:
        return _shown(units, self.keys.token)

    def says(self) -> str:
        """Return it in a sentence."""
        may = self.permission
        ends = "never expires" if may.expires_s >= END_OF_CALENDAR_S else f"expires {moment(may.expires_s)}"
        if may.left is None:
            return f"{ends}, no limit"
        rest = f"{self._shown(may.left)} left" + (f" of {self._shown(may.limit)}" if may.limit is not None else "")
        until = f" until {moment(may.ends_s)}" if may.ends_s else ", for once"
        every = f", then anew every {_days(may.period_s)}" if may.period_s else ""
        return f"{ends}, {rest}{until}{every}"

    def lines(self) -> list[str]:
        """Return it for a person."""
        wrong, (unwise, remedy) = self.wrong, self.unwise
        rows = {
            "account": f"0x{self.keys.account.hex()}",
            "access key": f"0x{self.keys.key.hex()}",
            "permission": self.says() if self.permission.expires_s else None,
            "wrong": f"{wrong}{to_do(wrong.remedy)}" if wrong is not None else None,
            "mind": f"{unwise}{to_do(remedy)}" if unwise and wrong is None else None,
        }
        return labelled(12, rows)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON-ready document; what is not learnt or does not exist is null."""
        may, wrong = self.permission, self.wrong
        return {
            "schema": 1,
            "account": "0x" + self.keys.account.hex(),
            "access_key": "0x" + self.keys.key.hex(),
            "token": "0x" + self.keys.token.hex(),
            "authorized": may.expires_s > may.now_s,
            "revoked": may.revoked,
            "expires_at": moment(may.expires_s) if may.expires_s else None,
            "limit_usdc": None if may.limit is None else plain(may.limit.usdc),
            "remaining_usdc": None if may.left is None else plain(may.left.usdc),
            "period_s": may.period_s,
            "period_ends_at": moment(may.ends_s) if may.ends_s else None,
            "wrong": str(wrong) if wrong is not None else self.unwise[0],
            "remedy": wrong.remedy if wrong is not None else self.unwise[1],
        }


@dataclass(frozen=True)
class Proposal:
    """A grant, the call that tells it to the keychain, and what was before."""

    before: State
    grant: tempo.Grant
    call: tempo.Transaction
    fee: Usdc

    @property
    def method(self) -> str:
        """Return what the keychain is told to do."""
        return "updateSpendingLimit" if self.grant.renews else "authorizeKey"

    def lines(self) -> list[str]:
        """Return the exact call, for a person to read before it is signed."""
        grant, call = self.grant, self.call
        renewed = "all of the limit is left again, whatever was spent in this period"
        rows = {
            "call": f"{self.method} of the account keychain 0x{call.to.hex()}, chain {call.chain_id}",
            "signed by": f"the root key of 0x{grant.account.hex()}",
            "for": f"the access key 0x{grant.key.hex()}",
            "limit": f"{_shown(Usdc(grant.units), grant.token)} every {_days(grant.period_s)}, fees included",
            "token": f"0x{grant.token.hex()}",
            "expires": moment(grant.expires_s),
            "may call": None if grant.renews else "nothing but transferWithMemo of that token",
            "at once": renewed if grant.renews else None,
            "network fee": f"at most {_shown(self.fee, grant.token)}",
            "call data": f"0x{call.data.hex()}",
        }
        return [*self.before.lines(), "", *labelled(12, rows)]

    def document(self) -> dict[str, Any]:
        """Return it as a JSON-ready document."""
        grant, call = self.grant, self.call
        return {
            "call": self.method,
            "to": "0x" + call.to.hex(),
            "data": "0x" + call.data.hex(),
            "chain_id": call.chain_id,
            "limit_usdc": plain(Usdc(grant.units).usdc),
            "period_s": grant.period_s,
            "expires_at": moment(grant.expires_s),
            "fee_max_usdc": plain(self.fee.usdc),
        }


def answer(
    wish: tuple[str | None, int | None, int | None],
    root: tuple[Path | None, Path | None],
    *,
    show: bool,
    dry_run: bool,
    yes: bool,
    tell: Callable[[str], None],
) -> Answer:
    """Say what the access key may spend; with an amount, change that once a person agrees.

    `wish` holds the dollars, the days of a period, and the days until the key expires; `root` the files of the root
    key's keystore and of its password. `tell` takes the call, which is to be read before it is signed.
    """
    if wish[0] is not None and not show:
        return _granted(wish, root, dry_run=dry_run, yes=yes, tell=tell)
    if wish[0] is not None:
        raise SettingsError("--show and --amount contradict each other", remedy="choose one")
    state = wait_for(look(load()))
    return Answer(state.document(), state.lines(), Exit.PERSON if state.wrong is not None else Exit.OK)


def _granted(
    wish: tuple[str | None, int | None, int | None],
    root: tuple[Path | None, Path | None],
    *,
    dry_run: bool,
    yes: bool,
    tell: Callable[[str], None],
) -> Answer:
    amount, (_, period_days, expires_days), (keystore, password) = dollars_of(wish[0]), wish, root
    if amount is None or period_days is None:
        raise SettingsError("--period-days is missing", remedy="say how long a period is: --period-days 1")
    if not dry_run and (keystore is None or password is None):
        remedy = "give --root-keystore FILE and --root-password-file FILE, or --dry-run; the daemon never needs them"
        raise SettingsError("the root key of the account is not named", remedy=remedy)
    settings = load()
    proposed = wait_for(propose(settings, amount, period_days, expires_days))
    tell("\n".join(proposed.lines()))
    after, tx_hash, code = None, None, Exit.OK
    if keystore is not None and password is not None and not dry_run:
        key = root_key(settings, keystore, password)
        if agreed("sign and send this?", yes=yes, otherwise="not sent"):
            after, tx_hash = wait_for(send(settings, proposed, key))
        else:
            code = Exit.PERSON
    document = {
        "schema": 1,
        "before": proposed.before.document(),
        "proposed": proposed.document(),
        "tx_hash": "0x" + tx_hash.hex() if tx_hash is not None else None,
        "after": after.document() if after is not None else None,
    }
    if after is None or tx_hash is None:
        return Answer(document, (), code)
    return Answer(document, ["", *labelled(12, {"done by": f"0x{tx_hash.hex()}"}), *after.lines()], code)


def keys_of(connections: Connections) -> Keys:
    """Return the account that pays, and its access key; see `topup/app/keys.py` for what is raised."""
    settings, account, key = connections.settings, connections.payer, connections.access_key
    if settings.rails.mpp.root is None or account is None:
        raise SettingsError(
            "rails.mpp.root is missing: the wallet's key pays from its own account, which no limit of the chain bounds",
            remedy="set rails.mpp.root to the account that pays, and wallet.keystore to a new key without money",
        )
    if key is None:
        raise SettingsError(
            "the wallet's key is missing, or the root key itself",
            remedy="name another key in wallet.keystore: the root key's place is off this machine",
        )
    return Keys(account, key, funding(settings, MPP).dollar.token)


async def look(settings: Settings) -> State:
    """Read what the access key may spend; see `keys_of`, and a ChainError where the chain could not be asked."""
    async with opened(settings) as connections:
        return (await _looked(connections))[0]


async def _looked(connections: Connections) -> tuple[State, Preflight]:
    settings, own = connections.settings, keys_of(connections)
    preflight = await connections.dollars(funding(settings, MPP), own.account)
    assert preflight.permission is not None
    return State(own, preflight.permission, refill(settings)), preflight


def refill(settings: Settings) -> Usdc:
    """Return the most that a refill may take of the limit: the dearest offer, and the most the network may take."""
    return refill_total(settings, None) + Usd(settings.rails.mpp.network_fee_max_usd).usdc_down()


async def propose(settings: Settings, amount: Usd, period_days: int, expires_days: int | None) -> Proposal:
    """Say which call lets the access key spend `amount` in each period; nothing is signed.

    Raises:
        SettingsError, SignerError: see `keys_of`; or what is authorized already cannot be changed to this.
        PaymentForbidden: the account cannot pay the fee, or the key was revoked or has expired.
        ChainError: the chain could not be asked, or would refuse the call.
    """
    funds = funding(settings, MPP)
    async with opened(settings) as connections:
        before, preflight = await _looked(connections)
        own, permission, now_s = before.keys, before.permission, preflight.head.timestamp_s
        if permission.revoked or permission.expires_s:
            usable(permission)
            _changeable(permission, period_days, expires_days)
        expires_s = permission.expires_s or (tempo.NEVER if expires_days is None else now_s + expires_days * DAY_S)
        units, period_s = amount.usdc_up().units, period_days * DAY_S
        grant = tempo.Grant(
            own.account, own.key, own.token, units, period_s, expires_s, renews=permission.expires_s > 0
        )
        gas = await first(connections.providers(funds.urls), lambda rpc: _estimate(rpc, grant))
    price = preflight.base_fee.units * 3 // 2 + preflight.tip.units
    call = tempo.Transaction(
        chain_id=funds.dollar.chain_id,
        gas_price=price,
        # A lane that nothing has used costs more than the estimate knows of.
        gas_limit=gas * 5 // 4 + 300_000,
        to=tempo.KEYCHAIN,
        data=tempo.granting(grant),
        lane=tempo.lane_of(secrets.token_bytes(32)),
        valid_before=now_s + LIFE_S,
        fee_token=own.token,
    )
    fee = gas_dollars(Wei(price), call.gas_limit)
    held = preflight.tokens or Usdc(0)
    if held < fee:
        says = f"the account holds {funds.amount(held)}, the network may take {funds.amount(fee)} for this call"
        remedy = f"send {funds.dollar.asset} on Tempo to 0x{own.account.hex()}"
        raise PaymentForbidden(Reason.WALLET_LOW, says, remedy=remedy)
    return Proposal(before, grant, call, fee)


def root_key(settings: Settings, keystore: Path, password_file: Path) -> RootKey:
    """Open the root key of the account that pays; a SignerError where it is the key of another."""
    from topup.signers import root

    own = keys_of(Connections(settings))  # of which nothing is opened that would have to be closed
    password = files.password(password_file, "--root-password-file")
    key = root.from_keystore(keystore, password, funding(settings, MPP).dollar.chain_id, own.token)
    if key.address != own.account:
        raise SignerError(
            f"the key in --root-keystore is that of 0x{key.address.hex()}, not of 0x{own.account.hex()}",
            remedy="name the keystore of the account in rails.mpp.root, or correct that",
        )
    return key


async def send(settings: Settings, proposed: Proposal, key: RootKey) -> tuple[State, bytes]:
    """Sign the proposed call, hand it to every provider, wait for it; return what the chain holds then, and its hash.

    Raises:
        SignerError: the key refuses.
        ChainError: it ran and failed, or never ran, or whether it did could not be learnt.
    """
    raw, tx_hash = key.sign_grant(proposed.grant, proposed.call)
    async with opened(settings) as connections:
        rpcs = connections.providers(settings.rails.mpp.rpc_urls)
        refused = [await _handed(rpc, raw) for rpc in rpcs]
        if all(refused):
            raise ChainUnknown(f"nobody takes the call: {refused[0]}", remedy="nothing was changed; try again later")
        await _ran(rpcs, tx_hash, proposed.call.valid_before)
        return await _took_hold(connections, proposed.grant), tx_hash


async def _took_hold(connections: Connections, grant: tempo.Grant) -> State:
    """Read the limit again until the providers tell what was granted: one of them may be late."""
    for _ in range(LOOKS):
        after, _ = await _looked(connections)
        may = after.permission
        if may.expires_s == grant.expires_s and may.left is not None and may.limit in (None, Usdc(grant.units)):
            return after
        await SystemClock().sleep(LOOK_S)
    raise ChainUnknown(f"the call ran, but the providers tell: {after.says()}", remedy=f"`{SHOW}` in a minute")


def _changeable(permission: Permission, period_days: int, expires_days: int | None) -> None:
    remedy = "make a new key, name it in wallet.keystore, and authorize that one; then revoke this one"
    if permission.left is None or permission.ends_s == 0:
        raise SettingsError("the key was authorized without a period, and none can be added", remedy=remedy)
    if permission.period_s is None:
        says = "the period of the key could not be learnt: no provider answers for another time"
        raise SettingsError(says, remedy="name another provider in rails.mpp.rpc_urls")
    if permission.period_s != period_days * DAY_S:
        was = _days(permission.period_s)
        raise SettingsError(f"the period of the key is {was} and cannot be changed: --period-days", remedy=remedy)
    if expires_days is not None:
        raise SettingsError(f"the key expires {moment(permission.expires_s)}, which cannot be changed", remedy=remedy)


def _shown(units: Usdc, token: bytes) -> str:
    return f"{plain(units.usdc)} {TEMPO_TOKENS[token]}"


def _days(seconds: int) -> str:
    days, rest = divmod(seconds, DAY_S)
    return f"{seconds} s" if rest else "day" if days == 1 else f"{days} days"


async def _estimate(rpc: Rpc, grant: tempo.Grant) -> int:
    body = {
        "from": "0x" + grant.account.hex(),
        "to": "0x" + tempo.KEYCHAIN.hex(),
        "data": "0x" + tempo.granting(grant).hex(),
    }
    try:
        return quantity(await rpc.read("eth_estimateGas", body), "the gas")
    except RpcError as error:
        raise reason(error) from None


async def _handed(rpc: Rpc, raw: bytes) -> str:
    """Hand the call over; return why it was not taken, "" where it was or may have been."""
    try:
        with rpc.heard():
            await rpc.ask("eth_sendRawTransaction", "0x" + raw.hex())
    except RpcError as error:
        return str(error)
    except ChainError:
        return ""
    return ""


async def _ran(rpcs: list[Rpc], tx_hash: bytes, valid_before: int) -> None:
    clock, shown = SystemClock(), "0x" + tx_hash.hex()
    end_ms = clock.monotonic_ms() + 2 * LIFE_S * 1000
    while clock.monotonic_ms() < end_ms:
        for rpc in rpcs:
            try:
                with rpc.heard():
                    ran, time_s = await _outcome(rpc, shown)
            except ChainError:
                continue
            if ran:
                return
            if ran is False:
                raise ChainUnknown(f"{shown} ran and failed: it cost the network's fee", remedy=f"`{SHOW}`")
            if time_s > valid_before + 60:
                raise ChainUnknown(f"{shown} did not run in time and never will", remedy="try again")
        await clock.sleep(LOOK_S)
    raise ChainUnknown(f"whether {shown} ran could not be learnt", remedy=f"`{SHOW}`, then again: twice does no harm")


async def _outcome(rpc: Rpc, tx_hash: str) -> tuple[bool | None, int]:
    """Return whether it ran and succeeded, None while it has not run, and the newest block's time."""
    newest = head(await rpc.read("eth_getBlockByNumber", "latest", False))
    receipt = await rpc.read("eth_getTransactionReceipt", tx_hash)
    ran = quantity(receipt.get("status"), "the receipt's status") == 1 if isinstance(receipt, dict) else None
    return ran, newest.timestamp_s
