"""What is a payment planned on? One batch: block, wallet, nonce, fees, code, a quote a tier, price and sequencer."""

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.chain.blocks import CHAIN_ID, LATEST, ether_query, head, nonce_query, right_chain
from topup.chain.contracts import encode, known_word, returned
from topup.chain.fees import TIP_MIN, tip, tip_query
from topup.chain.profiles import Profile
from topup.chain.reverts import decoded
from topup.chain.rpc import Answer, Query, Rpc, RpcError, absent, count, known, quantity, reverted, unhex
from topup.domain.errors import ChainUnknown, PaymentForbidden
from topup.domain.money import Asset, Usdc, Wei
from topup.domain.reasons import Reason
from topup.ports.chain import Head, Preflight

ROUND = ["uint80", "int256", "uint256", "uint256", "uint80"]
QUOTE = ["uint256", "uint160", "uint32", "uint256"]
# What a preflight says of itself where nobody could tell what waits for a block.
NO_PENDING = "the provider does not count what is pending: a transaction of the wallet that is not ours would not show"
# Dollars with 8 decimals: a feed that shows more for one ETH shows no price.
PRICE_END = 10**16


def call(to: bytes, data: bytes, at: int | str) -> Query:
    """Return a plain eth_call without a sender, at a block or a tag."""
    body = {"to": "0x" + to.hex(), "data": "0x" + data.hex()}
    return ("eth_call", [body, hex(at) if isinstance(at, int) else at])


def balance(token: bytes, holder: bytes, at: int | str) -> Query:
    """Ask how much of a token an address holds, in the token's unit."""
    return call(token, encode("erc20", "balanceOf", to_checksum_address(holder)), at)


def latest_round(feed: bytes, at: int | str) -> Query:
    """Ask a price feed for its newest round."""
    return call(feed, encode("aggregator_v3", "latestRoundData"), at)


def questions(
    rpc: Rpc, profile: Profile, wallet: bytes, total: Usdc, contract: bytes, pay_with: Asset = Asset.ETH
) -> dict[str, Query]:
    """Return by name all that a payment is planned on; the price of a fee tier is asked for as `quote 500`."""
    asked: dict[str, Query] = {
        "chain": CHAIN_ID,
        "newest": LATEST,
        "balance": ether_query(wallet, "latest"),
        "nonce": nonce_query(wallet, "latest"),
        "pending": nonce_query(wallet, "pending"),
        "tip": tip_query(rpc),
        "code": ("eth_getCode", ["0x" + contract.hex(), "latest"]),
    }
    if pay_with is Asset.ETH:
        for tier in profile.tiers:
            arguments = (profile.wrapped_native, profile.currency, total.units, tier, 0)
            data = encode("quoter_v2", "quoteExactOutputSingle", arguments)
            asked[f"quote {tier}"] = call(profile.quoter, data, "latest")
    else:
        parties = (to_checksum_address(wallet), to_checksum_address(contract))
        asked["tokens"] = balance(profile.currency, wallet, "latest")
        asked["allowance"] = call(profile.currency, encode("erc20", "allowance", *parties), "latest")
    if profile.price_feed is not None:
        asked["price"] = latest_round(profile.price_feed, "latest")
    if profile.sequencer_feed is not None:
        asked["sequencer"] = latest_round(profile.sequencer_feed, "latest")
    return asked


