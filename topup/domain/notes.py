"""Under which names does the ledger keep what was said to it and what it keeps in mind, and what do the values mean?

Each note stands in the table `control` under its account, or under no account where it is about a chain. With it stand
the time and who said it.
"""

from enum import StrEnum
from typing import Final

# Who says what no person has said.
PROGRAM: Final = "topup"
# What a daemon calls itself where it takes a ledger over; a command says its own name.
DAEMON: Final = "daemon"


class Note(StrEnum):
    """A name, or with a colon at its end the beginning of one."""

    # What people say, and the program obeys.
    PAUSED = "paused"  # "1" while nothing new is bought
    RESOLVE = "resolve:"  # and a top-up: one of `ways_out.COMMANDS`, "" once it is obeyed
    ADOPT_NONCE = "adopt_nonce"  # "1": what the wallet sent without this ledger is accepted, for an hour
    ACCEPT_READING = "accept_reading"  # "1": a lower total is accepted, for a day; "0" once it is used up
    PINNED = "pinned_recipients"  # addresses with commas between them
    ADOPTED_NONCE = "adopted_nonce:"  # chain and wallet: below which nonce all was taken over
    ADOPTED_CARRIED = "adopted_carried:"  # chain, token, payer and key of a payment that was taken over: its hash
    # What the program keeps in mind.
    GONE = "gone:"  # and a rail: "1" once its endpoint said that it is gone
    RAILS = "rails"  # by which rails is bought, with commas: chosen by a person, or since this ledger began
    BY_HAND = "charges_by_hand"  # times of charges that belong to no top-up, with spaces between them
    CLOSED = "closed"  # the newest closing of the books, as JSON
    USAGE = "usage"  # why nothing came of the last question; its time is when the next one may be asked
    WALLET_UNCHECKED = "wallet_unchecked:"  # and a chain: what kept its part of the wallet from being looked at
    FLAG_TESTED = "flag_tested:"  # chain and contract: "1" once its mark has shown a payment of ours
    NONCE_MOVED = "nonce_moved:"  # and an attempt: since when something unknown uses its nonce, once that was said
    UNPLANNED = "unplanned"  # "1" since no payment could be planned, "0" since one could
    UNSEEN = "unseen"  # "1" since what is out could not be looked at, "0" since it could
    LEAPT = "leapt"  # how much time was last found to have gone by that no process lived through, in ms
    SERVES = "serves"  # which account the daemon serves that took this ledger over last
    ALARM = "alarm:"  # and a kind of message, and whom it is about where there are several: "1" while it holds
    SET_ASIDE = "set_aside:"  # and a target: its time is when others were last told what this one will never be
    TARGET = "target:"  # and a name: the last message that this target is not told, because it was not known then
    DIGEST = "digest"  # the first day (UTC) that no digest has told of
    SEED = "seed"  # what tells this ledger from every other: drawn once, carried along by each copy

    def of(self, *parts: object) -> str:
        """Return the whole name of the note about these."""
        return self + ":".join(map(str, parts))
