"""How does the sandbox run a Tempo chain? An anvil that speaks Tempo, with bridged USDC where the main net has it.

anvil brings Tempo's own contracts but no USDC.e: it is made here from one of anvil's test dollars. Found with anvil
1.7.1: only from hard fork T4 on do expiring nonces work; a transaction that cannot run is dropped without a word.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from eth_utils.crypto import keccak

from topup.sandbox.anvil import Anvil
from topup.sandbox.contracts import mapping_slot
from topup.sandbox.postings import tokens, word

CHAIN_ID: Final = 4217
BLOCK_S: Final = "0.5"
BASE_FEE: Final = 20 * 10**9  # In 10⁻¹⁸ US dollars per gas.
HARD_FORK: Final = "t4"

USDC_E: Final = "0x20C000000000000000000000b9537d11c60E8b50"
PATH_USD: Final = "0x20c0000000000000000000000000000000000000"
# What sellers offer on the main net beside these; neither is on this chain.
OUSD: Final = "0x20c0000000000000000000006a37DA5C996874BE"
MACH: Final = "0x20c000000000000000000000f37de3740ADec032"
ALPHA_USD: Final = "0x20c0000000000000000000000000000000000001"  # The test dollar that USDC.e is made from.
FEE_AMM: Final = "0xfeec000000000000000000000000000000000000"

# Storage of a token (TIP-20) and of the fee AMM.
_TOKEN_SLOTS: Final = 64
_NAME, _SYMBOL, _BALANCES = 2, 3, 9
_POOLS: Final = 3
_LIQUIDITY: Final = 10**12  # A million dollars: fees paid in USDC.e are changed into pathUSD for whoever makes blocks.


class Tempo(Anvil):
    """A Tempo chain; call it from one thread, the one that made it: anvil ends with it.

    It makes a block every half second by itself or, with `block_s` None, when told by `mine`.
    """

    def __init__(
        self,
        binary: Path,
        *,
        funded: Mapping[str, int] | None = None,
        block_s: str | None = BLOCK_S,
        now: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        """Start it, and give these addresses USDC.e (units, a millionth of a dollar); return once it answers.

        Raises RuntimeError, with what anvil said, when it does not start.
        """
        self.base_fee = BASE_FEE
        self.before_mine: list[Callable[[], None]] = []
        self._now = now
        options = ["--network", "tempo", "--hardfork", HARD_FORK, "--timestamp", str(now())]
        options += ["--no-mining"] if block_s is None else ["--block-time", block_s]
        self._start([str(binary), *options], CHAIN_ID)
        self._make_usdc()
        for address, units in (funded or {}).items():
            self.fund(address, units)

    def fund(self, address: str, units: int, token: str = USDC_E) -> None:
        """Let this address hold so many units of a token from now on."""
        self.set_storage(token, mapping_slot(_BALANCES, address), units)

    def balance(self, address: str, token: str = USDC_E) -> int:
        """Return the units of a token that an address holds."""
        return tokens(self, token, address)

    def _make_usdc(self) -> None:
        self.rpc("anvil_setCode", [USDC_E, self.rpc("eth_getCode", [ALPHA_USD, "latest"])])
        for slot in range(_TOKEN_SLOTS):
            value = int(self.rpc("eth_getStorageAt", [ALPHA_USD, hex(slot), "latest"]), 16)
            if value:
                self.set_storage(USDC_E, slot, value)
        self.set_storage(USDC_E, _NAME, _text("Bridged USDC (Stargate)"))
        self.set_storage(USDC_E, _SYMBOL, _text("USDC.e"))
        # A pool's slot holds the reserve of the token that fees come in, and above it of the one they leave in.
        pool = bytes(keccak(hexstr=word(USDC_E) + word(PATH_USD)[2:]))
        self.set_storage(FEE_AMM, mapping_slot(_POOLS, pool), _LIQUIDITY << 128)


def _text(text: str) -> int:
    """Return how Solidity's layout keeps up to 31 letters."""
    return int.from_bytes(text.encode().ljust(31, b"\0") + bytes([2 * len(text)]), "big")
