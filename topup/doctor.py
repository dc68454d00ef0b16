"""Is everything in place? One line a check, one remedy a failure; nothing is spent, signed or requested.

The settings come first, because everything depends on them; then ledger, API, key files and providers are looked
at beside each other. What depends on something that failed is skipped and says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topup import assemble, limit
from topup.chain.rpc import Query
from topup.check import Purse, named, network_fee, payer, purse, refill_total, refills
from topup.clock import SystemClock
from topup.credits import LASTING, Reading, believe
from topup.errors import ApiError, ChainError, ChainUnknown, StoreError, TopupError
from topup.exposure import Found, key_file, key_files, settings_file
from topup.money import Asset, EthPrice, Usdc, Wei, deviation_bps_up
from topup.settings import Settings, load
from topup.store.place import exposed
from topup.store.sqlite import SqliteStore
from topup.terms import COINBASE, X402

# Beyond this the deadlines of charges and the freshness of prices can no longer be judged by this machine.
SKEW_MAX_S = 30
# Blocks to go back for a balance: what a payment's books need to be held against the wallet.
HISTORY_BLOCKS = 100
# The payment contract keeps feeDestinations[operator] in this mapping (docs: payment protocol, storage).
FEE_DESTINATIONS_SLOT = 3
REFILLS_LOW = 2


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `says` begins with "skipped:" or "warning:" where that is so."""

    name: str
    ok: bool
    says: str
    remedy: str = ""

    def line(self) -> str:
        """Return the check as a line for a terminal."""
        mark = "skip" if self.says.startswith("skipped:") else "ok" if self.ok else "FAIL"
        if self.ok and self.says.startswith("warning:"):
            mark = "warn"
        to_do = f"; to do: {self.remedy}" if self.remedy else ""
        says = self.says.removeprefix("skipped: ").removeprefix("warning: ")
        return f"{mark:<5} {self.name:<22} {says}{to_do}"

    def document(self) -> dict[str, Any]:
        """Return the check as a JSON-ready document."""
        return {"name": self.name, "ok": self.ok, "says": self.says, "remedy": self.remedy}


def _skipped(names: tuple[str, ...], why: str) -> list[Check]:
    return [Check(name, ok=False, says=f"skipped: {why}") for name in names]


def _failed(name: str, error: TopupError, remedy: str = "") -> Check:
    return Check(name, ok=False, says=str(error), remedy=error.remedy or remedy)


LATER = ("ledger", "api", "key files", "wallet", "recipients", "providers")


async def examine(environ: Mapping[str, str]) -> list[Check]:
    """Look at everything; never raises, and a defect of one look is a failed check."""
    try:
        settings = load(environ)
    except TopupError as error:
        return [_failed("settings", error), *_skipped(LATER, "the settings cannot be read")]
    found = [Check("settings", ok=True, says=f"mode {settings.mode}, account {settings.account}")]
    if (file := settings_file(environ)) is not None and file.wrong:
        found.append(_open(file))
    ledger = await _safely("ledger", _ledger(settings))
    parts = await asyncio.gather(
        _safely("api", _api(settings)),
        _safely("key files", _key_files(settings)),
        _safely("chain", _wallet_and_chain(settings)),
    )
    for part in (ledger, *parts):
        found += part
    return found


async def _safely(name: str, looking: Any) -> list[Check]:
    try:
        found: list[Check] = await looking
    except TopupError as error:
        return [_failed(name, error)]
    except Exception as error:  # noqa: BLE001 - a look that breaks is a finding, not the end of the examination
        says = f"the look itself broke: {type(error).__name__}"
        return [Check(name, ok=False, says=says, remedy="report it")]
    return found


# -- this machine ---------------------------------------------------------------------------------------------


async def _ledger(settings: Settings) -> list[Check]:
    directory = settings.state_dir
    writable = _writable(directory)
    if not writable.ok or not SqliteStore.exists(directory):
        why = "the ledger's directory is of no use" if not writable.ok else "there is no ledger yet"
        return (
            [writable, *_skipped(("ledger", "charge endpoint"), why)]
            if not writable.ok
            else [
                writable,
                Check("ledger", ok=True, says="there is none yet; the first start creates it"),
                Check("charge endpoint", ok=True, says="never asked from this ledger"),
            ]
        )
    store = SqliteStore.open_reader(directory)
    try:
        damage, gone = store.damage(), store.control(settings.account).gone
    finally:
        store.close()
    pid = SqliteStore.holder(directory)
    held = f"held by process {pid}" if pid else "held by nobody that can be seen"
    return [
        writable,
        Check("ledger", ok=damage is None, says=damage or f"whole, of this program's version, {held}",
              remedy="" if damage is None else "restore it from a backup, see docs/runbook.md"),
        Check("rails", ok=not gone,
              says=f"{', '.join(sorted(gone))} answered that it is gone (410, 404 or 501), is not asked again" if gone
              else "none on record as gone; a charge is not asked for here, because every request is one",
              remedy="choose another in rails.use, or a gateway that serves it, then `topup resume`" if gone else ""),
    ]  # fmt: skip


