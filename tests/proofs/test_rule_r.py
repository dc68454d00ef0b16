"""Does Rule R hold in every state of the model, and does the program conclude a death only where the model does?"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proofs import sponsored_model, wish_model
from tests.proofs.rule_r import (
    BELIEVING,
    CHARGES,
    RULE_R,
    SEEN,
    TAKES_NONCE,
    WRONG,
    Model,
    Rule,
    State,
    expired,
    explore,
    paid,
    payable,
    proof_r,
    reachable,
    used,
)
from tests.world.builders import NOW_MS, NOW_S, inclusion, plan, signed_bytes, topup
from topup.domain.lifecycle import Attempt, ChargeRow, Kind, TopUp
from topup.domain.nonpayment import (
    WITNESSES,
    ChargeStatus,
    NonPaymentProof,
    Paid,
    Undecided,
    may_sign,
    non_payment_proof,
)

# The first block of the model is the one after this.
GROUND = 100
DEADLINES_S = (NOW_S + 1000, NOW_S + 2000)
# Times of a block before the first deadline, between the two, and after both; a block at its deadline still pays.
TIMES_S = (*DEADLINES_S, DEADLINES_S[1] + 1)

# -- the model --------------------------------------------------------------------------------------------------------


def test_under_rule_r_two_charges_are_never_both_paid() -> None:
    """Two charges, three nonces, any mining, reverts, reorganisations and finality: no state holds two payments."""
    result = explore(Model(RULE_R))
    print(f"{len(result.reached):,} states")
    assert result.story is None
    assert len(result.reached) == 435_373


def test_a_block_that_was_seen_and_is_final_is_proof_enough() -> None:
    """All nonces used by the end of a block that is remembered by its hash, final, and unpaid: no state pays twice."""
    result = explore(SEEN)
    print(f"{len(result.reached):,} states")
    assert result.story is None


def test_what_was_believed_and_taken_back_is_never_paid_beside_another() -> None:
    """Inclusions that never were, believed and taken back at any time: no state holds two payments."""
    result = explore(BELIEVING)
    print(f"{len(result.reached):,} states")
    assert result.story is None


def test_what_was_taken_back_is_not_dead() -> None:
    """Taking an inclusion back for a proof that it can never be is caught."""
    result = explore(replace(BELIEVING, forgets=True))
    assert result.story is not None
    print(result.story)


@pytest.mark.parametrize("rule", WRONG, ids=lambda rule: rule.name)
def test_a_rule_that_looks_right_pays_twice(rule: Rule) -> None:
    """Each of the rules that look right beside Rule R pays both charges, in so many steps and no fewer."""
    story = explore(Model(rule)).story
    assert story is not None
    assert len(story) == rule.steps
    assert "pays" in story[-1]


def test_the_model_is_not_safe_by_being_idle() -> None:
    """Under Rule R either charge can be paid, and the second one also after the first was proven dead, either way."""
    graph = reachable(Model(RULE_R, nonces=2, idle=0))
    for charge in (0, 1):
        after_death = [s for s in graph if paid(s.final, charge) and s.dead[1 - charge]]
        assert any(expired(s.final, 1 - charge) for s in after_death)
        assert any(not expired(s.final, 1 - charge) for s in after_death)


# -- wishes -----------------------------------------------------------------------------------------------------------


def test_following_the_exit_codes_never_buys_twice_and_4_is_never_a_lie() -> None:
    """No way through asking, killing, leaving and repeating sends two payments; each answer can be reached."""
    result = wish_model.explore(wish_model.RULE, lambda state: wish_model.twice(state) or wish_model.lied(state))
    assert result.story is None
    assert {"0", "4", "5", "killed"} <= {state.said for state in result.reached}


@pytest.mark.parametrize("rule", wish_model.TWICE, ids=lambda rule: rule.name)
def test_a_weaker_rule_for_wishes_buys_twice(rule: wish_model.Rule) -> None:
    """A new row for each command, or a top-up bound later, buys a second time for whoever follows the codes."""
    assert wish_model.explore(rule, wish_model.twice).story is not None


@pytest.mark.parametrize("rule", wish_model.LYING, ids=lambda rule: rule.name)
def test_a_weaker_rule_for_wishes_acts_after_a_4(rule: wish_model.Rule) -> None:
    """A wish that is left behind, or taken without looking, is carried out after its asker was told otherwise."""
    assert wish_model.explore(rule, wish_model.lied).story is not None


# -- a payment whose fee somebody else pays ---------------------------------------------------------------------------


def test_a_sponsored_payload_and_its_replacement_are_never_both_paid() -> None:
    """Two sponsors, silence, reorganisations, a lying owner, an index that is empty or behind: no state pays twice."""
    result = sponsored_model.explore(sponsored_model.RULE)
    print(f"{len(result.reached):,} states")
    assert result.story is None


@pytest.mark.parametrize("rule", sponsored_model.WRONG, ids=lambda rule: rule.name)
def test_a_weaker_rule_for_sponsored_payloads_pays_twice(rule: sponsored_model.Rule) -> None:
    """Each rule that leaves out a part is caught, in so many steps and no fewer."""
    story = sponsored_model.explore(rule).story
    assert story is not None
    assert len(story) == rule.steps
    assert "pays" in story[-1]


def test_the_model_of_sponsored_payloads_is_not_safe_by_being_idle() -> None:
    """Either sponsor may carry the payload, and its replacement is paid once it is dead."""
    reached = sponsored_model.explore(sponsored_model.RULE).reached
    for block in "Aa":
        assert any(block in state.final for state in reached)
    assert any(state.dead and "B" in state.final for state in reached)
    assert not any(state.dead and sponsored_model.ran(state.chain, "A") for state in reached)


# -- the program, held against the model ------------------------------------------------------------------------------


@cache
def attempt(kind: Kind, seq: int, nonce: int, block: int | None, *, success: bool, intended: bool = True) -> Attempt:
    """One transaction of charge `seq`; each place and kind has bytes of its own."""
    raw, tx_hash = signed_bytes(f"{kind} {seq} {nonce}")
    return Attempt(
        id=100 * nonce + 10 * seq + (kind is Kind.CANCEL),
        charge_seq=seq,
        plan=plan(kind=kind, nonce=nonce),
        raw=raw,
        hash=tx_hash,
        intended_ms=NOW_MS if intended else None,
        last_sent_ms=None,
        sends=0,
        withdrawn=False,
        inclusion=None if block is None else inclusion(success=success, block_number=block),
        booked=False,
    )


@dataclass(frozen=True)
class View:
    """How much of a state the ledger and the providers know.

    `known` says of how many blocks the inclusions are known, `asked` up to which block the mark and the events were
    read, and `other` whose transactions took a nonce beside the payments: ours; a stranger's that final blocks are
    shown to hold; or a stranger's of which nothing is known.
    """

    known: Callable[[State], str]
    asked: Callable[[State], str]
    other: str


def _all(state: State) -> str:
    return state.chain


def _final(state: State) -> str:
    return state.final


def _none(_state: State) -> str:
    return ""


EVERYTHING = View(_all, _all, "ours")
VIEWS = {
    "everything": EVERYTHING,
    "what is final": View(_final, _final, "shown"),
    "a stranger's transactions, shown in final blocks": View(_all, _all, "shown"),
    "a stranger's transactions beside ours": View(_all, _final, "stranger"),
    "no receipt": View(_none, _all, "ours"),
}


@dataclass(frozen=True)
class Records:
    """A state of the model as the program would hold it."""

    topup: TopUp
    gone: frozenset[tuple[int, int]]
    payment_statuses: tuple[ChargeStatus, ChargeStatus]


BARE = topup()


@cache
def marked(dead: tuple[bool, bool]) -> tuple[ChargeRow, ...]:
    return rows(*("proven" if one else None for one in dead))


def records(state: State, view: View) -> Records:
    places: dict[tuple[int, int], tuple[int, bool]] = {}
    others: list[Attempt] = []
    nonce = 0
    for block, letter in enumerate(view.known(state), GROUND + 1):
        if letter not in TAKES_NONCE:
            continue
        if letter == "x":
            others.append(attempt(Kind.CANCEL, 1, nonce, block, success=True))
        else:
            places[CHARGES.index(letter.lower()), nonce] = (block, letter.isupper())
        nonce += 1
    payments: list[Attempt] = []
    for charge, bits in enumerate(state.signed):
        for at in range(bits.bit_length()):
            if bits >> at & 1:
                where, success = places.get((charge, at), (None, False))
                payments.append(attempt(Kind.PAY, charge + 1, at, where, success=success))
    ours = (*payments, *others) if view.other == "ours" else tuple(payments)
    gone = frozenset((0, nonce) for nonce in range(used(state.final))) if view.other == "shown" else frozenset()
    payment_statuses = (_fate(state, view, 0), _fate(state, view, 1))
    return Records(replace(BARE, charges=marked(state.dead), attempts=ours), gone, payment_statuses)


def _fate(state: State, view: View, charge: int) -> ChargeStatus:
    blocks = view.asked(state)
    payers: frozenset[bytes] = frozenset()
    if paid(blocks, charge):
        nonce = used(blocks[: blocks.index(CHARGES[charge].upper())])
        payers = frozenset({attempt(Kind.PAY, charge + 1, nonce, None, success=False).hash or b""})
    return ChargeStatus(
        final_number=GROUND + len(state.final),
        final_s=TIMES_S[state.final.count("t")],
        flag=bool(payers),
        payers=payers,
        witnesses=WITNESSES,
    )


def judged(held: Records, charge: int) -> NonPaymentProof | Paid | Undecided:
    return non_payment_proof(
        held.topup,
        charge + 1,
        deadline_s=DEADLINES_S[charge],
        payment_status=held.payment_statuses[charge],
        flag_tested=True,
        gone=held.gone,
    )


@dataclass(frozen=True)
class Reached:
    """All states of two charges and three nonces under Rule R, without blocks in which nothing happens.

    `sights` are the states apart from their marks, which no verdict looks at, and `payable` says for each charge in
    which of these it is paid or may come to be paid, although nobody signs it again.
    """

    states: frozenset[State]
    sights: frozenset[State]
    payable: tuple[frozenset[State], frozenset[State]]


def _unmarked(states: Iterable[State]) -> frozenset[State]:
    return frozenset(state._replace(dead=(False, False)) for state in states)


@cache
def reached() -> Reached:
    graph = reachable(Model(RULE_R, idle=0))
    return Reached(frozenset(graph), _unmarked(graph), (_unmarked(payable(graph, 0)), _unmarked(payable(graph, 1))))


@cache
def answers(view: str) -> list[tuple[State, int, NonPaymentProof | Paid | Undecided]]:
    held = ((state, records(state, VIEWS[view])) for state in reached().sights)
    return [(state, charge, judged(one, charge)) for state, one in held for charge in (0, 1)]


@pytest.mark.parametrize("view", VIEWS)
def test_dead_is_said_only_of_what_can_never_be_paid(view: str) -> None:
    """In every state, whatever part of it is known: no way leads from a charge that is called dead to its payment."""
    said: Counter[str] = Counter()
    for state, charge, answer in answers(view):
        said[answer if isinstance(answer, NonPaymentProof) else type(answer).__name__] += 1
        wrong = isinstance(answer, NonPaymentProof) and state in reached().payable[charge]
        assert not wrong, f"{state}: {CHARGES[charge]} is {answer}"
        assert not isinstance(answer, Paid) or paid(state.chain, charge), state
    print(f"{len(reached().sights):,} states: {dict(said)}")
    expected = {NonPaymentProof.NEVER_LEFT, NonPaymentProof.DEADLINE, "Paid", "Undecided"}
    nonce = {NonPaymentProof.NONCE} if view != "no receipt" else set()
    assert set(said) == expected | nonce | ({NonPaymentProof.FOREIGN} if VIEWS[view].other == "shown" else set())


@pytest.mark.parametrize("view", ["everything", "what is final", "a stranger's transactions, shown in final blocks"])
def test_dead_is_said_as_soon_as_it_is_proven(view: str) -> None:
    """Where all that is final is known, the program calls a charge dead exactly where the model can prove it."""
    for state, charge, answer in answers(view):
        proven = not state.signed[charge] or proof_r(state, charge)
        assert isinstance(answer, NonPaymentProof) == proven, f"{state}: {CHARGES[charge]} is {answer}"


@pytest.mark.parametrize("view", VIEWS)
def test_past_its_deadline_every_unpaid_charge_is_decided(view: str) -> None:
    """Once a final block is past the deadline, an unpaid charge is dead by it: no wait lasts longer than finality."""
    over = [
        (state, charge, answer)
        for state, charge, answer in answers(view)
        if state.signed[charge] and expired(state.final, charge) and not paid(state.chain, charge)
    ]
    assert over
    for state, charge, answer in over:
        assert answer is NonPaymentProof.DEADLINE, f"{state}: {CHARGES[charge]} is {answer}"


def test_a_payment_may_be_signed_exactly_where_the_model_lets_it() -> None:
    """In every state: signing is allowed where Rule R allows it, and then no other charge can still be paid."""
    model = Model(RULE_R)
    for state in reached().states:
        held = records(state, EVERYTHING)
        for charge in (0, 1):
            allowed = may_sign(held.topup, charge + 1) is None
            assert allowed == model.may_sign(state, charge), f"{state}: {CHARGES[charge]}"
            other = state._replace(dead=(False, False)) in reached().payable[1 - charge]
            assert not (allowed and other), f"{state}: {CHARGES[charge]}"


@dataclass(frozen=True)
class Program(Model):
    """The model with the program's own `may_sign` in the place of the rule's."""

    def may_sign(self, state: State, charge: int) -> bool:
        return may_sign(records(state, EVERYTHING).topup, charge + 1) is None


@pytest.mark.parametrize("view", VIEWS)
def test_a_sender_that_asks_the_program_never_pays_twice(view: str) -> None:
    """The sender of the model acts on nothing but `verdict` and `may_sign`: again no state holds two payments."""
    rule = Rule(
        "the program", lambda state, charge: isinstance(judged(records(state, VIEWS[view]), charge), NonPaymentProof)
    )
    result = explore(Program(rule, nonces=2, idle=0))
    print(f"{len(result.reached):,} states")
    assert result.story is None


# -- the table of verdicts --------------------------------------------------------------------------------------------

DEADLINE_S = DEADLINES_S[0]
OUT = attempt(Kind.PAY, 1, 7, None, success=False)
OUT_TOO = attempt(Kind.PAY, 1, 8, None, success=False)
OPEN = ChargeStatus(200, DEADLINE_S, flag=False, payers=frozenset(), witnesses=2)
OVER = replace(OPEN, final_s=DEADLINE_S + 1)
OURS = OUT.hash or b""
THEIRS = b"\x77" * 32
OVER_AND_PAID = replace(OVER, payers=frozenset({OURS}))
PAID_BY_THEM = replace(OPEN, payers=frozenset({THEIRS}))
GONE = frozenset({(0, 7)})


def of(
    *attempts: Attempt,
    payment_status: ChargeStatus = OPEN,
    tested: bool = True,
    gone: frozenset[tuple[int, int]] = frozenset(),
) -> object:
    """Judge charge 1 of a top-up with these attempts."""
    return non_payment_proof(
        topup(attempts=attempts), 1, deadline_s=DEADLINE_S, payment_status=payment_status, flag_tested=tested, gone=gone
    )


def cancel(nonce: int, block: int) -> Attempt:
    return attempt(Kind.CANCEL, 1, nonce, block, success=True)


def reverted(nonce: int, block: int) -> Attempt:
    return attempt(Kind.PAY, 1, nonce, block, success=False)


TABLE = [
    ("nothing was signed", of(), NonPaymentProof.NEVER_LEFT),
    ("signed and not meant to be sent", of(replace(OUT, intended_ms=None)), NonPaymentProof.NEVER_LEFT),
    ("only a cancel left", of(cancel(7, 150)), NonPaymentProof.NEVER_LEFT),
    ("another charge's payment left", of(replace(OUT, charge_seq=2)), NonPaymentProof.NEVER_LEFT),
    ("our own payment stands", of(attempt(Kind.PAY, 1, 7, 150, success=True)), Paid(frozenset({OURS}))),
    ("our own stands, no event yet", of(attempt(Kind.PAY, 1, 7, 300, success=True)), Paid(frozenset({OURS}))),
    ("an event past the deadline", of(OUT, payment_status=OVER_AND_PAID), Paid(frozenset({OURS}))),
    ("a stranger's event", of(OUT, payment_status=PAID_BY_THEM), Paid(frozenset({THEIRS}))),
    ("the tested mark alone", of(OUT, payment_status=replace(OVER, flag=True)), Paid(frozenset())),
    ("a revert in a final block", of(reverted(7, 150)), NonPaymentProof.NONCE),
    ("a revert in the final block itself", of(reverted(7, 200)), NonPaymentProof.NONCE),
    ("cancelled", of(OUT, cancel(7, 150)), NonPaymentProof.NONCE),
    ("a stranger took its nonce, finally", of(OUT, gone=GONE), NonPaymentProof.FOREIGN),
    ("ours and a stranger's", of(OUT, OUT_TOO, cancel(7, 150), gone=frozenset({(0, 8)})), NonPaymentProof.FOREIGN),
    ("ours, as the nonce shows as well", of(OUT, cancel(7, 150), gone=GONE), NonPaymentProof.NONCE),
    ("a stranger's event and nonce", of(OUT, payment_status=PAID_BY_THEM, gone=GONE), Paid(frozenset({THEIRS}))),
]


@pytest.mark.parametrize(("story", "said", "should"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_concluded(story: str, said: object, should: object) -> None:
    """What each sight of a charge proves."""
    assert said == should, story


UNDECIDED = [
    ("the untested mark alone", of(OUT, payment_status=replace(OVER, flag=True), tested=False), "has not been tested"),
    ("one provider, past the deadline", of(OUT, payment_status=replace(OVER, witnesses=1)), "one provider"),
    ("a revert in a later block", of(reverted(7, 201)), "may still be mined"),
    ("taken in another lane", of(OUT, gone=frozenset({(1, 7)})), "may still be mined"),
    ("a cancel that never left", of(OUT, replace(cancel(7, 150), intended_ms=None)), "may still be mined"),
    ("a cancel in no block", of(OUT, replace(cancel(7, 150), inclusion=None)), "may still be mined"),
]


@pytest.mark.parametrize(("story", "said", "why"), UNDECIDED, ids=[row[0] for row in UNDECIDED])
def test_what_is_not_concluded(story: str, said: object, why: str) -> None:
    """What proves nothing, and the sentence that says why."""
    assert isinstance(said, Undecided), story
    assert why in said.why


attempts = st.builds(
    attempt,
    st.sampled_from([Kind.PAY, Kind.CANCEL]),
    st.integers(1, 2),
    st.integers(5, 8),
    st.none() | st.integers(198, 203),
    success=st.booleans(),
    intended=st.booleans(),
)
sights = st.builds(
    ChargeStatus,
    final_number=st.integers(198, 203),
    final_s=st.integers(DEADLINE_S - 2, DEADLINE_S + 2),
    flag=st.booleans(),
    payers=st.just(frozenset[bytes]()) | st.just(frozenset({THEIRS})),
    witnesses=st.integers(0, 3),
)
tuples = st.lists(attempts, max_size=5).map(tuple)
places = st.frozensets(st.tuples(st.just(0), st.integers(5, 8)))


@given(made=tuples, payment_status=sights, tested=st.booleans(), gone=places)
def test_one_witness_never_concludes_a_death(
    *, made: tuple[Attempt, ...], payment_status: ChargeStatus, tested: bool, gone: frozenset[tuple[int, int]]
) -> None:
    """A charge that may be out is never dead by the word of fewer than two providers; it may be named what would be."""
    if any(a.intended_ms is not None and a.plan.kind is Kind.PAY and a.charge_seq == 1 for a in made):
        by_one = of(*made, payment_status=replace(payment_status, witnesses=1), tested=tested, gone=gone)
        by_two = of(*made, payment_status=replace(payment_status, witnesses=WITNESSES), tested=tested, gone=gone)
        assert not isinstance(by_one, NonPaymentProof)
        confirmed = by_one.if_confirmed if isinstance(by_one, Undecided) else None
        assert confirmed == (by_two if isinstance(by_two, NonPaymentProof) else None)


@given(made=tuples, payment_status=sights, tested=st.booleans(), gone=places, data=st.data())
def test_knowing_less_never_concludes_more(
    *,
    made: tuple[Attempt, ...],
    payment_status: ChargeStatus,
    tested: bool,
    gone: frozenset[tuple[int, int]],
    data: st.DataObject,
) -> None:
    """What is undecided stays so with an earlier final block, fewer providers, or inclusions that are not known."""
    if not isinstance(of(*made, payment_status=payment_status, tested=tested, gone=gone), Undecided):
        return
    earlier = replace(
        payment_status,
        final_number=payment_status.final_number - data.draw(st.integers(0, 3)),
        final_s=payment_status.final_s - data.draw(st.integers(0, 3)),
        witnesses=payment_status.witnesses - data.draw(st.integers(0, 1)),
    )
    forgotten = [replace(a, inclusion=None) if data.draw(st.booleans()) else a for a in made]
    fewer = frozenset(one for one in gone if data.draw(st.booleans()))
    assert isinstance(of(*forgotten, payment_status=earlier, tested=tested, gone=fewer), Undecided)


@given(made=tuples, payment_status=sights, tested=st.booleans(), gone=places)
def test_paid_is_never_called_dead(
    *, made: tuple[Attempt, ...], payment_status: ChargeStatus, tested: bool, gone: frozenset[tuple[int, int]]
) -> None:
    """An event, the contract's mark or our own inclusion: each alone keeps a charge that may be out from being dead."""
    out = (*made, OUT)
    assert not isinstance(
        of(*out, payment_status=replace(payment_status, payers=frozenset({THEIRS})), tested=tested, gone=gone),
        NonPaymentProof,
    )
    assert not isinstance(
        of(*out, payment_status=replace(payment_status, flag=True), tested=tested, gone=gone), NonPaymentProof
    )
    ours = (*made, attempt(Kind.PAY, 1, 7, 200, success=True))
    assert isinstance(of(*ours, payment_status=payment_status, tested=tested, gone=gone), Paid)


