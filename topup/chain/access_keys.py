"""What may an access key still spend? Read from Tempo's account keychain.

The keychain tells what is left of a limit and when its period ends, not the limit itself. Asked what it would tell
right then, at that end, it names both: the limit, whole again, and the end after that.
"""

from collections.abc import Sequence
from typing import Final

from topup.chain.contracts import returned
from topup.chain.preflight import call
from topup.chain.rpc import Answer, Query, Rpc
from topup.domain import tempo
from topup.domain.money import Usdc
from topup.domain.policy import Permission

# kind of signature, key, end in unix seconds, whether limits are kept, whether it was revoked
KEY: Final = ["uint8", "address", "uint64", "bool", "bool"]
REMAINING: Final = ["uint256", "uint64"]


def queries(account: bytes, key: bytes, token: bytes) -> list[Query]:
    """Return the two questions whose answers `permission` reads."""
    asked = (tempo.key_call(account, key), tempo.remaining_call(account, key, token))
    return [call(tempo.KEYCHAIN, data, "latest") for data in asked]


async def permission(rpc: Rpc, answers: Sequence[Answer], whose: tuple[bytes, bytes, bytes], now_s: int) -> Permission:
    """Read what an access key may spend: `whose` is account, key and token, `now_s` the chain's time of the answers.

    Raises:
        ChainUnknown: one of the two answers cannot be read; the limit alone may stay unknown.
    """
    held, remaining = answers
    _, _, expires_s, enforced, revoked = returned(KEY, held, "the account keychain")
    left, ends_s = returned(REMAINING, remaining, "the account keychain")
    if not (expires_s and enforced):
        return Permission(now_s, expires_s, revoked, Usdc(0) if enforced or not expires_s else None, 0)
    limit, period_s = None, 0 if ends_s == 0 else None
    if now_s < ends_s < expires_s:
        method, (body, block) = call(tempo.KEYCHAIN, tempo.remaining_call(*whose), "latest")
        (later,) = await rpc.batch([(method, [body, block, {}, {"time": hex(ends_s)}])])
        whole, next_s = returned(REMAINING, later, "the account keychain") if isinstance(later, str) else (0, 0)
        # A node that does not know how to answer for another time answers for this one.
        if next_s > ends_s:
            limit, period_s = Usdc(whole), next_s - ends_s
    return Permission(now_s, expires_s, revoked, Usdc(left), ends_s, limit, period_s)
