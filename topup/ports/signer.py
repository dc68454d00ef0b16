"""What does the flow need of a key?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.domain.demand import Verified
    from topup.domain.lifecycle import Plan


class Signer(Protocol):
    """The key's own door: it signs one kind of thing, and checks it itself; see `topup/signers/local.py`."""

    address: bytes

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]: ...
    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes: ...
    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]: ...
    def sign_login(self, text: str) -> bytes: ...
    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]: ...
    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]: ...
