"""Which contracts does a chain hold? One record a chain; adding a chain is a record and its tests.

Sources of Base's addresses: OpenRouter's crypto documentation (payment protocol), three real signed charges
(operator, USDC), docs.base.org and docs.uniswap.org (Uniswap, WETH), Chainlink's public feed list,
ethereum-optimism/optimism (predeploys).
"""

from __future__ import annotations

from dataclasses import dataclass

from topup.domain.charge import K2_PREFIX
from topup.domain.money import Asset


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
    gas_oracle: bytes | None
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


@dataclass(frozen=True)
class Dollar:
    """The dollar of a chain on which authorizations are paid that a seller carries there.

    `name` and `version` are what the token calls itself in signatures (EIP-712), "" where transactions are signed
    instead; `pays_fee` says whether the network takes its fee from the wallet, in this token.
    """

    chain_id: int
    asset: Asset
    token: bytes
    name: str
    version: str
    pays_fee: bool


BASE_DOLLAR = Dollar(BASE.chain_id, Asset.USDC, BASE.currency, "USD Coin", "2", pays_fee=False)
# docs.tempo.xyz: USDC.e is USDC that Stargate holds; the network's fees are paid in it.
TEMPO_DOLLAR = Dollar(4217, Asset.USDC_E, _address("0x20C000000000000000000000b9537d11c60E8b50"), "", "", pays_fee=True)
PATH_DOLLAR = Dollar(
    4217, Asset.PATH_USD, _address("0x20c0000000000000000000000000000000000000"), "", "", pays_fee=True
)
DOLLARS: dict[int, Dollar] = {one.chain_id: one for one in (BASE_DOLLAR, TEMPO_DOLLAR)}
# The two that the network takes its fee in, by the name that the settings give them.
TEMPO_DOLLARS: dict[str, Dollar] = {one.asset.value.lower(): one for one in (TEMPO_DOLLAR, PATH_DOLLAR)}
# What sellers offer on Tempo, by address, so that a refusal says what was offered (pympp 0.16, `_defaults.py`).
TEMPO_TOKENS: dict[bytes, str] = {
    **{one.token: one.asset.value for one in TEMPO_DOLLARS.values()},
    _address("0x20c0000000000000000000006a37DA5C996874BE"): "OUSD",
    _address("0x20c000000000000000000000f37de3740ADec032"): "MACH",
}

PROFILES: dict[int, Profile] = {BASE.chain_id: BASE}
