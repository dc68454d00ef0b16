"""Which of several challenges does the mpp rail pay, after a restart too, and what is said of the others?"""

import asyncio
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world import builders
from tests.world.memory_sellers import REALM, TEN, Standing, asked, challenge, mpp_before, proven, unpaid
from topup.domain.dollars import PATH_DOLLAR
from topup.domain.errors import ChargeRefused
from topup.domain.lifecycle import Attempt, Broadcaster, ChargeRow, TopUp
from topup.domain.money import Usd
from topup.ports.chain import Sent
from topup.sandbox.charges import STRANGER
from topup.sandbox.tempo import MACH, OUSD
from topup.sellers.mpp_fields import OPENROUTER, Fields
from topup.wire.http import Answered


class Shop(Standing):
    """A seller with these headers, who keeps what it was asked."""

    def __init__(self, *lines: str) -> None:
        super().__init__(unpaid(*lines))
        self.posts: list[tuple[str, bytes, str]] = []

    async def ask(self, method: str, path: str, **more: Any) -> Answered:
        self.posts.append((path, more["body"], more["headers"].get("authorization", "")))
        return await super().ask(method, path, **more)


def chosen(*lines: str, **how: Any) -> str:
    """Return the id of what would be paid."""
    rail = mpp_before(Shop(*lines), **how)
    return rail.read(asyncio.run(rail.ask(asked(4217)))).challenge.id


def refused(*lines: str, **how: Any) -> ChargeRefused:
    """Return why nothing would be paid."""
    with pytest.raises(ChargeRefused) as said:
        chosen(*lines, **how)
    assert said.value.remedy, said.value
    return said.value


OTHERS: Final = {
    "ousd": challenge("ousd", request={"currency": OUSD}),
    "mach": challenge("mach", request={"currency": MACH}),
    "pathusd": challenge("pathusd", request={"currency": "0x" + PATH_DOLLAR.token.hex()}),
    "card": challenge("card", method="stripe"),
    "session": challenge("session", intent="session"),
    "test chain": challenge("test chain", details={"chainId": 42431}),
    "no chain": challenge("no chain", details={"chainId": None}),
    "stranger": challenge("stranger", request={"recipient": STRANGER}),
    "dear": challenge("dear", request={"amount": str(2 * TEN)}),
    "sponsored": challenge("sponsored", details={"feePayer": True}),
    "split": challenge("split", details={"splits": [{"recipient": STRANGER, "amount": "1"}]}),
    "expired": challenge("expired", expires="2020-01-01T00:00:00Z"),
    "other realm": challenge("other realm", realm="other.example"),
    "push": challenge("push", details={"supportedModes": ["push"]}),
    "no base64": challenge("no base64", request={}, opaque="x").replace('request="', 'request="!'),
    "no request": 'Payment id="no request", realm="seller.example", method="tempo", intent="charge"',
    "number": challenge("number", request={"amount": TEN}),
    "nothing": "Payment",
    "bearer": 'Bearer realm="seller.example", error="x"',
}
TWICE: Final = (
    challenge("one", request={"amount": "1"}) + ', id="two"',
    challenge("one") + ", Realm=x",
    challenge("one").replace('", ', '" ', 1),
    challenge("one") + ', x="y',
)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("first", [False, True])
def test_what_cannot_be_paid_drops_out(other: str, first: bool) -> None:  # noqa: FBT001
    """Another token, card, session, chain, recipient, price, or nonsense: beside it the one that is right is paid."""
    assert chosen(*((other, challenge("right")) if first else (challenge("right"), other))) == "right"


@pytest.mark.parametrize("broken", TWICE)
def test_a_header_of_two_readings_spoils_all_beside_it(broken: str) -> None:
    """What one reader takes for this and another for that is no offer, nor is what stands beside it."""
    for lines in ((challenge("right"), broken), (broken, challenge("right"))):
        assert refused(*lines).field.startswith("WWW-Authenticate")


def test_ids_tell_challenges_apart() -> None:
    """What is stored is an id: where it names two challenges, which one was judged could not be told later."""
    assert "one id" in refused(challenge("right"), challenge("right", request={"amount": str(TEN + 1)})).was
    assert chosen(challenge("right"), challenge("right")) == "right"
    # Challenges without an id could not be what is stored: two other ways to pay are passed over like any other.
    others = [f'Payment method="{name}", intent="charge", realm="{REALM}", request="e30"' for name in ("card", "other")]
    assert chosen(*others, challenge("ours")) == "ours"


