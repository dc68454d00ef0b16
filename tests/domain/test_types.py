"""Does the type checker refuse what must not be written, before it can be run?"""

import re
import subprocess
from pathlib import Path

from tests.tools import BIN, ROOT

# Every line marked `# wrong:` has to be an error of that kind; every other line has to be right.
SNIPPET = '''
"""What a careless hand might write."""

from dataclasses import replace
from decimal import Decimal

from topup.domain.coinbase_charge import Charge, Pins, verify
from topup.domain.demand import Clocks, Request, Verified
from topup.domain.lifecycle import Attempt, Plan, TopUp
from topup.domain.money import Bps, EthPrice, Usd, Usdc, Wei
from topup.ports.chain import Chain, Preflight
from topup.ports.rail import Rail
from topup.ports.signer import Signer


def honest(demand: Charge, request: Request, pins: Pins, clocks: Clocks, signer: Signer, plan: Plan) -> bytes:
    proven = verify(demand, request, pins, clocks, seen=())
    raw, _ = signer.sign_payment(plan, proven)
    return raw


def forged(demand: Charge, request: Request) -> Verified:
    Verified(demand, request)  # wrong: call-arg
    Verified(demand, request, None)  # wrong: arg-type
    return Verified(demand, request, object())  # wrong: arg-type


def copied(proven: Verified, demand: Charge) -> Verified:
    proven.demand = demand  # wrong: misc
    return replace(proven, demand=demand)  # wrong: call-arg


class Cheaper(Verified):  # wrong: misc
    pass


def signed(signer: Signer, plan: Plan, demand: Charge) -> tuple[bytes, bytes]:
    return signer.sign_payment(plan, demand)  # wrong: arg-type


async def planned(rail: Rail, demand: Charge, survey: Preflight) -> Plan:
    return await rail.plan(demand, survey)  # wrong: arg-type


def signed_by_the_rail(rail: Rail, plan: Plan, demand: Charge) -> tuple[bytes, bytes]:
    return rail.sign(plan, demand)  # wrong: arg-type


def encoded(chain: Chain, demand: Charge) -> object:
    return chain.payment(demand, 500, Wei(1), b"")  # wrong: arg-type


async def sent(rail: Rail, raw: bytes, topup: TopUp, attempt: Attempt) -> None:
    await rail.send(topup, attempt)
    await rail.send(topup, raw)  # wrong: arg-type


def mixed(usd: Usd, wei: Wei, usdc: Usdc) -> None:
    usd + usd
    wei + wei
    usd + wei  # wrong: operator
    wei + usd  # wrong: operator
    wei - usdc  # wrong: operator
    usdc + 1  # wrong: operator
    usd < wei  # wrong: operator
    usd * 2  # wrong: operator


def floats(usd: Usd) -> None:
    Usd.of("0.1")
    Usd.of(0.1)  # wrong: arg-type
    Usd(0.1)  # wrong: arg-type
    Wei(0.1)  # wrong: arg-type
    Wei(Decimal(1))  # wrong: arg-type
    Bps(0.5)  # wrong: arg-type
    EthPrice(3000.0)  # wrong: arg-type
    usd.times(0.1)  # wrong: arg-type
    float(usd)  # wrong: arg-type


def priced(price: EthPrice, usd: Usd, wei: Wei) -> None:
    price.wei_for_up(usd)  # wrong: arg-type
    price.usd_of_up(usd)  # wrong: arg-type
    usd.plus_bps(5)  # wrong: arg-type
    wei.plus_bps_up(wei)  # wrong: arg-type
'''
ERROR = re.compile(r"^[^:]+:(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)


def test_what_must_not_be_written_is_refused_line_by_line(tmp_path: Path) -> None:
    """A Verified made by hand, an unproven charge at signer or rail, mixed money, floats: errors, nothing else."""
    path = tmp_path / "careless.py"
    path.write_text(SNIPPET)
    options = ["--config-file", "pyproject.toml", "--no-pretty", "--no-color-output", "--hide-error-context"]
    done = subprocess.run(
        [BIN / "mypy", *options, path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    found = {(int(line), kind) for line, kind in ERROR.findall(done.stdout)}
    lines = enumerate(SNIPPET.splitlines(), start=1)
    wanted = {(n, text.split("# wrong: ")[1]) for n, text in lines if "# wrong: " in text}
    assert len(wanted) > 25
    assert found == wanted, done.stdout + done.stderr
