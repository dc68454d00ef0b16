"""Does the account's owner bound the daemon's key, and does the daemon keep to that before it costs anything?"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from tests.tools import kept, require
from tests.world import builders
from tests.world.owner import HELD, KEY, ROOT, TOKEN, Owner, account, shown
from tests.world.stage import Stage
from tests.world.tempo import held, stage_of
from tests.world.tempo_payments import AUTHORIZE, RESTRICTIONS, Chain, paying, raw_of
from topup.app.settings import load
from topup.chain import agreement
from topup.chain.agreement import Answers, Disagreement, Vote
from topup.chain.rpc import Query, Rpc
from topup.chain.token_chain import preflight_of
from topup.commands import wallet_limit
from topup.domain import tempo
from topup.domain.errors import ChainUnknown, Exit, PaymentForbidden, SignerError
from topup.domain.lifecycle import Broadcaster, State
from topup.domain.money import Asset, Bps, EthPrice, Usd, Usdc, Wei
from topup.domain.policy import Ceilings, Permission, Wallet, permit
from topup.payment.config import PurchaseOrder
from topup.ports.chain import Head, Preflight
from topup.sandbox.purchases import RECIPIENT
from topup.sandbox.tempo import CHAIN_ID, USDC_E, Tempo
from topup.signers import root


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """Who owns an account, and has granted nothing yet."""
    with account() as world:
        yield Owner(world, tmp_path)


def on(owner: Owner) -> Stage:
    more = {"TOPUP_POLICY__COOLDOWN_S": "0", "TOPUP_POSTING__POLL_S": "20"}
    return stage_of(owner.world, owner.directory / "state", TOPUP_RAILS__MPP__ROOT=shown(ROOT), **more)


async def test_within_the_limit_it_pays_and_beyond_it_nothing_is_signed(owner: Owner) -> None:
    """The owner grants 15 dollars a day by the command: the first top-up of 10 is paid, the second costs no fee."""
    granted = owner.sets("15", "--yes")
    assert granted.returncode == Exit.OK, granted.stderr
    stage = on(owner)
    assert (await stage.until(State.DONE)).wallet == ROOT
    left = held(stage, shown(ROOT))
    said = owner.doctor()
    assert said["ok"] and "4.98" in said["says"] and "of 15 USDC.e" in said["says"], said
    await stage.step(PurchaseOrder(Usd.of(10), forced=True))
    await stage.rests("access_limit")
    (told,) = stage.named("payment_forbidden")
    assert "may still spend 4.98" in told.detail and "of 15 USDC until 20" in told.detail
    assert told.remedy.startswith("wait until 20") and "topup wallet limit" in told.remedy
    assert stage.topup.out == ()
    assert (held(stage, shown(ROOT)), held(stage, RECIPIENT)) == (left, 10_000_000)
    again = owner.sets("30", "--yes")
    assert again.returncode == Exit.OK, again.stderr
    await stage.until(State.PAID, State.CREDITED, State.DONE)
    assert held(stage, RECIPIENT) == 20_000_000
    await stage.close()


async def test_what_is_used_up_after_the_look_reverts_and_moves_nothing(owner: Owner) -> None:
    """Another use of the key between look and block: the chain itself keeps the limit, and only the fee is lost."""
    assert owner.sets("5", "--yes").returncode == Exit.OK
    stage = on(owner)
    rail: Any = stage.works.rail()
    rail._access_key = lambda _: None
    before = held(stage, shown(ROOT))
    topup = await stage.until(State.DEATHWATCH)
    assert topup.reason == "reverted for good: reverted: it moved nothing, and was used up"
    assert [one.topup_id for one in stage.named("payment_reverted")] == [topup.id]
    assert held(stage, RECIPIENT) == 0
    assert 0 < before - held(stage, shown(ROOT)) < 30_000
    await stage.close()


async def test_a_key_that_was_never_authorized_signs_nothing(owner: Owner) -> None:
    """The rail waits, doctor and --show fail, all of them naming the command that helps."""
    stage = on(owner)
    await stage.rests("access_key")
    assert stage.topup.out == ()
    await stage.close()
    said = owner.doctor()
    assert not said["ok"] and "topup wallet limit --amount" in said["remedy"]
    none = owner.types("wallet", "limit", "--show")
    assert none.returncode == Exit.PERSON
    assert "knows no such access key" in none.stdout
    assert held(stage, shown(ROOT)) == HELD


def test_the_call_is_shown_before_anything_is_signed(owner: Owner) -> None:
    """Neither --dry-run nor a pipe without --yes changes the chain; both print the call in full.

    Where the root key is, the daemon's keystore is enough: its address stands in it, and no password opens it.
    """
    stated = {"version": 3, "address": owner.world.wallet[2:].lower()}
    keystore = kept(owner.directory / "daemons.json", json.dumps(stated))
    elsewhere = {
        "TOPUP_MODE": None,
        "TOPUP_API__KEY": None,
        "TOPUP_WALLET__PRIVATE_KEY": None,
        "TOPUP_WALLET__ADDRESS": shown(ROOT),
        "TOPUP_WALLET__KEYSTORE": str(keystore),
        "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(owner.password),
    }
    asked = ("wallet", "limit", "--amount", "15", "--period-days", "1", "--dry-run")
    dry, piped = owner.types(*asked, **elsewhere), owner.sets("15")
    assert (dry.returncode, piped.returncode) == (Exit.OK, Exit.PERSON), dry.stderr
    for one in (dry, piped):
        assert "authorizeKey of the account keychain 0xaaaaaaaa" in one.stdout
        assert "15 USDC.e every day, fees included" in one.stdout
        assert owner.world.wallet.lower() in one.stdout
    assert not owner.reads()["authorized"]
    assert owner.world.do(lambda: owner.world.tokens(USDC_E, shown(ROOT))) == HELD


def test_what_a_key_was_authorized_with_is_told_and_only_the_limit_changes(owner: Owner) -> None:
    """Limit, rest, period and end are read from the chain; a new amount is whole at once, another period is refused."""
    assert owner.sets("15", "--expires-days", "90", "--yes").returncode == Exit.OK
    first = owner.reads()
    assert (first["limit_usdc"], first["remaining_usdc"], first["period_s"]) == ("15", "15", 86_400)
    assert first["expires_at"].startswith("20") and first["wrong"] == ""
    more = owner.sets("40", "--yes", "--json")
    assert more.returncode == Exit.OK
    told, second = json.loads(more.stdout), owner.reads()
    assert (second["limit_usdc"], second["expires_at"]) == ("40", first["expires_at"])
    assert (told["schema"], told["before"], told["after"]) == (1, first, second)
    assert (told["proposed"]["call"], told["proposed"]["limit_usdc"]) == ("updateSpendingLimit", "40")
    assert told["tx_hash"].startswith("0x") and "updateSpendingLimit" in more.stderr
    weekly = owner.types("wallet", "limit", "--amount", "40", "--period-days", "7", "--dry-run")
    assert weekly.returncode == Exit.USAGE
    assert "cannot be changed" in weekly.stderr and "make a new key" in weekly.stderr
    low = owner.sets("5", "--yes")
    assert low.returncode == Exit.OK
    assert "less than a refill may cost" in low.stdout
    assert not owner.doctor()["ok"]


def test_the_root_key_is_that_of_the_account(owner: Owner) -> None:
    """A keystore of another account is refused before anything is sent, and one that is not named is asked for."""
    other = Account.encrypt(b"\x22" * 32, "open", kdf="scrypt", iterations=2)
    owner.keystore.write_text(json.dumps(other), encoding="utf-8")
    wrong = owner.sets("15", "--yes")
    assert wrong.returncode == Exit.PERSON
    assert "rails.mpp.root" in wrong.stderr
    unnamed = owner.types("wallet", "limit", "--amount", "15", "--period-days", "1", "--yes")
    assert unnamed.returncode == Exit.USAGE
    assert "--root-keystore" in unnamed.stderr
    assert not owner.reads()["authorized"]
    alone = owner.types("wallet", "limit", TOPUP_RAILS__MPP__ROOT=owner.world.wallet)
    assert alone.returncode == Exit.USAGE
    assert "off this machine" in alone.stderr


async def test_a_call_that_fails_says_so_and_that_nothing_else_is_lost(owner: Owner) -> None:
    """Two owners at once: the second call runs and fails. One that comes too late is taken by nobody."""
    own = owner.settings()
    settings = load({k: v for k, v in own.items() if v is not None})
    first, second, late = [await wallet_limit.propose(settings, Usd.of(15), 1, None) for _ in range(3)]
    after, tx_hash = await wallet_limit.send(settings, first, door())
    assert after.permission.limit == Usdc(15_000_000) and len(tx_hash) == 32
    with pytest.raises(ChainUnknown, match="ran and failed") as failed:
        await wallet_limit.send(settings, second, door())
    assert "topup wallet limit --show" in failed.value.remedy
    old = replace(late, call=replace(late.call, valid_before=late.before.permission.now_s - 1))
    with pytest.raises(ChainUnknown, match="nobody takes the call") as failed:
        await wallet_limit.send(settings, old, door())
    assert "again" in failed.value.remedy


# -- what the chain says of a key ---------------------------------------------------------------------------------


UNLIMITED: Final = b"\x41" * 20
ONCE: Final = b"\x42" * 20
DAILY: Final = b"\x43" * 20
BRIEF: Final = b"\x44" * 20
REVOKED: Final = b"\x45" * 20
NOBODY: Final = b"\x46" * 20


@pytest.fixture(scope="module")
def keychain() -> Iterator[Chain]:
    """A chain on which the account has authorized keys in every way there is."""
    chain = Chain(Tempo(require("anvil"), block_s=None, funded={shown(ROOT): HELD}))
    until, amount = chain.now() + 90 * 86_400, 15_000_000

    def tells(data: bytes) -> None:
        call = paying(to=tempo.KEYCHAIN, data=data, gas_limit=5_000_000, lane=chain.fresh())
        receipt = chain.run(raw_of(call, KEY))
        assert receipt is not None and receipt["status"] == "0x1"

    for key, end, enforced, limits in (
        (UNLIMITED, until, False, []),
        (ONCE, until, True, [(TOKEN, amount, 0)]),
        (DAILY, until, True, [(TOKEN, amount, 86_400)]),
        (BRIEF, chain.now() + 3600, True, [(TOKEN, amount, 86_400)]),
        (REVOKED, until, True, [(TOKEN, amount, 86_400)]),
    ):
        tells(AUTHORIZE + encode(["address", "uint8", RESTRICTIONS], [key, 0, (end, enforced, limits, True, [])]))
    tells(bytes(keccak(text="revokeKey(address)")[:4]) + encode(["address"], [REVOKED]))
    yield chain
    chain.tempo.stop()


def permitted(chain: Chain, key: bytes, *, knows_time: bool = True) -> Permission:
    """Read a key's permission, from a node that may not know how to answer for another time."""

    class Node(Rpc):
        async def batch(self, queries: Sequence[Query]) -> list[Any]:
            kept = queries if knows_time else [(method, params[:2]) for method, params in queries]
            return await super().batch(kept)

    async def read() -> Permission:
        node = Node(chain.tempo.url, timeout_s=10)
        try:
            found = (await preflight_of(node, CHAIN_ID, ROOT, TOKEN, (), key)).permission
        finally:
            await node.close()
        assert found is not None
        return found

    return asyncio.run(read())


