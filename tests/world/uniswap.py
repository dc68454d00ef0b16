"""How does the embedded world come to swap through Uniswap's real contracts, at their real addresses on Base?

`deploy` takes an anvil that holds our genesis and replaces our stand-ins for pools, quoter and router by Uniswap's
published code from npm. A contract is deployed somewhere first, so that its constructor fills in what is immutable;
then its code, with its own address replaced, goes to where Base has it. Pools are made by the factory itself, which
puts them at Base's addresses because CREATE2 does.
"""

import json
import re
import time
from collections.abc import Callable
from math import isqrt
from typing import Any

from eth_abi import encode
from eth_utils.crypto import keccak

from tests import tools
from topup.sandbox import contracts as world

Rpc = Callable[[str, list[Any]], Any]

FACTORY = "0x33128a8fC17869897dcE68Ed026d694621f6FDfD"
POOL_INIT_CODE_HASH = bytes.fromhex("e34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54")
DEPLOYER = "0x" + keccak(text="tests: deployer")[-20:].hex()
TICK_SPACINGS = {500: 10, 3000: 60}
HIGHEST_TICK = 887_220  # The highest multiple of both spacings.
NOBODY = "0x" + "00" * 20
_FACTORY_OWNER_SLOT = 3


def deploy(rpc: Rpc) -> None:
    """Replace the stand-ins by Uniswap's factory, pools, QuoterV2, UniversalRouter and by Permit2.

    `rpc(method, params)` returns the result or raises. Each pool gets the depth of our own at the feed's price, over
    the whole range of prices. Takes some 20 blocks; the chain must mine each transaction at once.
    """
    rpc("anvil_impersonateAccount", [DEPLOYER])
    rpc("anvil_setBalance", [DEPLOYER, hex(10**24)])
    _copy(rpc, _create(rpc, "v3-core", "UniswapV3Factory"), FACTORY)
    rpc("anvil_setStorageAt", [FACTORY, _word(_FACTORY_OWNER_SLOT), _word(int(DEPLOYER, 16))])
    quoter = _create(rpc, "v3-periphery", "QuoterV2", encode(["address"] * 2, [FACTORY, world.WETH]))
    _copy(rpc, quoter, world.QUOTER_V2)
    addresses = [world.PERMIT2, world.WETH, *[NOBODY] * 15, FACTORY]
    kinds = f"({','.join(['address'] * 18)},bytes32,bytes32)"
    parameters = encode([kinds], [(*addresses, bytes(32), POOL_INIT_CODE_HASH)])
    # Lock and price cache are storage that the constructor sets.
    _copy(rpc, _create(rpc, "universal-router", "UniversalRouter", parameters), world.UNIVERSAL_ROUTER, slots=4)
    rpc("anvil_setCode", [world.PERMIT2, "0x" + _permit2().hex()])
    _provide_liquidity(rpc)


