"""Why may the next payment take a nonce at which an ended top-up has left bytes?"""

import pytest

from tests.proofs.nonce_model import GAS, HELD, OVERTAKEN, PAYMENT, SKIPPED, Case, found


@pytest.mark.parametrize("rule", [OVERTAKEN, HELD])
def test_neither_rule_pays_twice(rule: str) -> None:
    """Safety is no reason to choose between them, however much ETH there is."""
    cases = [Case(rule, paused, dear) for paused in (False, True) for dear in (False, True)]
    assert not any(found(case, eth)[0] for case in cases for eth in range(2 * PAYMENT + 2 * GAS))


def test_a_payment_at_the_next_nonce_as_well_pays_twice() -> None:
    """The model notices a rule that does not wait for one nonce to be lost before it takes another."""
    assert found(Case(SKIPPED), 2 * PAYMENT)[0]


def test_a_wallet_that_can_pay_buys_where_the_nonce_is_overtaken() -> None:
    """With ETH for one payment and nothing besides, today's rule buys, and the other waits for ETH."""
    assert found(Case(OVERTAKEN), PAYMENT)[1]
    assert not found(Case(HELD), PAYMENT)[1]
    assert found(Case(HELD), PAYMENT + GAS)[1]


def test_a_held_nonce_is_freed_only_by_spending_in_a_pause() -> None:
    """While paused the other rule either spends, or has all its cancels before it when the pause ends."""
    rich = PAYMENT + 2 * GAS
    assert found(Case(HELD, paused=True, cancels_while_paused=True), rich)[2]
    assert not found(Case(HELD, paused=True), rich)[2]
    assert not found(Case(OVERTAKEN, paused=True), rich)[2]


@pytest.mark.parametrize("rule", [OVERTAKEN, HELD])
def test_above_the_ceiling_neither_buys(rule: str) -> None:
    """Gas above the ceiling stops payments and cancels alike."""
    assert not found(Case(rule, dear=True), PAYMENT + 2 * GAS)[1]
