"""What may an account's root key sign? What one of its access keys may spend, and nothing else.

The root key can spend all that its account holds. It is opened for one command, by a person who names it there, and
stands in no settings. The door checks for itself, as that of payments does.
"""

from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount
from eth_typing import Hash32
from eth_utils.crypto import keccak

from topup.domain import tempo
from topup.domain.errors import SignerError
from topup.domain.money import Usdc, Wei, gas_dollars
from topup.signers import keystore

# An authorization takes about 2.8 million gas, which Tempo's highest base fee makes four cents.
FEE_MAX: Final = Usdc(500_000)


class RootKey:
    """The key of an account on one chain, whose fees are paid in one token."""

    def __init__(self, account: LocalAccount, chain_id: int, token: bytes) -> None:
        self._account = account
        self._paying = chain_id, token
        self.address = bytes.fromhex(account.address[2:])

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"RootKey({self._account.address})"

    def sign_grant(self, grant: tempo.Grant, call: tempo.Transaction) -> tuple[bytes, bytes]:
        """Sign the call that tells the keychain exactly this grant; return the raw transaction and its hash.

        Raises:
            SignerError: the call does anything else, the grant has no bounds, or the fee exceeds the ceiling.
        """
        fee = gas_dollars(Wei(call.gas_price), call.gas_limit)
        rules = {
            "account": self.address == grant.account,
            "access key": len(grant.key) == 20 and any(grant.key) and grant.key != grant.account,
            "token": (call.chain_id, grant.token) == self._paying and call.fee_token == grant.token,
            "limit": 0 < grant.units < 2**128,
            "period": 0 < grant.period_s < 2**64,
            "end": 0 < grant.expires_s < 2**64,
            "destination": call.to == tempo.KEYCHAIN,
            "call data": call.data == tempo.granting(grant),
            "network fee": Usdc(0) < fee <= FEE_MAX,
            "lane": 0 < call.lane < 2**256 - 1,
            "deadline": 0 < call.valid_before < 2**64,
        }
        wrong = [name for name, right in rules.items() if not right]
        if wrong:
            raise SignerError(
                f"the root key refuses to sign: {', '.join(wrong)}", remedy="for the fee wait; else report it"
            )
        signature = bytes(self._account.unsafe_sign_hash(Hash32(tempo.digest(call))).signature)
        raw = tempo.sealed(call, signature)
        return raw, keccak(raw)


def from_keystore(path: Path, password: str, chain_id: int, token: bytes) -> RootKey:
    """Open a keystore v3 file, which fails as `keystore.opened` does."""
    return RootKey(keystore.opened(path, password, "--root-keystore"), chain_id, token)
