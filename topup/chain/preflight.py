"""What is a payment planned on? One batch: block, wallet, nonce, fees, code, a quote a tier, price and sequencer."""

from __future__ import annotations

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.chain.blocks import CHAIN_ID, LATEST, head, right_chain
from topup.chain.contracts import encode, returned
from topup.chain.fees import TIP_MIN, tip, tip_query
from topup.chain.profiles import Profile
from topup.chain.refusals import speaks_of_absence
from topup.chain.reverts import decoded
from topup.chain.rpc import Answer, Query, Rpc, RpcError, count, known, quantity, reverted, unhex
from topup.domain.errors import ChainUnknown, PaymentForbidden
from topup.domain.money import Asset, Usdc, Wei
from topup.ports.chain import Head, Preflight

ROUND = ["uint80", "int256", "uint256", "uint256", "uint80"]
# What a survey says of itself where nobody could tell what waits for a block.
NO_PENDING = "the provider does not count what is pending: a transaction of the wallet that is not ours would not show"
# Dollars with 8 decimals: a feed that shows more for one ETH shows no price.
PRICE_END = 10**16


def tag(number: int | str) -> str:
    """Return a block parameter for JSON-RPC."""
    return hex(number) if isinstance(number, int) else number


def call(to: bytes, data: bytes, at: int | str) -> Query:
    """Return a plain eth_call without a sender."""
    return ("eth_call", [{"to": "0x" + to.hex(), "data": "0x" + data.hex()}, tag(at)])


async def preflight_of(
    rpc: Rpc, profile: Profile, wallet: bytes, total: Usdc, contract: bytes, pay_with: Asset = Asset.ETH
) -> Preflight:
    """Read everything in one request and judge what has to be judged before a price can be believed.

    Raises:
        ChainUnknown: something needed was not answered.
        WrongChain: the provider speaks for another chain.
        PaymentForbidden: the price feed is stale, the sequencer is down, or the contract's code is not the pinned one.
    """
    me = "0x" + wallet.hex()
    fixed: list[Query] = [
        CHAIN_ID,
        LATEST,
        ("eth_getBalance", [me, "latest"]),
        ("eth_getTransactionCount", [me, "latest"]),
        ("eth_getTransactionCount", [me, "pending"]),
        tip_query(rpc),
        ("eth_getCode", ["0x" + contract.hex(), "latest"]),
    ]
    tiers = profile.tiers if pay_with is Asset.ETH else ()
    quotes = [_quote_query(profile, total, tier) for tier in tiers]
    holder = to_checksum_address(wallet)
    tokens = (
        [
            call(profile.currency, encode("erc20", "balanceOf", holder), "latest"),
            call(profile.currency, encode("erc20", "allowance", holder, to_checksum_address(contract)), "latest"),
        ]
        if pay_with is not Asset.ETH
        else []
    )
    feeds = [f for f in (profile.price_feed, profile.sequencer_feed) if f is not None]
    answers = await rpc.batch([*fixed, *tokens, *quotes, *(latest_round(f, "latest") for f in feeds)])
    right_chain(rpc, answers[0], profile.chain_id)
    block = head(known(answers[1], "the newest block"))
    held, allowed = map(_units, answers[len(fixed) : len(fixed) + 2]) if tokens else (None, None)
    behind = len(fixed) + len(tokens)
    told = dict(zip(tiers, answers[behind : behind + len(quotes)], strict=True))
    rounds = iter(answers[behind + len(quotes) :])
    price = feed_price(next(rounds), profile, block) if profile.price_feed is not None else None
    if profile.sequencer_feed is not None:
        _sequencer(next(rounds), profile, block)
    nonce = count(known(answers[3], "the nonce"), "the nonce", bare=True)
    pending, doubt = _pending(answers[4], nonce)
    return Preflight(
        head=block,
        balance=Wei(quantity(known(answers[2], "the balance"), "the balance", bare=True)),
        nonce_latest=nonce,
        nonce_pending=pending,
        base_fee=Wei(quantity(known(answers[1], "the newest block").get("baseFeePerGas"), "baseFeePerGas", bare=True)),
        tip=max(TIP_MIN, await tip(rpc, answers[5])),
        code_hash=_code(known(answers[6], "the contract's code"), profile, contract),
        quotes=_quotes(told),
        price_e8=price,
        tokens=held,
        allowance=allowed,
        doubt=doubt,
    )