def _writable(directory: Path) -> Check:
    name = "state directory"
    near = next(p for p in (directory, *directory.parents) if p.exists())
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        return Check(name, ok=False, says=f"{near} cannot be written", remedy=f"make it writable for uid {os.getuid()}")
    if near != directory:
        return Check(name, ok=True, says=f"{directory} will be created")
    if wrong := exposed(directory):
        return Check(name, ok=False, says=wrong, remedy=f"chmod -R go= {directory}")
    return Check(name, ok=True, says=str(directory))


async def _key_files(settings: Settings) -> list[Check]:
    wallet = settings.wallet
    found = []
    for name, path in key_files(settings).items():
        try:
            found.append(_open(key_file(name, path)))
        except OSError as error:
            says = f"{path} cannot be looked at ({type(error).__name__})"
            found.append(Check(name, ok=False, says=says, remedy=f"correct {name}, mount it, or its permissions"))
    if wallet.private_key is not None or wallet.private_key_file is not None:
        says = "warning: a raw private key is in use; whoever reads it owns the wallet"
        found.append(Check("raw private key", ok=True, says=says, remedy="use a keystore with a password file"))
    return found


def _open(found: Found) -> Check:
    """Say who else can read a file; where nobody can change that here, it is a warning."""
    close = "chmod o=" if found.name == "settings file" else "chmod 600"
    remedy = f"{close} {found.path}" if found.wrong and not found.passable else ""
    if found.wrong and found.passable:
        remedy = "mount it with a mode that lets no other user read it, such as defaultMode 0400"
    return Check(found.name, ok=not found.wrong or found.passable, says=found.says, remedy=remedy)


# -- the API --------------------------------------------------------------------------------------------------


