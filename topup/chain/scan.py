"""Where did `topup.chain.scan` go? To `topup.chain.logs`; the old name stays for one version."""

from collections.abc import AsyncIterator

from topup.chain import logs
from topup.chain.paging import Pager
from topup.chain.rpc import Rpc


async def transfers(
    rpc: Rpc, contract: bytes, operator: bytes, first: int, last: int, pager: Pager | None = None
) -> AsyncIterator[logs.Chunk]:
    """Read payments as `logs.transfers` does, as long as it takes where no pager is given."""
    async for chunk in logs.transfers(rpc, contract, operator, first, last, pager or logs.patient()):
        yield chunk
