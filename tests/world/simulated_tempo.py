"""What do a Tempo chain and a seller that settles there do, in the simulated world?

The buyer hands a whole signed transaction over, and the seller carries it to the chain when it likes. Each stands on a
lane, of which the chain runs one transaction at most, and not from `validBefore` on; a lane is used up by what fails,
too. The network takes its fee in the token. What cannot run waits in the pool without a word, or is dropped.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any, Final

from tests.world import builders
from tests.world.simulated import (
    NO_NONCE,
    SELLER,
    Block,
    Clock,
    Net,
    Receipt,
    SimulatedApi,
    SimulatedSeller,
    SimulatedSigner,
    SimulatedTokens,
    Tx,
    answer,
)
from topup.domain import tempo
from topup.domain.demand import Verified
from topup.domain.dollars import TEMPO_DOLLAR
from topup.domain.lifecycle import Plan
from topup.sandbox.charges import STRANGER
from topup.sellers import mpp_choice, mpp_wire
from topup.wire.http import Answered

REALM: Final = "seller.example"
KEY: Final = "sk-or-simulated-key-of-nobody"
PAY_GAS, REVERT_GAS = 310_000, 270_000
OVERHEAD_PERCENT: Final = 5


class TempoNet(Net):
    """A chain with lanes; gas is priced in 10^-18 dollars, and paid in the token."""

    base_fee_first, base_fee_min, base_fee_max = 20 * 10**9, 10**9, 60 * 10**9

    def _carry(self, tx: Tx, after: Block) -> Receipt | None:
        """Run what can run on its lane; the rest waits, for ever where its time is over."""
        over = after.head.timestamp_s >= tx.deadline or tx.place in after.used
        if over or tx.fee < self.base_fee:
            return None
        gas = REVERT_GAS if self.frozen else PAY_GAS
        fee = -(-gas * self.base_fee // 10**12)
        return Receipt(tx, success=not self.frozen, spent=0 if self.frozen else tx.total, fee=fee)


class TempoTokens(SimulatedTokens):
    chain_id = TEMPO_DOLLAR.chain_id


class TempoSigner(SimulatedSigner):
    """The `Signer` port: signs Tempo transactions, as data instead of RLP."""

    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        due = verified.demand
        assert isinstance(due, mpp_choice.Due)
        self._proven(verified, (due.recipient, plan.tokens.units))
        assert plan.data == tempo.transfer_with_memo(due.recipient, due.total.units, due.memo), "signed another call"
        assert plan.ends_s == due.deadline, "signed for another time than was proven"
        assert plan.lane == due.lane != 0, "signed on another lane than was proven"
        assert due.recipient == builders.address(SELLER), "signed for somebody else"
        raw = json.dumps([plan.lane, plan.ends_s, plan.max_fee_per_gas.units, due.memo.hex(), due.total.units]).encode()
        one = _read(raw)
        assert self._chain.txs.setdefault(one.hash, one) == one
        return raw, one.hash


def packed(request: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(request).encode()).rstrip(b"=").decode()


def challenged(told: Mapping[str, str]) -> tuple[str, str]:
    return "www-authenticate", "Payment " + ", ".join(f'{name}="{value}"' for name, value in told.items())


def _read(raw: bytes) -> Tx:
    """Return what a chain reads in signed bytes."""
    lane, deadline, fee, memo, total = json.loads(raw)
    one, charge = hashlib.sha256(raw).digest(), (TEMPO_DOLLAR.token, bytes.fromhex(memo))
    place = (tempo.NONCES, lane.to_bytes(32, "big"))
    return Tx(one, NO_NONCE, charge, deadline, total, 0, fee, 0, signed=one, place=place)


class SimulatedPurchases(SimulatedSeller):
    """What the mpp rail asks: challenges, purchases that are forgotten, and credentials held back."""

    def __init__(self, net: Net, clock: Clock, rng: Random, api: SimulatedApi) -> None:
        super().__init__(net, clock, rng, api)
        # By the challenge's id: the challenge, and the key and the body it was asked with.
        self._issued: dict[str, tuple[dict[str, str], str, bytes]] = {}
        # By the purchase's name: what pays it.
        self._purchases: dict[str, Tx] = {}

    def _asked(self, path: str, headers: Mapping[str, str], body: bytes) -> Answered:
        key = headers["idempotency-key"]
        paying = next((v for v in headers.values() if v.startswith("Payment ")), None)
        assert KEY in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))
        return self._offered(path, key, body) if paying is None else self._paid(path, key, body, paying)

    def _offered(self, path: str, key: str, body: bytes) -> Answered:
        dice = self._dice()
        if (wrong := self._unanswered(path, dice)) is not None:
            return wrong
        return answer(path, 402, headers=[self._challenge(key, body, lies=dice > 0.99 and not self.honest)])

    def _challenge(self, key: str, body: bytes, *, lies: bool = False) -> tuple[str, str]:
        life_s = 300 if self.honest else self._rng.choice((20, 120, 300, 300, 300, 600, 900))
        ends = datetime.fromtimestamp(self._clock.true_ms // 1000 + life_s, UTC)
        amount = int(Decimal(json.loads(body)["amount"]) * 10**6)
        details: dict[str, Any] = {"chainId": TEMPO_DOLLAR.chain_id}
        asked = {
            "amount": str(amount + amount * OVERHEAD_PERCENT // 100),
            "currency": "0x" + TEMPO_DOLLAR.token.hex(),
            "recipient": SELLER,
            "methodDetails": details,
        }
        told = {"id": self._rng.randbytes(16).hex(), "realm": REALM, "method": "tempo", "intent": "charge"}
        told["expires"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        if not self.honest and self._rng.random() < 0.5:
            told["header"] = mpp_choice.OWN_HEADER
        if lies:
            match self._rng.choice(("recipient", "amount", "chain", "splits", "realm", "memo")):
                case "recipient":
                    asked["recipient"] = STRANGER
                case "amount":
                    asked["amount"] = str(amount * 2)
                case "chain":
                    details["chainId"] = builders.CHAIN_ID
                case "splits":
                    details["splits"] = [{"recipient": STRANGER, "amount": "1"}]
                case "realm":
                    told["realm"] = "elsewhere.example"
                case "memo":
                    details["memo"] = "0x" + "11" * 32
        told["request"] = packed(asked)
        self._issued[told["id"]] = (told, key, body)
        return challenged(told)

    def _paid(self, path: str, key: str, body: bytes, paying: str) -> Answered:
        text = paying.removeprefix("Payment ")
        document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        challenge = document["challenge"]
        assert self._issued[challenge["id"]] == (challenge, key, body), "another purchase than was offered"
        tx = _read(bytes.fromhex(document["payload"]["signature"][2:]))
        assert tx.charge == (TEMPO_DOLLAR.token, mpp_wire.memo(REALM, challenge["id"])), "paid another challenge"
        self._api.amounts[tx.charge] = Decimal(json.loads(body)["amount"])
        self._hand(tx.hash, paying, lambda: tx)
        name = f"pur_{tx.hash.hex()[:16]}"
        status, forgets = self._said(), not self.honest and self._rng.random() < 0.2
        if not forgets:
            self._purchases[name] = tx
        if status == 402:
            return answer(path, 402, headers=[self._challenge(key, body)])
        if status >= 400:
            return answer(path, status, json.dumps({"error": {"metadata": {"purchase_id": name}}}).encode())
        return answer(path, 202, headers=[("location", f"{path}/{name}")])

    def _shown(self, path: str) -> Answered:
        tx = self._purchases.get(path.rpartition("/")[2])
        if tx is None:
            return answer(path, 404)
        true = "credited" if tx.charge in self._api.posted else "pending"
        said = true if self.honest else self._rng.choice((true, true, "pending", "credited", "failed", "review"))
        return answer(path, 200, json.dumps({"data": {"id": path.rpartition("/")[2], "status": said}}).encode())