def test_each_way_of_authorizing_is_told_apart(keychain: Chain) -> None:
    """No limit, a limit for once, one that begins anew each day, none of it any more, and never any."""
    daily = permitted(keychain, DAILY)
    assert (daily.left, daily.limit, daily.period_s) == (Usdc(15_000_000), Usdc(15_000_000), 86_400)
    assert daily.now_s < daily.ends_s <= daily.now_s + 86_400 < daily.expires_s
    unlimited, once = permitted(keychain, UNLIMITED), permitted(keychain, ONCE)
    assert (unlimited.left, unlimited.limit) == (None, None)
    assert (once.left, once.ends_s, once.period_s) == (Usdc(15_000_000), 0, 0)
    revoked, nobody = permitted(keychain, REVOKED), permitted(keychain, NOBODY)
    assert (revoked.expires_s, revoked.revoked, revoked.left) == (0, True, Usdc(0))
    assert (nobody.expires_s, nobody.revoked, nobody.left) == (0, False, Usdc(0))


def test_a_limit_that_cannot_be_learnt_is_unknown(keychain: Chain) -> None:
    """A node that answers for now alone, or a key that ends before its period: what is left is known all the same."""
    for told in (permitted(keychain, DAILY, knows_time=False), permitted(keychain, BRIEF)):
        assert (told.left, told.limit, told.period_s) == (Usdc(15_000_000), None, None)
        assert told.ends_s > 0


