"""When does an inclusion that was recorded no longer count?

An inclusion may have been invented, by a provider that was the only one then, or its block may have been replaced. It
is taken back on positive proof alone: another block stands at its height, or, by the end of a later block, the nonce it
would have used is still to come (of an authorization: its mark is not set). That nobody shows its receipt proves
nothing. What is taken back was sent and may still be mined: it is followed on, and nothing is signed in its place.
"""

from collections.abc import Mapping
from dataclasses import replace

from topup.ports.chain import Observation


def confirmed(
    observation: Observation, second: Observation | None, recorded: Mapping[bytes, int], *, believe_unspent: bool
) -> Observation:
    """Return the first look with what the second one, through every provider, confirms; the rest is held in doubt.

    What is in doubt is neither taken back nor settled: safe and final end below its block, which `recorded` holds by
    its hash. In the second look two independent providers had to show it; it is None when that failed. What it shows of
    nonces and marks counts only where `believe_unspent` says so: not when there is one provider alone and no person has
    said that it may.
    """
    replaced = second.replaced & observation.replaced if second is not None else frozenset()
    unspent = second.unspent & observation.unspent if second is not None and believe_unspent else frozenset()
    doubted = (observation.replaced | observation.unspent) - replaced - unspent
    ends = [recorded[key] - 1 for key in doubted if key in recorded]

    def below(height: int | None) -> int | None:
        if height is None or not ends:
            return height
        lowest = min(height, *ends)
        return None if lowest < 0 else lowest

    return replace(
        observation,
        replaced=replaced,
        unspent=unspent,
        safe=below(observation.safe),
        finalized=below(observation.finalized),
    )


def gone(observation: Observation) -> frozenset[bytes]:
    """Return the hashes whose recorded inclusion no longer counts."""
    return observation.replaced | observation.unspent