async def _api(settings: Settings) -> list[Check]:
    names = ("api key", "credits", "clock and API")
    clock = SystemClock()
    try:
        client = assemble.api(settings, clock)
    except TopupError as error:
        return [_failed("api", error), *_skipped(names, "the API cannot be asked like this")]
    try:
        try:
            key = await client.key()
        except ApiError as error:
            return [_failed("api", error, "check api.url and the network"), *_skipped(names, "the API gave no answer")]
        host = urlsplit(settings.api.url).hostname
        found = [
            Check("api", ok=True, says=f"{host} answers"),
            Check("api key", ok=key.management, says="a management key" if key.management else "an ordinary key",
                  remedy="" if key.management else "create a management key: an ordinary one reads no credits"),
        ]  # fmt: skip
        try:
            said = await client.credits()
        except ApiError as error:
            found.append(_failed("credits", error, "see what the API says of the request"))
        else:
            found.append(_credits(settings, said, management=key.management))
        return [*found, _skew("clock and API", _date_s(client.date), clock.now_ms() // 1000)]
    finally:
        await client.close()


def _credits(settings: Settings, said: Reading, *, management: bool) -> Check:
    store = SqliteStore.open_copy(settings.state_dir)
    try:
        last, ever = store.last_reading(settings.account), store.ever_non_zero(settings.account)
        doubted = store.doubted(settings.account, last.at_ms) if last is not None else []
    finally:
        store.close()
    judged = believe(
        said,
        management_key=management,
        last=last,
        ever_non_zero=ever,
        doubted=doubted,
        usage_fall_max=assemble.limits(settings).usage_fall_max,
    )
    if isinstance(judged, Reading):
        return Check("credits", ok=True, says=f"{judged.balance} dollars, believed")
    remedy = "correct api.key" if judged.doubt in LASTING else "`topup resolve --accept-reading` after a day of it"
    return Check("credits", ok=False, says=f"not believed: {judged.detail}", remedy=remedy)


def _date_s(date: str) -> int | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _skew(name: str, theirs_s: int | None, ours_s: int) -> Check:
    if theirs_s is None:
        return Check(name, ok=True, says="unknown: no date was told")
    off = ours_s - theirs_s
    says = f"this machine is {abs(off)} s {'ahead' if off >= 0 else 'behind'}"
    right = abs(off) <= SKEW_MAX_S
    return Check(name, ok=right, says=says, remedy="" if right else "set this machine's clock, with NTP")


# -- the chain ------------------------------------------------------------------------------------------------

CHAIN_LOOKS = ("contract", "operators", "quotes", "price feed", "sequencer feed", "gas oracle", "wallet balance")


@dataclass(frozen=True)
class _Chain:
    """A chain as one rail asks it.

    `before` stands before the names of its checks, `said` is the setting that names the providers `urls`, of which
    `wanted` have to agree; `remedy` is for those of another chain. `simulates` runs nothing dry, `old` asks for a
    balance at a block, `logs` is what is looked for, without which `lost` is lost. `alone` says what a single owner
    cannot show, and what two could.
    """

    before: str
    chain_id: int
    said: str
    remedy: str
    urls: tuple[str, ...]
    wanted: int | None
    simulates: Query | None
    old: Callable[[str], Query]
    logs: Mapping[str, Any]
    lost: str
    alone: tuple[str, str]


def _of_ours(settings: Settings, wallet: bytes | None) -> _Chain:
    """Return the chain to which the wallet itself sends what pays a Coinbase charge."""
    address = "0x" + (wallet or bytes(20)).hex()
    nothing = {"from": address, "to": address, "value": "0x0"}
    return _Chain(
        before="",
        chain_id=settings.chain.id,
        said="chain.rpc_urls",
        remedy="correct chain.rpc_urls or chain.id",
        urls=settings.chain.rpc_urls,
        wanted=settings.chain.quorum,
        simulates=("eth_simulateV1", [{"blockStateCalls": [{"calls": [nothing]}]}, "latest"]),
        old=lambda block: ("eth_getBalance", [address, block]),
        logs={"address": "0x" + assemble.profile(settings).contract.hex()},
        lost="it cannot bear out that an expired charge was never paid",
        alone=(
            "one provider: payments run, but an expired charge needs a person",
            "two can prove that a charge was never paid",
        ),
    )


def _of_others(one: Purse, own: bytes | None) -> _Chain:
    """Return the chain to which the seller carries what was signed."""
    from topup.chain.traces import TRANSFER, balance

    holder, token = own or bytes(20), one.dollar.token
    return _Chain(
        before=f"{one.rail} ",
        chain_id=one.dollar.chain_id,
        said=one.said,
        remedy=f"correct {one.said}",
        urls=one.urls,
        wanted=one.wanted,
        simulates=None,
        old=lambda block: balance(token, holder, block),
        logs={"address": "0x" + token.hex(), "topics": ["0x" + TRANSFER.hex(), "0x" + holder.rjust(32, b"\0").hex()]},
        lost="it cannot bear out that an authorization was never used",
        alone=(
            "one owner: payments run, but that an unused authorization is dead cannot be proven: its top-up will HALT",
            "two can prove that an authorization was never used",
        ),
    )


async def _wallet_and_chain(settings: Settings) -> list[Check]:
    # A keystore takes a second of computing to open; the other looks go on meanwhile.
    found, wallet = await asyncio.to_thread(_wallet, settings)
    found += _recipients(settings)
    looks = [
        _safely("chain", _ours(settings, wallet))
        if rail == COINBASE
        else _safely(f"{rail} chain", _others(settings, purse(settings, rail), wallet))
        for rail in settings.rails.use
    ]
    for part in await asyncio.gather(*looks):
        found += part
    return found


async def _providers(settings: Settings, rpcs: Sequence[Any], chain: _Chain) -> tuple[list[Check], list[Any]]:
    """Look at a chain's providers, and return those that the other looks may use."""
    hosts = [rpc.host for rpc in rpcs]
    called = [rpc.host if hosts.count(rpc.host) == 1 else rpc.name for rpc in rpcs]
    looks = await asyncio.gather(
        *(_provider(settings, rpc, chain, f"{chain.before}provider {n}") for rpc, n in zip(rpcs, called, strict=True))
    )
    good = [rpc for rpc, (_, right) in zip(rpcs, looks, strict=True) if right]
    return [*(check for look, _ in looks for check in look), _agreement(chain, good)], good


async def _others(settings: Settings, one: Purse, wallet: bytes | None) -> list[Check]:
    """Look at the chain of a rail whose seller carries the payment: its providers, its dollar, and who pays."""
    from topup.chain.rpc import Rpc

    own = payer(settings) if settings.rails.mpp.root is not None else wallet
    key = None if own == wallet else wallet
    rpcs = [Rpc(url, timeout_s=settings.chain.timeout_s) for url in one.urls]
    try:
        found, good = await _providers(settings, rpcs, _of_others(one, own))
        if not good:
            return [*found, *_skipped((f"{one.rail} balance",), "no provider can be asked")]
        found += await _safely(f"{one.rail} balance", _dollars(settings, good[0], one, own, key))
        if one.rail == X402:
            found += [_seller(settings), *await _code(good, own)]
        return found
    finally:
        for rpc in rpcs:
            await rpc.close()


def _seller(settings: Settings) -> Check:
    """Say by whose record the seller is asked, and how far that can be relied on."""
    says = assemble.seller(settings).says()
    return Check("x402 seller", ok=True, says=f"{says}; `topup doctor --rail x402` shows what it offers")


async def _code(rpcs: Sequence[Any], own: bytes | None) -> list[Check]:
    """Say what the wallet's code means to whoever verifies its signatures."""
    from topup.x402_look import CODE_REMEDY, code

    name = "x402 signatures"
    if own is None:
        return []
    said = await code(rpcs, own)
    if said is None:
        return [Check(name, ok=True, says="unknown: no provider told the wallet's code")]
    if said:
        return [Check(name, ok=True, says=f"warning: {said}", remedy=CODE_REMEDY)]
    return [Check(name, ok=True, says="the wallet has no code: its key alone signs for it")]


async def _dollars(settings: Settings, rpc: Any, one: Purse, own: bytes | None, key: bytes | None) -> list[Check]:
    from topup.chain.token import survey

    name, live = f"{one.rail} balance", settings.mode == "live"
    if own is None:
        return _skipped((name,), "no wallet is known") if live else []
    now, found = await survey(rpc, one.dollar.chain_id, own, one.dollar.token, (), key), []
    if key is not None and now.permission is not None:
        found.append(
            _access_key(
                limit.State(limit.Keys(own, key, one.dollar.token), now.permission, limit.refill(settings)), live=live
            )
        )
    if one.dollar.pays_fee:
        fee = network_fee(one, now)
        right = fee <= one.fee_max
        says = f"at most {one.amount(fee)} for a payment now, the ceiling is {one.amount(one.fee_max)}"
        remedy = "" if right else "wait, or raise rails.mpp.network_fee_max_usd"
        found.append(Check(f"{one.rail} network fee", ok=right, says=says, remedy=remedy))
    each = refill_total(settings, None) + one.fee_max
    held = now.tokens or Usdc(0)
    count = held.units // each.units
    says = f"{one.amount(held)} on {one.chain} covers {count} refills of at most {one.amount(each)}, fees included"
    enough = count >= 1 or not live
    says = says if count >= REFILLS_LOW or not enough else f"warning: {says}"
    bridged = ", brought there by hand: topup never bridges" if one.dollar.asset is Asset.USDC_E else ""
    remedy = "" if count >= REFILLS_LOW else f"send {one.dollar.asset} on {one.chain} to 0x{own.hex()}{bridged}"
    return [*found, Check(name, ok=enough, says=says, remedy=remedy)]


def _access_key(state: limit.State, *, live: bool) -> Check:
    """Say what the chain lets the wallet's key spend of the account that pays."""
    name, wrong, (unwise, remedy) = "mpp access key", state.wrong, state.unwise
    if wrong is not None:
        return Check(name, ok=not live, says=("" if live else "warning: ") + str(wrong), remedy=wrong.remedy)
    return Check(name, ok=True, says=f"warning: {state.says()}: {unwise}" if unwise else state.says(), remedy=remedy)


async def _ours(settings: Settings, wallet: bytes | None) -> list[Check]:
    """Look at the chain to which the wallet itself sends payments: providers, contract, prices, wallet."""
    rpcs = assemble.providers(settings)
    try:
        found, good = await _providers(settings, rpcs, _of_ours(settings, wallet))
        if not good:
            return [*found, *_skipped(CHAIN_LOOKS, "no provider can be asked")]
        for part in await asyncio.gather(
            _safely("contract", _contract(settings, good[0])),
            _safely("prices", _prices(settings, good[0], wallet)),
        ):
            found += part
    finally:
        for rpc in rpcs:
            await rpc.close()
    return found


def _wallet(settings: Settings) -> tuple[list[Check], bytes | None]:
    own = settings.wallet.address
    try:
        key = assemble.signer(settings)
    except TopupError as error:
        return [_failed("wallet", error)], bytes.fromhex(own[2:]) if own else None
    if key is not None:
        shown = "0x" + key.address.hex()
        if own is not None and own != shown:
            remedy = "correct or remove wallet.address"
            return [
                Check("wallet", ok=False, says=f"the key is {shown}, wallet.address says {own}", remedy=remedy)
            ], None
        return [Check("wallet", ok=True, says=f"the key opens: {shown}")], key.address
    if own is None:
        return [Check("wallet", ok=True, says="no key and no address: topup only watches")], None
    return [Check("wallet", ok=True, says=f"{own}, without a key: topup only watches")], bytes.fromhex(own[2:])


def _recipients(settings: Settings) -> list[Check]:
    """Say who may be paid by each rail in use."""
    found = [_pinned(settings)] if COINBASE in settings.rails.use else []
    for one in named(settings):
        says = f"{len(one.recipients)} named {one.whose}" if one.recipients else f"warning: anybody, {one.whose}"
        found.append(Check(f"{one.rail} recipients", ok=True, says=says, remedy=one.remedy))
    return found


def _pinned(settings: Settings) -> Check:
    try:
        store = SqliteStore.open_copy(settings.state_dir)
        try:
            learnt = store.told(settings.account, assemble.PINNED)
        finally:
            store.close()
    except TopupError as error:
        return _failed("recipients", error)
    count = len(assemble.pins(settings, learnt).recipients)
    if count:
        return Check("recipients", ok=True, says=f"{count} pinned")
    live = settings.mode == "live"
    says = ("" if live else "warning: ") + "none is pinned, so every charge is refused"
    return Check("recipients", ok=not live, says=says, remedy="`topup pin`")


def _agreement(chain: _Chain, good: Sequence[Any]) -> Check:
    """Say how many providers bear each other out, and what that is enough for."""
    from topup.chain.owners import owner, quorum

    name, urls = f"{chain.before}providers", chain.urls
    owners = {owner(url) for url in urls}
    needed = quorum(urls, chain.wanted)
    several = f"{len(urls)} URLs of {len(owners)} owner{'s' if len(owners) > 1 else ''}"
    here = any(one.startswith("loopback:") for one in owners)
    kinds = "two names of one port of this machine" if here else "two of one registrable domain"
    twice = f"{several}: {kinds} count as one; " if len(urls) > len(owners) else ""
    believed = len({rpc.owner for rpc in good})
    if believed < needed:
        says = f"{needed} of different owners have to agree, and {believed} can be believed now: topup waits"
        return Check(name, ok=False, says=says, remedy="see each provider above, or add one of another owner")
    if len(owners) == 1:
        says, why = chain.alone
        remedy = f"add a provider of another owner to {chain.said}: {why}"
        return Check(name, ok=True, says=f"warning: {twice}{says}", remedy=remedy)
    if needed == 1:
        setting = chain.said.replace("rpc_urls", "quorum")
        says = f"warning: {twice}{setting} = 1: whichever answers first is believed alone"
        return Check(name, ok=True, says=says, remedy=f"remove {setting}, so that two have to agree")
    return Check(name, ok=True, says=f"{twice}{len(owners)} owners, of which {needed} have to agree")


async def _provider(settings: Settings, rpc: Any, chain: _Chain, name: str) -> tuple[list[Check], bool]:
    """Ask one provider what it is and can; tell whether the other looks may use it."""
    from topup.chain.rpc import RpcError, known, quantity

    try:
        chain_id, newest, safe, final, *simulated = await rpc.batch(
            [
                ("eth_chainId", []),
                ("eth_getBlockByNumber", ["latest", False]),
                ("eth_getBlockByNumber", ["safe", False]),
                ("eth_getBlockByNumber", ["finalized", False]),
                *([chain.simulates] if chain.simulates is not None else []),
            ]
        )
        said = quantity(known(chain_id, "eth_chainId"), "the chain id")
        block = known(newest, "the newest block")
        if not isinstance(block, dict):
            raise ChainUnknown("it has no newest block")
        height, time_s = quantity(block.get("number"), "its number"), quantity(block.get("timestamp"), "its time")
        back = hex(max(0, height - HISTORY_BLOCKS))
        since = {**chain.logs, "fromBlock": back, "toBlock": "latest"}
        ended = quantity(final.get("number"), "the final block's number") if isinstance(final, dict) else None
        then = [chain.old(hex(ended))] if ended is not None else []
        old, logs, *held = await rpc.batch([chain.old(back), ("eth_getLogs", [since]), *then])
    except ChainError as error:
        return [_failed(name, error, f"check {chain.said} and the network")], False
    if said != chain.chain_id:
        says = f"speaks for chain {said}, not {chain.chain_id}"
        return [Check(name, ok=False, says=says, remedy=chain.remedy)], False
    skew = _skew(f"{name} clock", time_s, SystemClock().now_ms() // 1000)
    age = SystemClock().now_ms() // 1000 - time_s
    if age > SKEW_MAX_S:
        late = age > settings.chain.head_age_max_s
        remedy = "use another provider, or set this machine's clock" if late else ""
        skew = Check(skew.name, ok=not late, says=f"its newest block is {age} s old", remedy=remedy)
    lacks = [
        what
        for what, answer in (("safe blocks", safe), ("finalized blocks", final))
        if isinstance(answer, RpcError) or not answer
    ]
    found = [Check(name, ok=True, says=f"chain {said}, block {height}"), skew]
    finality = f"{name} finality"
    if lacks:
        remedy = "use another provider: without them nothing is ever settled"
        found.append(Check(finality, ok=False, says="serves no " + " and no ".join(lacks), remedy=remedy))
    else:
        found.append(Check(finality, ok=True, says="serves safe and finalized blocks"))
    without = "payments are proven by eth_call alone"
    found += [_ability(f"{name} simulation", "eth_simulateV1", answer, without) for answer in simulated]
    found.append(_ability(f"{name} history", "old balances", old, "the wallet's balance cannot verify older payments"))
    found += [_final_state(f"{name} final state", answer) for answer in held]
    found.append(_ability(f"{name} logs", "the contract's logs", logs, chain.lost))
    return found, True


def _final_state(name: str, answer: Any) -> Check:
    """Say whether the wallet's books can be held against the chain: a node may have forgotten what is final."""
    from topup.chain.rpc import known, quantity

    try:
        quantity(known(answer, "the balance"), "the balance")
    except ChainUnknown as error:
        says = f"warning: no balance at the final block: the wallet's books cannot be held against the chain ({error})"
        return Check(name, ok=True, says=says, remedy="a provider that keeps the state of final blocks")
    return Check(name, ok=True, says="tells the balance at the final block")


def _ability(name: str, what: str, answer: Any, without: str) -> Check:
    """A provider that lacks this still serves; the owner should know what is lost."""
    from topup.chain.rpc import RpcError

    if isinstance(answer, RpcError):
        remedy = f"a provider that serves {what} proves more"
        return Check(name, ok=True, says=f"warning: no {what}: {without}", remedy=remedy)
    return Check(name, ok=True, says=f"serves {what}")


async def _contract(settings: Settings, rpc: Any) -> list[Check]:
    from eth_utils.crypto import keccak

    from topup.chain.contracts import encode, returned
    from topup.chain.rpc import known, unhex
    from topup.chain.survey import call

    chain = assemble.profile(settings)
    contract = "0x" + chain.contract.hex()
    slots = [keccak(o.rjust(32, b"\0") + FEE_DESTINATIONS_SLOT.to_bytes(32, "big")) for o in sorted(chain.operators)]
    code, stopped, *registered = await rpc.batch(
        [
            ("eth_getCode", [contract, "latest"]),
            call(chain.contract, encode("payment_protocol", "paused"), "latest"),
            *(("eth_getStorageAt", [contract, "0x" + slot.hex(), "latest"]) for slot in slots),
        ]
    )
    held = unhex(known(code, "the contract's code"), "the contract's code")
    if not held:
        says = f"there is no contract at {contract}: ETH sent there would be lost"
        missing = Check("contract", ok=False, says=says, remedy="correct rails.coinbase.contract")
        return [missing, *_skipped(("operators",), "there is no contract")]
    shown = "0x" + keccak(held).hex()
    pinned = chain.contract_code_hash
    if pinned is None:
        first = Check("contract", ok=True, says=f"warning: its code is not pinned; its hash is {shown}",
                      remedy="set chain.contract_code_hash to it once you trust it")  # fmt: skip
    else:
        right = "0x" + pinned.hex() == shown
        says = f"code as pinned, {shown}" if right else f"code hash {shown}, pinned is 0x{pinned.hex()}"
        remedy = "" if right else "find out why before you change chain.contract_code_hash"
        first = Check("contract", ok=right, says=says, remedy=remedy)
    (paused,) = returned(["bool"], unhex(known(stopped, "paused()"), "paused()"), "paused()")
    second = Check("contract paused", ok=not paused, says="it takes no payments now" if paused else "no",
                   remedy="wait until its owner resumes it" if paused else "")  # fmt: skip
    absent = [
        f"0x{operator.hex()}"
        for operator, answer in zip(sorted(chain.operators), registered, strict=True)
        if not int.from_bytes(unhex(known(answer, "a slot"), "a slot"), "big")
    ]
    says = f"not registered: {', '.join(absent)}" if absent else f"{len(chain.operators)} registered"
    remedy = "check rails.coinbase.operators with your gateway" if absent else ""
    return [first, second, Check("operators", ok=not absent, says=says, remedy=remedy)]


async def _prices(settings: Settings, rpc: Any, wallet: bytes | None) -> list[Check]:
    from topup.chain.contracts import encode
    from topup.chain.rpc import known, quantity
    from topup.chain.survey import call

    chain = assemble.profile(settings)
    total = refill_total(settings, None)
    newest = known(await rpc.ask("eth_getBlockByNumber", "latest", False), "the newest block")
    time_s = quantity(newest.get("timestamp"), "its time")
    feeds = [f for f in (chain.price_feed, chain.sequencer_feed) if f is not None]
    ahead = [call(f, encode("aggregator_v3", "latestRoundData"), "latest") for f in feeds]
    tiers = [
        call(
            chain.quoter,
            encode(
                "quoter_v2",
                "quoteExactOutputSingle",
                (chain.wrapped_native, chain.currency, total.units, tier, 0),
            ),
            "latest",
        )
        for tier in chain.tiers
    ]
    answers = await rpc.batch([*ahead, *tiers])
    rounds = iter(answers[: len(feeds)])
    price_check, price = _price_feed(settings, next(rounds) if chain.price_feed is not None else None, time_s)
    found = [price_check, _sequencer(settings, next(rounds) if chain.sequencer_feed is not None else None, time_s)]
    found += _quotes(settings, dict(zip(chain.tiers, answers[len(feeds) :], strict=True)), price, total)
    found.append(await _gas_oracle(settings, rpc))
    return [*found, *await _holdings(settings, rpc, wallet, price, total)]


def _price_feed(settings: Settings, answer: Any, time_s: int) -> tuple[Check, EthPrice | None]:
    from topup.chain.contracts import returned
    from topup.chain.rpc import known, unhex
    from topup.chain.survey import ROUND

    name, chain = "price feed", assemble.profile(settings)
    if answer is None:
        return Check(name, ok=True, says="warning: switched off; no payment's price is judged"), None
    try:
        round_id, price, _, updated_s, answered_in = returned(ROUND, unhex(known(answer, name), name), name)
    except ChainError as error:
        return _failed(name, error, "correct chain.price_feed"), None
    age = time_s - updated_s
    says = f"{EthPrice(price).usd} dollars for one ETH, {age} s old"
    if price <= 0 or answered_in < round_id or age > chain.price_feed_age_s:
        remedy = f"wait for a fresh round (at most {chain.price_feed_age_s} s), or correct chain.price_feed"
        return Check(name, ok=False, says=says, remedy=remedy), None
    return Check(name, ok=True, says=says), EthPrice(price)


def _sequencer(settings: Settings, answer: Any, time_s: int) -> Check:
    from topup.chain.contracts import returned
    from topup.chain.rpc import known, unhex
    from topup.chain.survey import ROUND

    name, chain = "sequencer feed", assemble.profile(settings)
    if answer is None:
        return Check(name, ok=True, says="warning: switched off; an outage of the chain goes unnoticed")
    try:
        _, down, since_s, _, _ = returned(ROUND, unhex(known(answer, name), name), name)
    except ChainError as error:
        return _failed(name, error, "correct chain.sequencer_feed")
    if down or time_s - since_s < chain.sequencer_grace_s:
        says = "the chain's sequencer is down" if down else f"the sequencer is up for only {time_s - since_s} s"
        return Check(name, ok=False, says=says, remedy=f"wait until it has been up for {chain.sequencer_grace_s} s")
    return Check(name, ok=True, says=f"up for {(time_s - since_s) // 3600} h")


def _quotes(settings: Settings, told: dict[int, Any], price: EthPrice | None, total: Usdc) -> list[Check]:
    from topup.chain.contracts import returned
    from topup.chain.rpc import RpcError, unhex

    found, best = [], None
    for tier, answer in told.items():
        name = f"quote tier {tier}"
        if isinstance(answer, RpcError):
            found.append(Check(name, ok=True, says=f"warning: no quote: {answer.message[:100]}"))
            continue
        try:
            amount = returned(["uint256", "uint160", "uint32", "uint256"], unhex(answer, name), name)[0]
        except ChainError as error:
            found.append(_failed(name, error, "correct chain.quoter"))
            continue
        quote = Wei(int(amount))
        off = deviation_bps_up(quote, price.wei_for_up(total)) if price is not None else None
        found.append(Check(name, ok=True, says=f"{quote} for {total}" + (f", {off} from the feed" if off else "")))
        best = off if best is None or (off is not None and off < best) else best
    if not any(c.ok and not c.says.startswith("warning:") for c in found):
        remedy = "check chain.quoter and chain.tiers"
        return [*found, Check("quotes", ok=False, says="no tier quotes a refill", remedy=remedy)]
    ceiling = settings.price.deviation_bps - settings.price.slippage_bps
    if best is not None and best.bps > ceiling:
        says = f"the best quote is {best} from the feed: with the slippage it passes price.deviation_bps"
        return [*found, Check("quotes", ok=False, says=says, remedy="wait for the pool, or raise price.deviation_bps")]
    return found


async def _gas_oracle(settings: Settings, rpc: Any) -> Check:
    from topup.chain.contracts import encode, returned
    from topup.chain.rpc import unhex
    from topup.chain.survey import call

    name, oracle = "gas oracle", assemble.profile(settings).gas_oracle
    if oracle is None:
        return Check(name, ok=True, says="this chain has none")
    try:
        method, body = call(oracle, encode("gas_price_oracle", "getL1FeeUpperBound", 800), "latest")
        (fee,) = returned(["uint256"], unhex(await rpc.ask(method, *body), name), name)
    except ChainError as error:
        return _failed(name, error, "check chain.id and the provider")
    return Check(name, ok=True, says=f"a payment's L1 data fee is at most {Wei(fee)}")


async def _holdings(
    settings: Settings, rpc: Any, wallet: bytes | None, price: EthPrice | None, total: Usdc
) -> list[Check]:
    from topup.chain.rpc import known, quantity

    if wallet is None:
        return _skipped(("wallet balance", "wallet nonce"), "no wallet is known") if settings.mode == "live" else []
    me = "0x" + wallet.hex()
    held, latest, pending = await rpc.batch(
        [
            ("eth_getBalance", [me, "latest"]),
            ("eth_getTransactionCount", [me, "latest"]),
            ("eth_getTransactionCount", [me, "pending"]),
        ]
    )
    balance = Wei(quantity(known(held, "the balance"), "the balance"))
    if price is None:
        first = Check(
            "wallet balance", ok=True, says=f"{balance}; how many refills that is, is unknown without a price"
        )
    else:
        count = refills(balance, assemble.wei(settings.wallet.reserve_eth), price, total)
        says = f"{balance} covers {count} refills of at most {total} above the reserve"
        enough = count >= 1 or settings.mode != "live"
        says = says if count >= REFILLS_LOW or not enough else f"warning: {says}"
        first = Check(
            "wallet balance", ok=enough, says=says, remedy="" if count >= REFILLS_LOW else f"send ETH to {me}"
        )
    used = quantity(known(latest, "the nonce"), "the nonce")
    waiting = quantity(known(pending, "the pending nonce"), "the pending nonce") - used
    says = f"{used}, {waiting} pending" if waiting else f"{used}, nothing pending"
    remedy = "wait for them; when they are not topup's, use this wallet for nothing else" if waiting else ""
    return [
        first,
        Check("wallet nonce", ok=not waiting, says=says, remedy=remedy),
        _known_nonce(settings, wallet, used),
    ]


def _known_nonce(settings: Settings, wallet: bytes, used: int) -> Check:
    """Hold the wallet's transactions against those the ledger knows of: a lost ledger, or a second user of the key."""
    name = "ledger nonce"
    try:
        store = SqliteStore.open_copy(settings.state_dir)
    except StoreError:
        known = 0
    else:
        known = store.next_nonce(settings.chain.id, wallet)
        store.close()
    if used <= known:
        return Check(name, ok=True, says=f"the ledger knows of {known} transactions of the wallet")
    says = f"the wallet has sent {used} transactions, the ledger knows of {known}: nothing will be signed"
    remedy = "`topup reconcile` names what was sent, and takes it over with --adopt"
    return Check(name, ok=settings.mode != "live", says=says, remedy=remedy)