def test_two_that_could_be_paid() -> None:
    """Nobody who looks at one of two that differ knows what the other one asks for: neither is paid."""
    for change in ({"amount": str(TEN + 1)}, {"recipient": STRANGER}):
        other = challenge("other", request=change)
        assert "2 that could be paid" in refused(challenge("right"), other, pinned=None).was
    # Ids, words, ends and places for the credential may differ: two that ask for the same are one, the first is paid.
    second = challenge("second", description="again", expires="2026-09-21T14:18:25Z", header="Payment-Authorization")
    assert chosen(challenge("first"), second) == "first"
    # Where an offer is sponsored as well, the wallet pays the fee itself and knows the transaction's hash.
    assert chosen(OTHERS["sponsored"], challenge("right")) == "right"
    assert refused(OTHERS["sponsored"]).field == "request.methodDetails.feePayer"


def test_a_refusal_names_the_token_and_the_setting() -> None:
    """OUSD and MACH are said by name, not by an address that nobody knows; so is the dollar that would be paid."""
    for name, token in (("OUSD", OUSD), ("MACH", MACH)):
        said = refused(OTHERS[name.lower()])
        assert (said.field, said.was.lower()) == ("token", f"{name} ({token})".lower())
        assert said.should_be.startswith("USDC.e (0x20C0")
        assert "rails.mpp.pay_with" in said.remedy
    assert refused(challenge("right"), dollar=PATH_DOLLAR).should_be.startswith("pathUSD (0x20C0")
    assert chosen(challenge("right"), OTHERS["pathusd"], dollar=PATH_DOLLAR) == "pathusd"


def test_a_refusal_of_several_says_what_is_wrong_with_each() -> None:
    """Two that cannot be paid, two reasons; a sponsored one says what would help."""
    said = refused(OTHERS["ousd"], OTHERS["stranger"])
    assert "2 of them, none payable" in said.was and "OUSD" in said.was and "recipient" in said.was
    assert "rails.mpp.sponsored = true" in refused(OTHERS["sponsored"]).remedy
    assert "stripe charge" in refused(OTHERS["card"]).was
    assert "without a challenge" in refused().was


kinds = st.sampled_from(["right", *OTHERS])
PAYABLE: Final = frozenset({"right"})


@given(made=st.lists(kinds, max_size=6), cuts=st.lists(st.booleans(), min_size=6, max_size=6), twice=st.integers(-1, 7))
def test_any_mixture(made: list[str], cuts: list[bool], twice: int) -> None:
    """In whatever order, in one header or many: the first that is right is paid, or none; two readings forbid all."""
    each = [OTHERS[kind] if kind in OTHERS else challenge(f"right {at}") for at, kind in enumerate(made)]
    if 0 <= twice < len(each):
        each[twice] += ', x="1", x="2"'
    lines: list[str] = []
    for one, cut in zip(each, cuts, strict=False):
        # After a bare scheme its comma would be taken for the end of it, so that it keeps a header of its own.
        if lines and not cut and one != "Payment" and lines[-1] != "Payment":
            lines[-1] += ", " + one
        else:
            lines.append(one)
    spoilt = 0 <= twice < len(each) and made[twice] != "bearer"
    right = next((f"right {at}" for at, kind in enumerate(made) if kind in PAYABLE), None)
    rail = mpp_before(Shop(*lines))
    raw = asyncio.run(rail.ask(asked(4217)))
    if right is None or spoilt:
        with pytest.raises(ChargeRefused) as said:
            rail.read(raw)
        assert said.value.remedy and str(said.value).isascii() and len(str(said.value)) < 900
    else:
        assert rail.read(raw).challenge.id == right


# -- after a restart ----------------------------------------------------------------------------------------------


def test_the_choice_is_stored_with_the_answer() -> None:
    """Read again under settings that would choose another one, or none, it is the same challenge."""
    rail = mpp_before(Shop(OTHERS["pathusd"], challenge("first"), challenge("second")))
    raw = asyncio.run(rail.ask(asked(4217)))
    assert json.loads(raw)["chosen"] == "first"
    for other in (mpp_before(Shop(), dollar=PATH_DOLLAR), mpp_before(Shop(), pinned=None)):
        assert other.read(raw).challenge.id == "first"
    # What nothing could be paid of is not taken up again because the settings have changed since.
    raw = asyncio.run((rail := mpp_before(Shop(OTHERS["pathusd"]))).ask(asked(4217)))
    for one in (rail, mpp_before(Shop(), dollar=PATH_DOLLAR)):
        with pytest.raises(ChargeRefused, match="pathUSD"):
            one.read(raw)