# -- what follows from it -----------------------------------------------------------------------------------------


NOW_S: Final = builders.NOW_S
PERMISSION: Final = Permission(
    now_s=NOW_S,
    expires_s=NOW_S + 301,
    revoked=False,
    left=Usdc(10_010_000),
    ends_s=NOW_S + 3600,
    limit=Usdc(15_000_000),
    period_s=86_400,
)
PAYMENT: Final = builders.plan(
    value=Wei(0),
    asset=Asset.USDC_E,
    tokens=Usdc(10_000_000),
    token_fee=Usdc(10_000),
    broadcaster=Broadcaster.SERVER,
    ends_s=NOW_S + 300,
)


def judged(**changes: Any) -> PaymentForbidden | None:
    """Judge a payment of ten dollars and a cent of fees by a key with exactly that left, but for these changes."""
    ceilings = Ceilings(Bps(0), Wei(0), Wei(0), Wei(0), Wei(0), EthPrice(1), token_fee=Usdc(10_000))
    wallet = Wallet(Wei(0), Usdc(HELD), replace(PERMISSION, **changes))
    try:
        permit(PAYMENT, total=PAYMENT.tokens, fair=None, wallet=wallet, ceilings=ceilings)
    except PaymentForbidden as error:
        return error
    return None


def test_a_key_spends_all_that_is_left_and_lives_as_long_as_the_payment() -> None:
    """To the unit and the second; without a limit as much as the account holds."""
    assert judged() is None
    assert judged(left=None, limit=None, ends_s=0) is None


