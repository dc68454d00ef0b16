"""What does the flow need of a key?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.domain.demand import Verified
    from topup.domain.lifecycle import Plan


class Signer(Protocol):
    """The key's own door: it signs one kind of thing, and checks it itself."""

    address: bytes

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the planned payment of a verified charge.

        Returns:
            The raw transaction and its hash.

        Raises:
            SignerError: the plan does not pay exactly this charge, or exceeds the signer's own ceilings.
        """

    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes:
        """Sign that exactly the total may be moved to the recipient, once (EIP-3009); return r, s and v.

        Raises:
            SignerError: the plan does not pay exactly this, or exceeds the signer's own ceilings.
        """

    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign a Tempo transaction that pays exactly the total; return it raw, and its hash.

        Raises:
            SignerError: the plan does not pay exactly this, or exceeds the signer's own ceilings.
        """

    def sign_login(self, text: str) -> bytes:
        """Sign a message that logs this wallet in at a seller (EIP-4361); return r, s and v.

        Raises:
            SignerError: it is no login of this wallet.
        """

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign that the payment contract may take none of the token any more.

        Raises:
            SignerError: the plan is anything else, or exceeds the signer's own ceilings.
        """

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a transaction that moves nothing and takes a nonce: to the wallet itself, no value, no data.

        Raises:
            SignerError: the plan is anything else, or exceeds the signer's own ceilings.
        """
