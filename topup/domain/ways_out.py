"""What ends each state of a top-up, and what may a person say of it?

One table, from which the documents are written and `topup resolve` answers: a word is taken only where it can do
something, and what it will do is said before it does it. That a top-up goes on by itself is said only where the table
names what ends its state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from topup.domain.lifecycle import TERMINAL, Broadcaster, State, TopUp
from topup.domain.notes import Note

# The name under which `topup resolve ID` leaves a person's word, and what it may say.
RESOLVE: Final = Note.RESOLVE.value
LOOK: Final = "look"
ATTEST: Final = "attest-unpaid"
CANCEL: Final = "cancel"
CREDITED: Final = "credited"

# How a person says each of them.
COMMANDS: Final = {
    LOOK: "topup resolve ID",
    ATTEST: "topup resolve ID --attest-unpaid",
    CANCEL: "topup resolve ID --cancel",
    CREDITED: "topup resolve ID --credited",
}


@dataclass(frozen=True)
class Way:
    """How a state is left: what ends it without a person, and what each word does that is taken there."""

    ends: str
    words: Mapping[str, str] = field(default_factory=dict)


_UNSENT: Final = "ends it as `dropped` with the next pass: nothing of it was sent"
_PENDING: Final = "ends it as `dropped` when its bytes have not left; when they have, as under `sent`"
_TAKE_BACK: Final = (
    "takes the payment back to `sent` when your one provider shows another block there, or that the payment's nonce is"
    " unused past its block (of an authorization: that its mark is unset); else changes nothing. Two providers need no"
    " word for it"
)
_ATTEST: Final = (
    "ends it as `failed` on your word that it was never paid, once a final block is past its deadline or past all that"
    " was sent, unless the chain shows it paid"
)
_AGAIN: Final = (
    "looks once more at what it had in a block, which is taken back as under `uncredited`; buying is paused then"
)

WAYS: Final[Mapping[State, Way]] = {
    State.DECIDED: Way("the request for a charge, when its turn comes", {CANCEL: _UNSENT}),
    State.ASKING: Way("the answer, or the end of the request's time", {CANCEL: _UNSENT}),
    State.CHARGED: Way(
        "the payment, once limits, price, wallet and providers permit it; the charge's deadline; credits that are no"
        " longer needed",
        {
            CANCEL: "ends it as `dropped` with the next pass; when a payment of this charge has failed before, it is"
            " given up and waits for proof, as under `deathwatch`"
        },
    ),
    State.RESERVED: Way("the signature, in the same pass", {CANCEL: _PENDING}),
    State.SIGNED: Way("the sending, in the same pass", {CANCEL: _PENDING}),
    State.SENT: Way(
        "a block that holds it; a revert; a final block past its deadline; a final block that shows its nonce used by"
        " something else. Where its nonce is used and none of that comes within an hour, it halts",
        {
            CANCEL: "sends a transaction that moves nothing at the same nonce; either may win. When the cancel wins, it"
            " ends as `failed` once the charge is proven dead"
        },
    ),
    State.REVERTED: Way(
        "another try of the same charge, or the end of the tries",
        {CANCEL: "gives the charge up: it ends as `failed` once it is proven dead"},
    ),
    State.DEATHWATCH: Way(
        "proof by two providers at a final block; with one provider it halts when that block has come",
        {
            CANCEL: "ends it as `failed` once the charge is proven dead, instead of buying another",
            ATTEST: _ATTEST + ". It counts where two providers cannot decide",
        },
    ),
    State.PAID: Way(
        "the credits; after `posting.late_s` without them it is `uncredited`",
        {LOOK: _TAKE_BACK, ATTEST: _TAKE_BACK},
    ),
    State.UNCREDITED: Way(
        "the credits, for as long as it takes; proof by two providers that the payment does not stand",
        {
            CREDITED: "ends the wait on your word that the credits are in the account, or that the seller has settled"
            " it otherwise",
            LOOK: _TAKE_BACK,
            ATTEST: _TAKE_BACK,
        },
    ),
    State.CREDITED: Way(
        "a safe block; proof by two providers that the payment does not stand", {LOOK: _TAKE_BACK, ATTEST: _TAKE_BACK}
    ),
    State.HALTED: Way(
        "",
        {
            LOOK: "goes on as `paid` when the chain shows the payment, ends as `failed` when two providers prove the"
            " charge dead or nothing of it ever left; else it stays halted",
            ATTEST: _ATTEST + ". When the chain shows the payment it goes on as `paid`",
            CREDITED: "goes on as `credited`, when the chain shows the payment",
        },
    ),
    **{state: Way("", {LOOK: _AGAIN, ATTEST: _AGAIN}) for state in (State.DONE, State.DROPPED, State.FAILED)},
}


@dataclass(frozen=True)
class Answer:
    """What a word will do, or why it is not taken and what there is to do instead."""

    sentence: str
    remedy: str = ""
    taken: bool = False


def answer(topup: TopUp, word: str, *, contested: bool = False) -> Answer:
    """Say what a person's word about a top-up, one of those in `COMMANDS`, would do.

    `contested` says that the ledger holds that something unknown has used a nonce of it.
    """
    way, state = WAYS[topup.state], topup.state
    if word == CANCEL and state in (State.SENT, State.RESERVED, State.SIGNED):
        newest = topup.attempt
        if newest is not None and newest.plan.broadcaster is Broadcaster.SERVER:
            return Answer(
                "what a seller holds cannot be taken back: it is used, or ends at its deadline",
                "`topup show ID` names the deadline; `topup pause` keeps anything more from being bought",
            )
        if contested:
            return Answer(
                "a cancel can do nothing: the nonce it would take was used by a transaction that the ledger does not"
                " know",
                "`topup reconcile` names it, and `topup reconcile --adopt` takes it over",
            )
    if word == CREDITED and state is State.HALTED and topup.payment is None:
        return Answer("the chain shows no payment whose credits could be there", "`topup show ID`")
    if state in TERMINAL and all(a.inclusion is None for a in topup.out):
        return Answer("nothing of it stands in a block", "`topup show ID`")
    if word in way.words:
        return Answer(way.words[word], taken=True)
    others = ", ".join(f"`{COMMANDS[other]}`" for other in way.words)
    if contested and state is State.SENT:
        return Answer(
            "its nonce was used by a transaction that the ledger does not know: it ends once a final block shows that,"
            " or halts an hour after it was noticed, and takes a word then",
            "`topup reconcile` names that transaction, and `topup reconcile --adopt` takes it over now",
        )
    if way.ends:
        return Answer(f"it goes on by itself: what ends this is {way.ends}", others)
    return Answer("this word can do nothing here", others or "`topup show ID`")
