"""Does the mpp rail pay a machine payment once on a real Tempo chain, whatever the seller answers?"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.oracles import mppx_seller, pympp_seller
from tests.world.tempo import Front, on_tempo, paid_once, selling, stage_of
from topup.domain.lifecycle import State
from topup.domain.money import Asset, Usd
from topup.payment.config import PurchaseOrder
from topup.sandbox.mpp_wire import PURCHASES
from topup.sandbox.purchases import RECIPIENT
from topup.sandbox.world import STEPPED


async def test_a_machine_payment_buys_credits(tmp_path: Path) -> None:
    """Challenge, credential, settlement on Tempo, credits: one transfer, fee and all in the books to the unit."""
    with selling(scale=STEPPED) as world:
        stage = stage_of(world, tmp_path)
        topup = await stage.until(State.DONE)
        (payment,) = topup.out
        assert payment.plan.asset is Asset.USDC_E
        assert payment.reference.startswith("pi_")
        paid_once(stage)
        await stage.close()


OLD = [pytest.mark.long]
MPPX = "MPP Payment"
PACKAGES = [
    pytest.param(partial(pympp_seller, version="0.11.0"), "localhost", 1, False, id="pympp 0.11.0", marks=OLD),
    pytest.param(partial(pympp_seller, version="0.14.0"), "localhost", 2, True, id="pympp 0.14.0", marks=OLD),
    pytest.param(partial(pympp_seller, version="0.15.1"), "localhost", 2, False, id="pympp 0.15.1"),
    pytest.param(partial(pympp_seller, version="0.16.0", own_header=True), "localhost", 2, True, id="pympp 0.16.0"),
    pytest.param(partial(mppx_seller, version="0.8"), "127.0.0.1", 2, False, id="mppx 0.8", marks=OLD),
    pytest.param(partial(mppx_seller, version="0.9"), "127.0.0.1", 2, False, id="mppx 0.9", marks=OLD),
    pytest.param(partial(mppx_seller, version="0.10"), "127.0.0.1", 2, False, id="mppx 0.10"),
    # As it calls itself where the request does not say which host was asked.
    pytest.param(partial(mppx_seller, realm=MPPX, own_header=True), MPPX, 2, False, id="mppx 0.11"),
]


@pytest.mark.machine_time
@pytest.mark.parametrize(("package", "realm", "offers", "joined"), PACKAGES)
async def test_sellers_with_their_own_defaults_are_paid_once(
    tmp_path: Path,
    package: Callable[[str, str], AbstractContextManager[str]],
    realm: str,
    offers: int,
    joined: bool,  # noqa: FBT001
) -> None:
    """Whatever tokens a package's seller offers by itself, in one header or several: USDC.e is paid, once."""
    with on_tempo(lambda world, account: Front(account, world.chain, joined=joined), scale=8) as world:
        front: Any = world.gateway
        with package(front.chain.url, RECIPIENT) as url:
            front.behind = url
            # Its clock is the machine's: the world's must not run away from a challenge's end.
            stage = stage_of(world, tmp_path, TOPUP_RAILS__MPP__REALM=realm, TOPUP_POSTING__PAY_TIMEOUT_S="40")
            topup = await stage.until(State.DONE, asked=PurchaseOrder(Usd.of(10)))
            (payment,) = topup.out
            assert payment.raw is not None
            assert payment.answer.startswith("accepted: 202, receipt for 0x")
            paid_once(stage)
            # The same credential again, after it has settled: versions say no, or that it was taken, or hang up.
            again = dict.fromkeys(("authorization", "payment-authorization"), payment.raw.decode())
            async with httpx.AsyncClient(base_url=url, timeout=40) as client:
                with contextlib.suppress(httpx.RemoteProtocolError):
                    await client.post(PURCHASES, json={"amount": 10}, headers=again)
            paid_once(stage)
            await stage.close()
        assert sum(line.count('method="tempo"') for line in front.challenged) == offers
        # mppx itself writes all of them into one header.
        assert len(front.challenged) == (1 if joined or "mppx" in repr(package) else offers)
