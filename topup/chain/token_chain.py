"""How does a chain answer for payments that somebody else carries there? The `TokenChain` port, through providers."""

from collections.abc import Sequence

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from topup.chain.access_keys import permission, queries
from topup.chain.agreement import Disagreement
from topup.chain.authorizations import RecordedUse, account, look, mark, over_subject
from topup.chain.blocks import CHAIN_ID, LATEST, head, numbered, right_chain, same_block
from topup.chain.contracts import encode, known_word, returned
from topup.chain.fees import tip, tip_query
from topup.chain.preflight import balance, reason
from topup.chain.providers import Providers
from topup.chain.quorum import Quorum
from topup.chain.rpc import Rpc, RpcError, known, quantity, unhex
from topup.chain.search import Search
from topup.domain.dollars import DOLLARS, Dollar
from topup.domain.errors import ChainUnknown, PaymentForbidden
from topup.domain.money import Usdc, Wei
from topup.domain.nonpayment import ChargeStatus, More
from topup.domain.reasons import Reason
from topup.ports.chain import AuthorizationUse, Head, Holdings, Observation, Preflight, Simulation


class AuthorizedChain(Quorum):
    """A chain whose payments somebody else carries there; reads are agreed on by enough providers."""

    def __init__(
        self, chain_id: int, providers: Providers, dollar: Dollar | None = None, search: Search | None = None
    ) -> None:
        """Join the chain's providers; `dollar` is what is paid with there, None for the chain's usual one."""
        super().__init__(chain_id, providers, search)
        self._dollar = dollar if dollar is not None else DOLLARS.get(chain_id)

    async def preflight(
        self, wallet: bytes, token: bytes, uses: Sequence[AuthorizationUse] = (), *, key: bytes | None = None
    ) -> Preflight:
        """Read newest block, fees, the wallet's tokens and what the access `key` may spend, from each provider.

        Raises:
            PaymentForbidden: one of these authorizations was used already.
        """
        return await self._planned(
            "wallet or token", lambda rpc: preflight_of(rpc, self.chain_id, wallet, token, uses, key)
        )

    async def simulate(self, wallet: bytes, token: bytes, paying: tuple[bytes, Usdc], at: Head) -> None:
        """Run the transfer dry on the block `at`, through enough providers; Reverted where it would fail."""
        await self._dry(lambda rpc: simulate(rpc, self.chain_id, wallet, token, paying, at))

    async def look(self, uses: Sequence[RecordedUse], *, every: bool = False) -> Observation:
        """Look for their use in canonical blocks; with `every`, through all, and two where two are configured.

        Each is given with where it was recorded before. Nothing is concluded from absence.
        """
        return await self._seen(
            "the use of an authorization", lambda rpc: look(rpc, self.chain_id, uses, self._searching), every=every
        )

    async def payment_status(self, use: AuthorizationUse) -> ChargeStatus | More:
        """Ask every provider whether it was ever used: first how far the chain is final, then on that block."""
        try:
            return await self._became(
                "an authorization",
                use.since,
                lambda rpc, final: account(rpc, self.chain_id, use, final, self._searching),
            )
        except Disagreement:
            # Nothing but logs tells of what has no mark: whoever hid one may show it by now.
            if use.mark is None and self._search is not None:
                self._search.forget(over_subject(use))
            raise

    async def holdings(self, wallet: bytes) -> Holdings:
        """Ask every provider what a wallet holds of the chain's dollar at a final block."""
        dollar = self._dollar
        if dollar is None:
            raise ChainUnknown(f"no dollar of chain {self.chain_id} is known")
        return await self._held(wallet, {dollar.asset: dollar.token}, None)


async def simulate(
    rpc: Rpc, chain_id: int, wallet: bytes, token: bytes, paying: tuple[bytes, Usdc], at: Head
) -> Simulation:
    """Run on block `at` the transfer that an authorization makes; Reverted, with the token's reason, where it fails."""
    data = encode("erc20", "transfer", to_checksum_address(paying[0]), paying[1].units)
    body = {"from": "0x" + wallet.hex(), "to": "0x" + token.hex(), "data": "0x" + data.hex()}
    spoken, block, answer = await rpc.batch([CHAIN_ID, numbered(at.number), ("eth_call", [body, hex(at.number)])])
    right_chain(rpc, spoken, chain_id)
    same_block(rpc, block, at)
    if isinstance(answer, RpcError):
        raise reason(answer)
    (done,) = returned(["bool"], answer, "the transfer")
    if not done:
        raise PaymentForbidden(
            Reason.SIMULATION, "the token would not move", remedy="see what holds the wallet's tokens"
        )
    return Simulation(0, Wei(0), "eth_call")


async def preflight_of(
    rpc: Rpc, chain_id: int, wallet: bytes, token: bytes, uses: Sequence[AuthorizationUse], key: bytes | None = None
) -> Preflight:
    """Read what a payment is planned on. The wallet sends nothing itself: its coin and nonces are not asked for.

    `key` is the access key that signs for the wallet, if one does.

    Raises:
        PaymentForbidden: one of these authorizations was used, or the token's address has no code.
    """
    by = () if key is None else queries(wallet, key, token)
    marked = [use for use in uses if use.mark is not None]
    spoken, newest, asked, code, held, *rest = await rpc.batch(
        [
            CHAIN_ID,
            LATEST,
            tip_query(rpc),
            ("eth_getCode", ["0x" + token.hex(), "latest"]),
            balance(token, wallet, "latest"),
            *(mark(use, "latest") for use in marked),
            *by,
        ]
    )
    marks, about = rest[: len(marked)], rest[len(marked) :]
    right_chain(rpc, spoken, chain_id)
    block = known(newest, "the newest block")
    now = head(block)
    runtime = unhex(known(code, "the token's code"), "the token's code")
    if not runtime:
        raise PaymentForbidden(
            Reason.NO_CODE,
            f"there is no token at 0x{token.hex()} on chain {chain_id}",
            remedy="correct the token's address",
        )
    if any(known_word(answer, "an authorization's mark") for answer in marks):
        raise PaymentForbidden(
            Reason.AUTHORIZATION_USED,
            "the authorization that would be signed was used already, and not by this ledger",
            remedy="nothing, where a copy of the ledger was put back; else find out who has the key",
        )
    return Preflight(
        head=now,
        balance=Wei(0),
        nonce_latest=0,
        nonce_pending=0,
        base_fee=Wei(quantity(block.get("baseFeePerGas"), "baseFeePerGas", bare=True)),
        tip=await tip(rpc, asked),
        code_hash=keccak(runtime),
        quotes={},
        price_e8=None,
        tokens=Usdc(known_word(held, "the wallet's tokens")),
        permission=None if key is None else await permission(rpc, about, (wallet, key, token), now.timestamp_s),
    )
