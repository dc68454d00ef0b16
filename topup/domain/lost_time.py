"""Has time gone by that this process did not live through?

A machine that is put back to an earlier moment, memory and disk together, goes on as if nothing had been signed since,
and its monotonic clock with it. Other clocks tell: this machine's, once it is set again, and the chain's. Where one of
them has gone further than the monotonic clock, by more than a minute and a tenth of what a young process waits, the
process did not live through that time. A machine that slept looks the same, and is treated so. A chain that halted and
catches up with this machine's clock has leapt over nothing.
"""

# No shorter leap counts.
LEAST_MS = 60_000


class Lived:
    """Holds other clocks against the monotonic one, each since the last pass."""

    def __init__(self, young_s: int) -> None:
        """Count leaps of more than a minute that are a tenth of `young_s` at least."""
        self._least_ms = max(LEAST_MS, young_s * 100)
        self._wall: tuple[int, int] | None = None
        self._chain: tuple[int, int] | None = None

    def begin(self, mono_ms: int, wall_ms: int) -> None:
        """Begin a pass: from here on the machine's clock is held against the monotonic one."""
        self._wall = (mono_ms, wall_ms)

    def wall(self, mono_ms: int, wall_ms: int) -> int | None:
        """Return by how many ms the machine's clock has leapt since the pass began; None where it has not."""
        if self._wall is None:
            self.begin(mono_ms, wall_ms)
            return None
        then, was = self._wall
        leap = wall_ms - was - (mono_ms - then)
        if not self._counts(leap):
            return None
        self.begin(mono_ms, wall_ms)
        return leap

    def chain(self, mono_ms: int, chain_ms: int) -> int | None:
        """Return by how many ms the chain's clock has leapt since it was told last, beyond the machine's clock as well.

        While it was not told before, it is held against the machine's clock alone.
        """
        known = [at + mono_ms - then for then, at in filter(None, (self._wall, self._chain))]
        leap = chain_ms - max(known, default=chain_ms)
        # Never back: a provider that is behind, or lies, must not make the next honest answer a leap.
        if self._chain is None or chain_ms >= self._chain[1] + mono_ms - self._chain[0]:
            self._chain = (mono_ms, chain_ms)
        return leap if self._counts(leap) else None

    def _counts(self, leap_ms: int) -> bool:
        return leap_ms > LEAST_MS and leap_ms >= self._least_ms
