"""A wallet with dollars, a seller, and a stranger who carries to the chain what the wallet has authorized.

The dollar of the embedded world takes transfers authorised by signature (EIP-3009).
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from tests.world import builders
from tests.world.builders import settled
from tests.world.long_logs import Leaping
from tests.world.stage import authorized, sent_beside
from tests.world.stand import Provided
from topup.chain.contracts import encode
from topup.chain.paging import Pager
from topup.chain.providers import Providers
from topup.chain.search import Search, Unkept
from topup.chain.token_chain import AuthorizedChain
from topup.domain.money import Usdc
from topup.domain.nonpayment import ChargeStatus
from topup.ports.budget import Budget
from topup.ports.chain import AuthorizationUse, Observation, Seen
from topup.sandbox import contracts
from topup.sandbox.world import World, embedded

HELD: Final = 50_000_000
TEN: Final = Usdc(10_000_000)
SELLER: Final = bytes.fromhex("5e11e5" + "00" * 17)
DOLLAR: Final = builders.address(contracts.USDC)
USED: Final = bytes(keccak(text="AuthorizationUsed(address,bytes32)"))
CARRY: Final = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"


@dataclass(frozen=True)
class Authorization:
    """A signed transfer, what it leaves on the chain, and the call data that carry it there."""

    nonce: bytes
    valid_before: int
    use: AuthorizationUse
    data: bytes


class Till(Provided[AuthorizedChain]):
    """A world with dollars in the wallet, somebody who carries, and as many providers as are wanted."""

    def __init__(self, world: World, providers: int) -> None:
        super().__init__(world, providers, self._edge)
        self.carrier = PrivateKey(secrets.token_bytes(32))
        self.carried_by = self.carrier.public_key.to_checksum_address()
        world.do(lambda: world.chain.set_balance(self.carried_by, 10**18))
        self.write(*contracts.usdc_balance(world.wallet, HELD))
        self.mine(3)

    @staticmethod
    def _edge(providers: Providers) -> AuthorizedChain:
        """Return an edge whose search for logs is as patient as the program's, in no time."""
        clock = Leaping()
        search = Search(contracts.CHAIN_ID, Pager(Budget(clock)), Unkept(), clock)
        return AuthorizedChain(contracts.CHAIN_ID, providers, search=search)

    def authorization(self, units: Usdc = TEN, nonce: bytes | None = None) -> Authorization:
        """Sign a transfer to the seller that is good for ten minutes."""
        nonce, valid_before = nonce or secrets.token_bytes(32), self.now_s() + 600
        me, seller = self.world.wallet, to_checksum_address(SELLER)
        values = (me, seller, units.units, 0, valid_before, nonce)
        signable = authorized(values)
        signature = bytes(Account.sign_message(signable, self.world.key.to_hex()).signature)
        use = AuthorizationUse(
            key=bytes(signable.body[:32]),
            hash=None,
            mark=(DOLLAR, encode("erc20", "authorizationState", me, nonce)),
            log=(DOLLAR, (USED, self.wallet.rjust(32, b"\0"), nonce)),
            token=DOLLAR,
            sender=self.wallet,
            recipient=SELLER,
            tokens=units,
            since=int(self.rpc("eth_blockNumber"), 16),
            pays_fee=False,
        )
        return Authorization(nonce, valid_before, use, encode("erc20", CARRY, *values, signature))

    def carry(self, *authorizations: Authorization) -> list[bytes]:
        """Let the stranger send these in one block; return the transactions' hashes."""

        def send() -> list[str]:
            first = int(self.world.chain.rpc("eth_getTransactionCount", [self.carried_by, "latest"]), 16)
            use = partial(sent_beside, self.world, self.carrier, to=contracts.USDC, value=0, gas=200_000)
            return [use(nonce=nonce, data=one.data) for nonce, one in enumerate(authorizations, first)]

        hashes = [bytes.fromhex(tx_hash[2:]) for tx_hash in self.world.do(send)]
        self.mine()
        return hashes

    def paid(self) -> tuple[AuthorizationUse, bytes]:
        """An authorization that was carried, and by which transaction."""
        one = self.authorization()
        (tx_hash,) = self.carry(one)
        return one.use, tx_hash

    def look(self, *uses: AuthorizationUse) -> Observation:
        return self.ask(lambda chain: chain.look([(use, None) for use in uses]))

    def payment_status(self, use: AuthorizationUse) -> ChargeStatus:
        return self.ask(lambda chain: settled(chain.payment_status(use)))

    def seen(self, use: AuthorizationUse) -> Seen:
        return self.look(use).seen[use.key]


def till_with(providers: int) -> Iterator[Till]:
    """A till on a chain that mines only when told to; ends with the generator."""
    world = World(embedded)
    world.mining = False
    with world:
        yield Till(world, providers)