def test_what_older_ledgers_hold_is_read_as_they_meant_it() -> None:
    """Without a stored choice there is exactly one challenge that is ours, asked for at OpenRouter's path."""
    rail = mpp_before(Shop(challenge("one"), OTHERS["card"]))
    kept = json.loads(asyncio.run(rail.ask(asked(4217))))
    older = {name: kept[name] for name in ("seller", "key", "lane", "sender", "challenges")}
    due = rail.read(json.dumps(older).encode())
    assert (due.challenge.id, due.path) == ("one", "/credits/purchases")
    older["challenges"].append(challenge("two"))
    with pytest.raises(ChargeRefused, match="2 challenges"):
        rail.read(json.dumps(older).encode())


def sent_again(raw: bytes, fields: Fields) -> tuple[Sent, list[tuple[str, bytes, str]]]:
    """Send the payment of a stored answer under these settings; return what the seller was asked."""
    plan = builders.plan(broadcaster=Broadcaster.SERVER, lane=1, nonce=0)
    out = Attempt(1, 1, plan, b"Payment e30", b"\x05" * 32, 1, 1, 1, withdrawn=False, inclusion=None, booked=False)
    one: TopUp = builders.topup(charges=(ChargeRow(1, 1, raw, None, proven=True),), attempts=(out,))
    shop = Shop()
    return asyncio.run(mpp_before(shop, fields=fields).send(one, out)), shop.posts


def test_the_same_request_is_sent_again_whatever_the_settings_say() -> None:
    """Path and body are those that the challenge was asked for with; other fields are for other purchases."""
    first = Fields(request_path="/v2/credit", amount_field="amount_usd", amount_as="text", body={"currency": "usd"})
    shop = Shop(challenge("one"))
    raw = asyncio.run(mpp_before(shop, fields=first).ask(asked(4217)))
    asked_with = ("/v2/credit", b'{"amount_usd": "10", "currency": "usd"}')
    assert [post[:2] for post in shop.posts] == [asked_with]
    for fields in (first, OPENROUTER):
        _, posts = sent_again(raw, fields)
        assert [post[:2] for post in posts] == [asked_with]
        # The challenge names no header of its own: the credential stands where the key stood.
        assert posts[0][2] == "Payment e30"


def test_a_digest_is_that_of_what_was_asked() -> None:
    """A seller that binds its challenge to the body has read the body that was sent."""
    fields = Fields(amount_field="usd")
    right = "sha-256=:2h+5lkqJk2fz/2uYFzwF0Yq5wQeVWb4nIHjAFTuDY7I=:"
    rail = mpp_before(Shop(challenge("one", digest=right)), fields=fields)
    with pytest.raises(ChargeRefused) as said:
        rail.read(asyncio.run(rail.ask(asked(4217))))
    assert said.value.field == "digest"
    honest = mpp_before(Shop(challenge("one", digest=said.value.should_be)), fields=fields)
    assert honest.read(asyncio.run(honest.ask(asked(4217)))).challenge.id == "one"


def test_amounts_are_written_as_they_are() -> None:
    """Never through a float: as a number or as a text, with what else the seller wants."""
    assert Fields().request(Usd.of("10.10")) == b'{"amount": 10.1}'
    assert Fields(amount_as="text", body={"a": 'b"'}).request(Usd.of("0.1")) == b'{"amount": "0.1", "a": "b\\""}'


def test_every_line_has_a_remedy() -> None:
    """Whatever is wrong, the line says which setting decides it, or that no setting does."""
    rail = mpp_before(Shop(*OTHERS.values()))
    judged = rail.judged(asyncio.run(rail.ask(asked(4217))), asked(4217))
    assert len(judged) == len(OTHERS) - 1
    assert all(one.wrong is not None and one.wrong.remedy for one in judged)
    assert all(line.remedy for one in judged for line in one.lines)
    assert not [line for one in judged for line in one.lines if line.was == "missing" and line.right]
    verified, _ = asyncio.run(proven(mpp_before(Shop(OTHERS["ousd"], challenge("right"))), asked(4217)))
    assert verified.demand.charge_id == "right"