def _provide_liquidity(rpc: Rpc) -> None:
    kinds = ["address"] * 3
    manager = _create(rpc, "v3-periphery", "NonfungiblePositionManager", encode(kinds, [FACTORY, world.WETH, NOBODY]))
    eth_usd = int(rpc("eth_getStorageAt", [world.ETH_USD_FEED, "0x0", "latest"]), 16)
    wei = world.POOL_DEPTH_WEI
    units = wei * eth_usd // 10**20
    sqrt_price = isqrt((units << 192) // wei)
    write(rpc, world.usdc_balance(DEPLOYER, units * len(TICK_SPACINGS)))
    _send(rpc, world.WETH, "deposit()", [], [], value=wei * len(TICK_SPACINGS))
    for token in (world.WETH, world.USDC):
        _send(rpc, token, "approve(address,uint256)", ["address", "uint256"], [manager, 2**256 - 1])
    for fee, spacing in TICK_SPACINGS.items():
        _clear(rpc, world.POOLS[fee])
        _send(rpc, FACTORY, "enableFeeAmount(uint24,int24)", ["uint24", "int24"], [fee, spacing])
        pair = [world.WETH, world.USDC, fee]
        _send(rpc, FACTORY, "createPool(address,address,uint24)", ["address", "address", "uint24"], pair)
        _send(rpc, world.POOLS[fee], "initialize(uint160)", ["uint160"], [sqrt_price])
        mint = "(address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256)"
        position = (*pair, -HIGHEST_TICK, HIGHEST_TICK, wei, units, 0, 0, DEPLOYER, 2**64)
        _send(rpc, manager, f"mint({mint})", [mint], [position])


def _clear(rpc: Rpc, pool: str) -> None:
    """Leave nothing of our own pool: CREATE2 goes to an empty account only, and its tokens were not provided."""
    rpc("anvil_setCode", [pool, "0x"])
    rpc("anvil_setNonce", [pool, "0x0"])
    write(rpc, [world.StorageWrite(pool, slot, 0) for slot in range(5)])
    write(rpc, world.usdc_balance(pool, 0))
    write(rpc, [world.StorageWrite(world.WETH, world.mapping_slot(0, pool), 0)])


def _create(rpc: Rpc, package: str, name: str, arguments: bytes = b"") -> str:
    folder = tools.require("uniswap") / package / "artifacts"
    (artifact,) = [path for path in folder.rglob(f"{name}.json") if path.parent.name == f"{name}.sol"]
    data = json.loads(artifact.read_text())["bytecode"] + arguments.hex()
    return str(_transact(rpc, {"data": data})["contractAddress"])


def _copy(rpc: Rpc, source: str, target: str, *, slots: int = 0) -> None:
    code = rpc("eth_getCode", [source, "latest"])
    rpc("anvil_setCode", [target, code.replace(source[2:].lower(), target[2:].lower())])
    for slot in range(slots):
        rpc("anvil_setStorageAt", [target, _word(slot), rpc("eth_getStorageAt", [source, hex(slot), "latest"])])


def _send(rpc: Rpc, to: str, signature: str, kinds: list[str], values: list[Any], *, value: int = 0) -> None:
    data = "0x" + (keccak(text=signature)[:4] + encode(kinds, values)).hex()
    _transact(rpc, {"to": to, "data": data, "value": hex(value)})


def _transact(rpc: Rpc, transaction: dict[str, str]) -> Any:
    sent = rpc("eth_sendTransaction", [{"from": DEPLOYER, "gas": hex(12_000_000), **transaction}])
    receipt = receipt_of(rpc, sent)
    if receipt["status"] != "0x1":
        raise RuntimeError(f"reverted: {transaction.get('to', 'a creation')}: {receipt}")
    return receipt


def receipt_of(rpc: Rpc, sent: str) -> Any:
    """Wait for a transaction's receipt; TimeoutError when it takes more than ten seconds. Mining follows sending."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        receipt = rpc("eth_getTransactionReceipt", [sent])
        if receipt is not None:
            return receipt
        time.sleep(0.002)
    raise TimeoutError(f"not mined: {sent}")


def write(rpc: Rpc, writes: list[world.StorageWrite]) -> None:
    for address, slot, value in writes:
        rpc("anvil_setStorageAt", [address, _word(slot), _word(value)])


def _word(value: int) -> str:
    return f"0x{value:064x}"


def _permit2() -> bytes:
    """Return Permit2's code for this chain: Optimism's package has it with two holes, chain id and domain."""
    source = tools.require("uniswap").parent / "@eth-optimism/contracts-bedrock/src/libraries/Preinstalls.sol"
    found = re.search(r'Permit2TemplateCode\s*=\s*hex"([0-9a-f]+)"', source.read_text())
    if not found:
        raise RuntimeError("contracts-bedrock no longer holds Permit2's code")
    code = bytearray.fromhex(found.group(1))
    domain = keccak(text="EIP712Domain(string name,uint256 chainId,address verifyingContract)") + keccak(text="Permit2")
    separator = keccak(domain + encode(["uint256", "address"], [world.CHAIN_ID, world.PERMIT2]))
    code[6945:6977] = world.CHAIN_ID.to_bytes(32, "big")
    code[6983:7015] = separator
    return bytes(code)