def _pending(answer: Answer, latest: int) -> tuple[int, str]:
    """Return the nonce with what is pending, and a doubt: a provider that does not count it shows the latest alone."""
    if isinstance(answer, RpcError) and speaks_of_absence(answer.code, answer.message):
        return latest, NO_PENDING
    return count(known(answer, "the pending nonce"), "the pending nonce", bare=True), ""


def _units(answer: Answer) -> Usdc:
    (units,) = returned(["uint256"], unhex(known(answer, "the token"), "the token"), "the token")
    return Usdc(units)


def _quote_query(profile: Profile, total: Usdc, tier: int) -> Query:
    arguments = (profile.wrapped_native, profile.currency, total.units, tier, 0)
    return call(profile.quoter, encode("quoter_v2", "quoteExactOutputSingle", arguments), "latest")


def _quotes(told: dict[int, Answer]) -> dict[int, Wei]:
    """Keep the tiers that quote. One that reverts has no pool or too little in it; any other failure is unknown."""
    quotes = {}
    for tier, answer in told.items():
        if isinstance(answer, RpcError):
            if not reverted(answer):
                raise ChainUnknown(f"the quote of tier {tier}: {answer.message}")
            continue
        amount, _, _, _ = returned(
            ["uint256", "uint160", "uint32", "uint256"], unhex(answer, "a quote"), f"the quoter for tier {tier}"
        )
        if amount > 0:
            quotes[tier] = Wei(amount)
    return quotes


def latest_round(feed: bytes, at: int | str) -> Query:
    """Ask a price feed for its newest round."""
    return call(feed, encode("aggregator_v3", "latestRoundData"), at)


def feed_price(answer: Answer, profile: Profile, block: Head) -> int:
    """Return the feed's dollars per ETH at a block, 8 decimals.

    Raises:
        ChainUnknown: it was not answered.
        PaymentForbidden: it is stale, incomplete or not positive.
    """
    round_id, price, _, updated_s, answered_in = returned(
        ROUND, unhex(known(answer, "the price feed"), "the price"), "the price feed"
    )
    age = block.timestamp_s - updated_s
    if not 0 < price < PRICE_END or updated_s == 0 or answered_in < round_id or age > profile.price_feed_age_s:
        raise PaymentForbidden(
            "price_unknown",
            f"the ETH/USD feed says {price} from {age} s ago, round {answered_in} of {round_id}",
            remedy=f"wait for a fresh, positive and complete round (at most {profile.price_feed_age_s} s old)",
        )
    return int(price)


def _sequencer(answer: Answer, profile: Profile, block: Head) -> None:
    _, down, started_s, _, _ = returned(
        ROUND, unhex(known(answer, "the sequencer feed"), "the sequencer"), "the sequencer feed"
    )
    up_for = block.timestamp_s - started_s
    if down != 0 or started_s == 0 or up_for < profile.sequencer_grace_s:
        state = "down" if down else f"up for only {up_for} s"
        raise PaymentForbidden(
            "sequencer",
            f"the chain's sequencer is {state}",
            remedy=f"wait until it has been up for {profile.sequencer_grace_s} s",
        )


def _code(answer: object, profile: Profile, contract: bytes) -> bytes:
    code = unhex(answer, "the contract's code")
    if not code:
        raise PaymentForbidden(
            "no_code",
            f"there is no contract at 0x{contract.hex()}: ETH sent there would be lost",
            remedy="correct rails.coinbase.contract",
        )
    found = keccak(code)
    if profile.contract_code_hash is not None and found != profile.contract_code_hash:
        raise PaymentForbidden(
            "code_changed",
            f"the contract's code hash is 0x{found.hex()}, pinned is 0x{profile.contract_code_hash.hex()}",
            remedy="find out why before you change chain.contract_code_hash",
        )
    return found


def reason(answer: RpcError) -> Exception:
    """Turn the error of a call into `Reverted` when it is one, else into `ChainUnknown`."""
    return decoded(answer.data) if reverted(answer) else ChainUnknown(answer.message)
