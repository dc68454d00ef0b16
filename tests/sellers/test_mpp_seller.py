"""Is a seller of machine payments data: its paths, its names, its dollar, and where the balance is read?"""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.tools import ROOT
from tests.world.tempo import HELD, held, on_tempo, stage_of
from topup.accounting.journal import WALLET, Commodity
from topup.app.sections import MppFieldsSection
from topup.app.settings import load
from topup.domain.errors import SettingsError
from topup.domain.lifecycle import State
from topup.domain.money import Asset
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.mpp_wire import PURCHASES
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
from topup.sandbox.tempo import PATH_USD, USDC_E
from topup.sandbox.world import World
from topup.sellers.mpp_fields import OPENROUTER

BASE: Final = "/api/v1"
MARK: Final = "<!-- test: seller -->\n```toml\n"


def documented() -> dict[str, Any]:
    """Return the settings that docs/rails.md gives for another seller."""
    text = (ROOT / "docs" / "rails.md").read_text(encoding="utf-8")
    told: dict[str, Any] = tomllib.loads(text.partition(MARK)[2].partition("```")[0])
    return told


class Other(Seller):
    """A seller of the same protocol with paths and names of its own, that tells a balance and no totals."""

    async def _answer(self, request: Request) -> Response | Raw:
        fields = documented()["rails"]["mpp"]["fields"]
        if request.path == BASE + fields["balance_path"]:
            balance = self.account.total_credits - self.account.total_usage
            return Response(200, json.dumps({"data": {"balance": f"{balance:.6f}", "currency": "USD"}}).encode())
        if request.path != BASE + fields["request_path"]:
            return Response(404, b"{}")
        asked = json.loads(request.body)
        assert isinstance(asked[fields["amount_field"]], str)
        body = json.dumps({"amount": asked[fields["amount_field"]]}).encode()
        return await super()._answer(replace(request, path=PURCHASES, body=body))


def world_of(kind: type[Seller], currency: str) -> World:
    """A Tempo chain and a seller of this kind that wants this dollar, of which the wallet holds 25."""
    conduct = MppConduct(posting_delay_ms=10_000, currency=currency)
    return on_tempo(lambda world, account: kind(account, world.chain, conduct=conduct), token=currency)


async def test_a_seller_of_pathusd_is_paid_in_it(tmp_path: Path) -> None:
    """The other dollar that pays its own fee: transfer, fee and books are in pathUSD, and USDC.e is not touched."""
    with world_of(Seller, PATH_USD) as world:
        stage = stage_of(world, tmp_path, TOPUP_RAILS__MPP__PAY_WITH="pathusd")
        topup = await stage.until(State.DONE)
        (payment,) = topup.out
        assert payment.plan.asset is Asset.PATH_USD
        assert payment.inclusion is not None
        left = HELD - held(stage, world.wallet, PATH_USD)
        assert left == 10_000_000 + payment.inclusion.token_fee.units
        assert (held(stage, RECIPIENT, PATH_USD), held(stage, RECIPIENT, USDC_E)) == (10_000_000, 0)
        lines = [x for entry in stage.store.entries("default") if entry.topup_id for x in entry.lines]
        spent = [x for x in lines if x.account == WALLET]
        assert {x.commodity for x in spent} == {Commodity.PATH_USD}
        assert -sum(x.units for x in spent) == left
        await stage.close()


async def test_another_seller_is_bought_from_by_its_record(tmp_path: Path) -> None:
    """Other paths, other names, the amount as a text, a balance of its own: by the settings as documented."""
    fields = documented()["rails"]["mpp"]["fields"]
    own = {
        f"TOPUP_RAILS__MPP__FIELDS__{name.upper()}": value if isinstance(value, str) else ",".join(value)
        for name, value in fields.items()
    }

    with world_of(Other, USDC_E) as world:
        stage = stage_of(world, tmp_path, TOPUP_API__KIND="mpp", **own)
        topup = await stage.until(State.DONE)
        assert len(topup.out) == 1
        assert held(stage, RECIPIENT, USDC_E) == 10_000_000
        await stage.close()


def test_the_documented_record_is_one(tmp_path: Path) -> None:
    """What docs/rails.md gives can be written into a settings file as it stands."""
    told = documented()
    file = tmp_path / "topup.toml"
    text = (ROOT / "docs" / "rails.md").read_text(encoding="utf-8").partition(MARK)[2].partition("```")[0]
    file.write_text(text, encoding="utf-8")
    settings = load({"TOPUP_CONFIG": str(file)})
    assert settings.rails.mpp.fields.request_path == told["rails"]["mpp"]["fields"]["request_path"]
    assert settings.rails.mpp.fields.texts == ()


def test_the_defaults_are_the_record_of_openrouter() -> None:
    """Settings and rail know one record, so that neither grows a field without the other."""
    assert MppFieldsSection().model_dump() == vars(OPENROUTER)


WRONG: dict[str, tuple[str, ...]] = {
    "FIELDS__REQUEST_PATH": ("credits", "/a b", "https://elsewhere.example/"),
    **dict.fromkeys(("FIELDS__AMOUNT_FIELD", "FIELDS__BALANCE_FIELD"), ("",)),
    "FIELDS__AMOUNT_AS": ("float",),
    "FIELDS__PURCHASE_PATH": ("/purchases",),
    "FIELDS__BALANCE_PATH": ("balance",),
    # A realm that no header holds would never be the challenge's.
    "REALM": ("", " MPP", "MPP ", "a\tb", "é", "A" * 254),
}


def test_a_record_that_cannot_be_is_refused_by_name() -> None:
    """Each is said with the setting that holds it; capitals and spaces are part of some sellers' names."""
    own = {"TOPUP_CONFIG": "/dev/null"}
    for name, values in WRONG.items():
        for value in values:
            with pytest.raises(SettingsError, match=re.escape(f"rails.mpp.{name.lower().replace('__', '.')}")):
                load(own | {f"TOPUP_RAILS__MPP__{name}": value})
    for realm in ("MPP Payment", "localhost", "api.example:8443", "A" * 253):
        assert load(own | {"TOPUP_RAILS__MPP__REALM": realm}).rails.mpp.realm == realm
    # `api.kind = "mpp"` watches one seller: with other rails, or without a path to its balance, it is refused.
    own |= {"TOPUP_API__KIND": "mpp"}
    others, balance = {"TOPUP_RAILS__USE": "mpp,coinbase"}, {"TOPUP_RAILS__MPP__FIELDS__BALANCE_PATH": "/balance"}
    for more in ({}, others, others | balance):
        with pytest.raises(SettingsError, match=r"api\.kind mpp"):
            load(own | more)
    load(own | balance)
