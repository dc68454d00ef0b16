"""What does a wallet hold at a final block?

A block that is final is minutes old: a node that keeps less state than that cannot tell, and says so.
"""

from collections.abc import Mapping

from topup.chain.blocks import ether_query
from topup.chain.charge_status import past
from topup.chain.contracts import known_word
from topup.chain.preflight import balance, feed_price, latest_round
from topup.chain.profiles import Profile
from topup.chain.rpc import Query, Rpc, known, quantity
from topup.domain.errors import ChainUnknown, PaymentForbidden
from topup.domain.money import Asset
from topup.ports.chain import Head, Holdings


async def held(
    rpc: Rpc, chain_id: int, wallet: bytes, tokens: Mapping[Asset, bytes], final: int, native: Profile | None
) -> tuple[Head, Holdings]:
    """Read the newest block, and what a wallet holds at the block `final`, of a provider to which that one is final.

    `native` is the chain whose coin and price are asked for beside them, None for neither.
    """
    feed = native.price_feed if native is not None else None
    queries: list[Query] = [balance(token, wallet, final) for token in tokens.values()]
    queries += [ether_query(wallet, final)] if native is not None else []
    queries += [latest_round(feed, final)] if feed is not None else []
    newest, at, rest = await past(rpc, chain_id, final, *queries)
    then = f"at the final block {final}, {rpc.host}"
    units = {asset: known_word(word, f"the wallet's {asset} {then}") for asset, word in zip(tokens, rest, strict=False)}
    price = None
    if native is not None:
        what = f"the wallet's {Asset.ETH} {then}"
        units[Asset.ETH] = quantity(known(rest[len(tokens)], what), what, bare=True)
        if feed is not None:
            try:
                price, _ = feed_price(rest[-1], native, at)
            except (PaymentForbidden, ChainUnknown):
                price = None  # what was held is a fact without it
    return newest, Holdings(at, units, price)
