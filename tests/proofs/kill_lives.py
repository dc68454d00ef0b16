"""Which lives are there, in each of which topup is killed at every step?"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from eth_utils.crypto import keccak

from tests.proofs import kill_handover, kill_telling
from tests.proofs.kill_worlds import IN_USDC, MPP, SPONSORED, X402, Forgetting, House, Life
from tests.world import proxy
from topup.domain.ways_out import CANCEL, RESOLVE
from topup.ledger.store import SqliteStore
from topup.sandbox.faults import FAULTS

TWO_DAYS_MS: Final = 49 * 3_600_000


def _price_jumps(house: House) -> None:
    act = FAULTS["chain-price-jumps"].on_world
    assert act is not None
    house.world.do(lambda: act(house.world))


def _send_lost(house: House) -> None:
    house.bend("chain.send", proxy.lose, lambda: True)


def _charge_lost(house: House) -> None:
    house.bend("api.charge", proxy.lose, lambda: True)


def _no_blocks(house: House) -> None:
    house.world.mining = False


def _until_outbid(house: House, _: str, honest: Callable[[], Any]) -> Any:
    """No block comes before two different transactions have arrived."""
    house.world.mining = len(set(house.arrived)) > 1
    return honest()


def _cancelled(house: House, _: str, honest: Callable[[], Any]) -> Any:
    """A person wants it cancelled as soon as it is sent; no block comes before the cancel has arrived."""
    house.world.mining = len(set(house.arrived)) > 1
    if len(house.arrived) == 1:
        with closing(SqliteStore.open_reader(house.state)) as store:
            (topup,) = store.latest("default", 1)
            store.say("default", RESOLVE + topup.id, CANCEL, topup.moved_ms, "somebody")
    return honest()


def _forgotten(house: House, raw: str, honest: Callable[[], Any]) -> Any:
    """The nodes take the first transaction and forget it; at once two days have passed, and its charge is dead."""
    if raw != house.arrived[0]:
        return honest()
    if len(house.arrived) == 1:
        house.world.clock.leap(TWO_DAYS_MS)
    return "0x" + keccak(hexstr=raw).hex()


LIVES: Final[dict[str, Life]] = {
    life.name: life
    for life in (
        Life("refill", "Nothing particular happens.", early=True),
        Life("reverted", "The price jumps before the block: the payment reverts and is tried again.", _price_jumps),
        Life("send-lost", "The first payment is sent and the answer lost.", _send_lost, wired=True),
        Life("charge-lost", "The first charge is created, the answer lost.", _charge_lost, wired=True, early=True),
        Life(
            "outbid",
            "No block comes until the payment has been outbid.",
            _no_blocks,
            _until_outbid,
            settings={"TOPUP_FEES__BUMP_AFTER_S": "2"},
        ),
        Life(
            "late",
            "The credits are posted so late that a person is told.",
            settings={"TOPUP_POSTING__LATE_S": "1"},
            posting_delay_ms=4000,
        ),
        Life(
            "dead",
            "The first payment is forgotten by the nodes; its charge is proven dead and another one is paid.",
            on_send=_forgotten,
            providers=2,
        ),
        Life(
            "cancelled",
            "A person cancels what was sent, and the cancel is mined: nothing is paid.",
            _no_blocks,
            _cancelled,
            providers=2,
            pays=False,
        ),
        Life("usdc", "The charge is paid in USDC: an approval first, then the payment.", ground=IN_USDC),
        Life("x402", "A seller carries the signed transfer to the chain.", early=True, ground=X402),
        Life("mpp", "A seller broadcasts the signed payment on Tempo.", early=True, ground=MPP),
        Life("sponsored", "A seller adds itself as the sponsor and submits the payment on Tempo.", ground=SPONSORED),
        Life(
            "sponsored-dead",
            "The first payload is never submitted; it is proven dead and another one is paid.",
            providers=2,
            ground=replace(SPONSORED, gateway=Forgetting),
        ),
        Life("afterwards", "What ended is looked at until it is final.", early=True, refilled=True),
        *kill_handover.LIVES,
        kill_telling.LIFE,
    )
}
