"""Which dollar is paid with on which chain, where a seller carries the payment there?"""

from dataclasses import dataclass

from topup.domain.money import Asset


def _address(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


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


BASE_DOLLAR = Dollar(
    8453, Asset.USDC, _address("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), "USD Coin", "2", pays_fee=False
)
# docs.tempo.xyz: USDC.e is USDC that Stargate holds; the network's fees are paid in it.
TEMPO_DOLLAR = Dollar(4217, Asset.USDC_E, _address("0x20C000000000000000000000b9537d11c60E8b50"), "", "", pays_fee=True)
PATH_DOLLAR = Dollar(
    4217, Asset.PATH_USD, _address("0x20c0000000000000000000000000000000000000"), "", "", pays_fee=True
)
DOLLARS: dict[int, Dollar] = {dollar.chain_id: dollar for dollar in (BASE_DOLLAR, TEMPO_DOLLAR)}
# The two that the network takes its fee in, by the name that the settings give them.
TEMPO_DOLLARS: dict[str, Dollar] = {dollar.asset.value.lower(): dollar for dollar in (TEMPO_DOLLAR, PATH_DOLLAR)}
# What is called a dollar on Base; USDbC is what its own bridge made before Circle issued USDC there (docs.base.org).
BASE_TOKENS: dict[bytes, str] = {
    BASE_DOLLAR.token: BASE_DOLLAR.asset.value,
    _address("0xd9aAEc86B65D86f6A7B5B1b0c42FFA531710b6CA"): "USDbC",
}
# What sellers offer on Tempo, by address, so that a refusal says what was offered (pympp 0.16, `_defaults.py`).
TEMPO_TOKENS: dict[bytes, str] = {
    **{dollar.token: dollar.asset.value for dollar in TEMPO_DOLLARS.values()},
    _address("0x20c0000000000000000000006a37DA5C996874BE"): "OUSD",
    _address("0x20c000000000000000000000f37de3740ADec032"): "MACH",
}
