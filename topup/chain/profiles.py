"""Which contracts does a chain hold? One record a chain; adding a chain is a record and its tests.

Sources of Base's addresses: OpenRouter's crypto documentation (payment protocol), three real signed charges
(operator, USDC), docs.base.org and docs.uniswap.org (Uniswap, WETH), Chainlink's public feed list,
ethereum-optimism/optimism (predeploys).
"""

from dataclasses import dataclass

from topup.domain.coinbase_charge import K2_PREFIX


def _address(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@dataclass(frozen=True)
class Profile:
    """A chain as this program knows it. Addresses are 20 bytes; times in seconds.

    `contract_code_hash` is keccak256 of the payment contract's code; None means that any code is accepted there
    and only its absence is refused. `allowance_slot` is where the currency keeps its mapping of owner to spender to
    units: a dry run writes there what was not yet allowed, and reads it back through the token before it is believed.
    """

    name: str
    chain_id: int
    contract: bytes
    contract_code_hash: bytes | None
    operators: frozenset[bytes]
    prefixes: frozenset[bytes]
    currency: bytes
    allowance_slot: int
    wrapped_native: bytes
    quoter: bytes
    tiers: tuple[int, ...]
    price_feed: bytes | None
    price_feed_age_s: int
    sequencer_feed: bytes | None
    sequencer_grace_s: int
    gas_oracle: bytes
    block_s: int


BASE = Profile(
    name="base",
    chain_id=8453,
    contract=_address("0x03059433BCdB6144624cC2443159D9445C32b7a8"),
    contract_code_hash=None,
    operators=frozenset({_address("0x8fcCC78Dae0a8f93B0fE6799de888d4C57e273db")}),
    prefixes=frozenset({K2_PREFIX}),
    currency=_address("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
    # circlefin/stablecoin-evm, FiatTokenV1: `allowed` is the eleventh slot.
    allowance_slot=10,
    wrapped_native=_address("0x4200000000000000000000000000000000000006"),
    quoter=_address("0x3d4e44Eb1374240CE5F1B871ab261CD16335B76a"),
    tiers=(500, 3000),
    price_feed=_address("0x71041dddad3595F9CEd3DcCFBe3D1F4b0a16Bb70"),
    # The feed's heartbeat is 1200 s; three of them missed is no price.
    price_feed_age_s=3600,
    sequencer_feed=_address("0xBCF85224fc0756B9Fa45aA7892530B47e10b6433"),
    sequencer_grace_s=3600,
    gas_oracle=_address("0x420000000000000000000000000000000000000F"),
    block_s=2,
)


PROFILES: dict[int, Profile] = {BASE.chain_id: BASE}
