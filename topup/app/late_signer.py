"""When is the key opened? When something is to be signed; a restart with a payment out there looks for it first.

Opening a keystore takes a second on purpose, and loading what opens it half of one. Neither is needed to find a payment
or to send the same bytes again.
"""

from __future__ import annotations

from collections.abc import Callable

from topup.domain.demand import Verified
from topup.domain.errors import SettingsError, SignerError
from topup.domain.lifecycle import Plan
from topup.ports.signer import Signer


class LateSigner:
    """The `Signer` port over a key that is opened by its first use; its address is known before."""

    def __init__(self, address: bytes, opened: Callable[[], Signer]) -> None:
        """Keep how the key is opened."""
        self.address = address
        self._open = opened
        self._signer: Signer | None = None

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign a planned payment; see the port."""
        return self._opened().sign_payment(plan, verified)

    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes:
        """Sign a transfer that somebody else carries to the chain; see the port."""
        return self._opened().sign_authorization(plan, verified)

    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign a Tempo transaction; see the port."""
        return self._opened().sign_tempo(plan, verified)

    def sign_login(self, text: str) -> bytes:
        """Sign a login; see the port."""
        return self._opened().sign_login(text)

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a cancel; see the port."""
        return self._opened().sign_cancel(plan)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a revocation; see the port."""
        return self._opened().sign_revocation(plan)

    def _opened(self) -> Signer:
        if self._signer is None:
            try:
                signer = self._open()
            except SettingsError as error:  # what cannot be opened signs nothing, and the payment is planned again
                raise SignerError(str(error), remedy=error.remedy) from None
            if signer.address != self.address:
                raise SignerError(
                    f"the key belongs to 0x{signer.address.hex()}, not to 0x{self.address.hex()}",
                    remedy="correct wallet.address, or wallet.keystore",
                )
            self._signer = signer
        return self._signer