@pytest.mark.parametrize(
    ("reason", "remedy", "changes"),
    [
        ("access_limit", "wait until", {"left": Usdc(10_009_999)}),
        ("access_limit", "wait until", {"left": Usdc(0), "limit": None, "period_s": None}),
        ("access_limit", "raise the limit", {"left": Usdc(9), "limit": Usdc(10_009_999)}),
        ("access_limit", "raise the limit", {"left": Usdc(9), "limit": None, "ends_s": 0, "period_s": 0}),
        ("access_key", "authorize it", {"expires_s": 0, "left": Usdc(0)}),
        ("access_key", "make a new key", {"expires_s": 0, "left": Usdc(0), "revoked": True}),
        ("access_key", "make a new key", {"expires_s": NOW_S + 300}),
    ],
)
def test_a_key_that_would_fail_on_the_chain_is_forbidden(reason: str, remedy: str, changes: dict[str, Any]) -> None:
    """One unit too little, one second too short, or no such key: said with what helps, and tried again."""
    refused = judged(**changes)
    assert refused is not None
    assert (refused.reason, refused.again) == (reason, True)
    assert refused.remedy.startswith(remedy)


def surveyed(*told: Permission) -> Permission | None:
    """Join what providers of different owners tell of a key; two have to agree."""
    one = Preflight(Head(1, b"\x01" * 32, NOW_S), Wei(0), 0, 0, Wei(1), Wei(1), b"", {}, None, tokens=Usdc(HELD))
    votes = [Vote(f"{n}.example", f"{n}", replace(one, permission=each)) for n, each in enumerate(told)]
    return agreement.preflight_of(Answers(votes), 2).value.permission


