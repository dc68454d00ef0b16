"""What counts against the caps? Earlier top-ups as the policy sees them, from the ledger."""

from topup.domain.credits import DAY_MS
from topup.domain.lifecycle import NO_TOKENS, TERMINAL, Kind, State
from topup.domain.money import Bps, Usd, Usdc, Wei
from topup.domain.policy import Past
from topup.domain.reasons import Reason
from topup.ledger import rows
from topup.ledger.lock import Ledger


class Spending(Ledger):
    """Earlier top-ups, as the policy counts them."""

    def past(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return earlier top-ups as the policy sees them, oldest first.

        What was dropped because it was no longer needed or wanted leaves no trace here; anything else that ended
        without a payment is a failure, and anything unfinished counts at its maximum. What the network took in dollars
        of payments that failed counts as spent: gas in ETH has a limit of its own, which counts that of approvals as
        well until their top-up has paid.
        """
        # What is open, or ended lately, may have been decided long before.
        some = "FROM topup WHERE account = ? AND moved_ms >= ?"
        left: dict[str, int] = {}
        gas: dict[str, Wei] = {}
        fees: dict[str, Usdc] = {}
        success = "kind = 'pay' AND json_extract(inclusion, '$.success')"
        whole = f"SELECT DISTINCT topup FROM attempt WHERE topup IN (SELECT id {some}) AND {success}"
        paid = {row["topup"] for row in self._all(whole, account, since_ms)}
        useless = "NOT json_extract(inclusion, '$.success') OR kind = 'approve'"
        failure = f"CASE WHEN {useless} THEN inclusion END AS inclusion"
        sql = f"SELECT topup, intended_ms, {failure} FROM attempt WHERE topup IN (SELECT id {some})"
        for row in self._all(f"{sql} AND intended_ms IS NOT NULL", account, since_ms):
            name = row["topup"]
            left[name] = max(left.get(name, 0), row["intended_ms"])
            inclusion = rows.inclusion(row)
            if inclusion is not None and not (inclusion.success and name in paid):
                gas[name] = gas.get(name, Wei(0)) + inclusion.gas + inclusion.l1_fee
                fees[name] = fees.get(name, NO_TOKENS) + inclusion.token_fee
        past = []
        for row in self._all(f"SELECT * {some} ORDER BY decided_ms, rowid", account, since_ms):
            name, state = row["id"], State(row["state"])
            failed = state in (State.DROPPED, State.FAILED) and name not in paid
            if failed and row["reason"] in (Reason.NO_LONGER_NEEDED, Reason.WITHDRAWN):
                continue
            spent = Usd.of(0) if failed else Usd.of(row["amount"]).plus_bps(Bps(fee_bps))
            spent = spent + Usd(fees.get(name, NO_TOKENS).usdc)
            # A failure counts from its end: one that took days still holds the next decision back.
            ended = row["moved_ms"] if failed else left.get(name, row["decided_ms"])
            when = ended if state in TERMINAL else self._newest
            past.append(Past(when, spent, failed, gas.get(name, Wei(0)), name))
        past += self._written_off(account, since_ms, fee_bps)
        past.sort(key=lambda p: p.decided_ms)
        return past

    def counted(self, account: str, now_ms: int, fee_bps: int) -> tuple[Usd, Usd]:
        """Return what counts against the caps of 24 hours and of 30 days."""
        past = self.past(account, now_ms - 30 * DAY_MS, fee_bps)
        day = sum((p.spent for p in past if p.decided_ms > now_ms - DAY_MS), Usd.of(0))
        return day, sum((p.spent for p in past), Usd.of(0))

    def _written_off(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return charges whose payment left and that are proven dead or attested unpaid, each at its last sending."""
        sql = (
            "SELECT topup.id, topup.amount, max(intended_ms) AS at FROM charge"
            " JOIN topup ON topup.id = charge.topup"
            " JOIN attempt ON attempt.topup = charge.topup AND charge_seq = charge.seq AND kind = 'pay'"
            " WHERE topup.account = ? AND topup.moved_ms >= ? AND dead IS NOT NULL AND intended_ms IS NOT NULL"
            " GROUP BY charge.topup, charge.seq HAVING at >= ?"
        )
        charges = []
        for row in self._all(sql, account, since_ms, since_ms):
            spent = Usd.of(row["amount"]).plus_bps(Bps(fee_bps))
            charges.append(Past(row["at"], spent, topup_id=row["id"], written_off=True))
        return charges

    def paid(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return payments in blocks since then, each at the time of its block; oldest first.

        Of one that failed there, what the network took in dollars.
        """
        sql = (
            "SELECT topup.id, topup.amount, kind, inclusion, json_extract(inclusion, '$.block_ms') AS at FROM attempt"
            " JOIN topup ON topup.id = attempt.topup WHERE topup.account = ? AND at >= ? ORDER BY at"
        )
        counted = []
        for row in self._all(sql, account, since_ms):
            inclusion = rows.inclusion(row)
            assert inclusion is not None, "what has a time has a block"
            whole = inclusion.success and row["kind"] == Kind.PAY
            if not whole and (inclusion.success or not inclusion.token_fee.units):
                continue
            spent = Usd.of(row["amount"]).plus_bps(Bps(fee_bps)) if whole else Usd(inclusion.token_fee.usdc)
            counted.append(Past(row["at"], spent, failed=not whole, topup_id=row["id"]))
        return counted