# -- Rule R over the stored marks -------------------------------------------------------------------------------------


def rows(*dead: str | None) -> tuple[ChargeRow, ...]:
    return tuple(ChargeRow(seq, NOW_MS, b"{}", None, proven=True, dead=one) for seq, one in enumerate(dead, 1))


def test_every_other_charge_that_left_has_to_be_dead() -> None:
    """One of three charges without its proof forbids the newest, and is named."""
    left = (OUT, attempt(Kind.PAY, 2, 8, 150, success=False))
    forbidden = may_sign(topup(charges=rows("deadline", None, None), attempts=left), 3)
    assert forbidden is not None and "charge 2" in forbidden
    assert may_sign(topup(charges=rows("deadline", "nonce", None), attempts=left), 3) is None


def test_what_never_left_needs_no_proof() -> None:
    """An earlier charge forbids nothing while it was only signed and not meant to be sent, or cancelled."""
    kept = replace(OUT, intended_ms=None)
    assert may_sign(topup(charges=rows(None, None), attempts=(kept, cancel(7, 150))), 2) is None


def test_an_abandoned_charge_is_not_a_dead_one() -> None:
    """That we gave a charge up is our own doing: it forbids the next as long as its proof is missing."""
    given_up = replace(rows(None)[0], abandoned="the deadline passed")
    assert may_sign(topup(charges=(given_up, *rows(None, None)[1:]), attempts=(OUT,)), 2) is not None