def test_no_provider_alone_makes_a_key_spend_more() -> None:
    """Of what two tell is left the less counts; one that calls a dead key alive stops the payment."""
    more = replace(PERMISSION, left=Usdc(HELD))
    joined = surveyed(more, PERMISSION)
    assert joined is not None and joined.left == PERMISSION.left
    joined = surveyed(more, PERMISSION, PERMISSION)
    assert joined is not None and joined.left == PERMISSION.left
    for lie in (replace(more, expires_s=tempo.NEVER), replace(more, left=None), replace(PERMISSION, revoked=True)):
        with pytest.raises(Disagreement):
            surveyed(lie, PERMISSION)


# -- the root key's door ------------------------------------------------------------------------------------------


GRANT: Final = tempo.Grant(ROOT, b"\x31" * 20, TOKEN, 15_000_000, 86_400, tempo.NEVER, renews=False)
CALL: Final = tempo.Transaction(
    chain_id=CHAIN_ID,
    gas_price=30 * 10**9,
    gas_limit=4_000_000,
    to=tempo.KEYCHAIN,
    data=tempo.granting(GRANT),
    lane=7,
    valid_before=2**32,
    fee_token=TOKEN,
)


def door() -> root.RootKey:
    return root.RootKey(Account.from_key(KEY.to_bytes()), CHAIN_ID, TOKEN)


@pytest.mark.parametrize("renews", [False, True])
def test_the_root_key_signs_a_grant(renews: bool) -> None:  # noqa: FBT001
    """What it signs is the call that was shown, and its hash is known before it is sent."""
    grant = replace(GRANT, renews=renews)
    raw, tx_hash = door().sign_grant(grant, replace(CALL, data=tempo.granting(grant)))
    assert tx_hash == keccak(raw)
    assert tempo.granting(grant) in raw


WRONG: Final[list[tuple[str, dict[str, Any], dict[str, Any]]]] = [
    ("account", {"account": b"\x32" * 20}, {}),
    ("access key", {"key": ROOT}, {}),
    ("access key", {"key": bytes(20)}, {}),
    ("token", {"token": b"\x33" * 20}, {}),
    ("token", {}, {"chain_id": 42431}),
    ("token", {}, {"fee_token": b"\x33" * 20}),
    ("limit", {"units": 0}, {}),
    ("limit", {"units": 2**128}, {}),
    ("period", {"period_s": 0}, {}),
    ("end", {"expires_s": 0}, {}),
    ("destination", {}, {"to": TOKEN}),
    ("call data", {}, {"data": tempo.transfer_with_memo(b"\x34" * 20, 1, bytes(32))}),
    ("network fee", {}, {"gas_price": 10**12}),
    ("lane", {}, {"lane": 0}),
    ("lane", {}, {"lane": 2**256 - 1}),
    ("deadline", {}, {"valid_before": 0}),
]


@pytest.mark.parametrize(("named", "grant", "call"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_the_root_key_signs_nothing_else(named: str, grant: dict[str, Any], call: dict[str, Any]) -> None:
    """Each part of grant and call is held by the door itself, and the refusal names it."""
    asked = replace(GRANT, **grant)
    with pytest.raises(SignerError, match=f"refuses to sign: {named}$"):
        door().sign_grant(asked, replace(CALL, **({"data": tempo.granting(asked)} | call)))


def test_the_root_key_is_not_shown() -> None:
    """Its repr, which may stand in a traceback, holds the address alone."""
    assert KEY.to_hex()[2:] not in repr(door())
    assert repr(door()).lower() == f"rootkey({shown(ROOT)})"