async def preflight_of(
    rpc: Rpc, profile: Profile, wallet: bytes, total: Usdc, contract: bytes, pay_with: Asset = Asset.ETH
) -> Preflight:
    """Read everything in one request and judge what has to be judged before a price can be believed.

    Raises:
        PaymentForbidden: the price feed is stale, the sequencer is down, or the contract's code is not the pinned one.
    """
    answers = await rpc.named(questions(rpc, profile, wallet, total, contract, pay_with))
    right_chain(rpc, answers["chain"], profile.chain_id)
    newest = known(answers["newest"], "the newest block")
    block = head(newest)
    price, _ = feed_price(answers["price"], profile, block) if "price" in answers else (None, 0)
    if "sequencer" in answers:
        sequencer_up_s(answers["sequencer"], profile, block)
    nonce = count(known(answers["nonce"], "the nonce"), "the nonce", bare=True)
    pending, doubt = pending_nonce(answers["pending"], nonce)
    quotes = {tier: quoted(answers[f"quote {tier}"], tier) for tier in profile.tiers if f"quote {tier}" in answers}
    return Preflight(
        head=block,
        balance=Wei(quantity(known(answers["balance"], "the balance"), "the balance", bare=True)),
        nonce_latest=nonce,
        nonce_pending=pending,
        base_fee=Wei(quantity(newest.get("baseFeePerGas"), "baseFeePerGas", bare=True)),
        tip=max(TIP_MIN, await tip(rpc, answers["tip"])),
        code_hash=code_hash(answers["code"], profile, contract),
        quotes={tier: amount for tier, amount in quotes.items() if amount is not None},
        price_e8=price,
        tokens=Usdc(known_word(answers["tokens"], "the token")) if "tokens" in answers else None,
        allowance=Usdc(known_word(answers["allowance"], "the token")) if "allowance" in answers else None,
        doubt=doubt,
    )


def pending_nonce(answer: Answer, latest: int) -> tuple[int, str]:
    """Return the nonce with what is pending, and a doubt: a provider that does not count it shows the latest alone."""
    if absent(answer):
        return latest, NO_PENDING
    return count(known(answer, "the pending nonce"), "the pending nonce", bare=True), ""


def quoted(answer: Answer, tier: int) -> Wei | None:
    """Return what a pool asks for the total; None where it reverts, for there is no pool or too little in it."""
    if isinstance(answer, RpcError):
        if not reverted(answer):
            raise ChainUnknown(f"the quote of tier {tier}: {answer.message}")
        return None
    amount, _, _, _ = returned(QUOTE, answer, f"the quoter for tier {tier}")
    return Wei(amount) if amount > 0 else None


def feed_price(answer: Answer, profile: Profile, block: Head) -> tuple[int, int]:
    """Return dollars per ETH, 8 decimals, and their age in s; PaymentForbidden: stale, incomplete or not positive."""
    round_id, price, _, updated_s, answered_in = returned(ROUND, answer, "the price feed")
    age = block.timestamp_s - updated_s
    if not 0 < price < PRICE_END or updated_s == 0 or answered_in < round_id or age > profile.price_feed_age_s:
        raise PaymentForbidden(
            Reason.PRICE_UNKNOWN,
            f"the ETH/USD feed says {price} from {age} s ago, round {answered_in} of {round_id}",
            remedy=f"wait for a fresh, positive and complete round (at most {profile.price_feed_age_s} s old)",
        )
    return int(price), int(age)


def sequencer_up_s(answer: Answer, profile: Profile, block: Head) -> int:
    """Return for how many seconds the sequencer has been up; PaymentForbidden where it is not, or only just is."""
    _, down, started_s, _, _ = returned(ROUND, answer, "the sequencer feed")
    up_for = block.timestamp_s - started_s
    if down != 0 or started_s == 0 or up_for < profile.sequencer_grace_s:
        state = "down" if down else f"up for only {up_for} s"
        raise PaymentForbidden(
            Reason.SEQUENCER,
            f"the chain's sequencer is {state}",
            remedy=f"wait until it has been up for {profile.sequencer_grace_s} s",
        )
    return int(up_for)


def code_hash(answer: Answer, profile: Profile, contract: bytes) -> bytes:
    """Return the keccak256 hash of the contract's code; PaymentForbidden where there is none, or not the pinned one."""
    code = unhex(known(answer, "the contract's code"), "the contract's code")
    if not code:
        raise PaymentForbidden(
            Reason.NO_CODE,
            f"there is no contract at 0x{contract.hex()}: ETH sent there would be lost",
            remedy="correct rails.coinbase.contract",
        )
    found = keccak(code)
    if profile.contract_code_hash is not None and found != profile.contract_code_hash:
        raise PaymentForbidden(
            Reason.CODE_CHANGED,
            f"the contract's code hash is 0x{found.hex()}, pinned is 0x{profile.contract_code_hash.hex()}",
            remedy="find out why before you change chain.contract_code_hash",
        )
    return found


def reason(answer: RpcError) -> Exception:
    """Turn the error of a call into `Reverted` when it is one, else into `ChainUnknown`."""
    return decoded(answer.data) if reverted(answer) else ChainUnknown(answer.message)
