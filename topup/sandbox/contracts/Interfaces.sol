// SPDX-License-Identifier: MIT
// What do the contracts of the embedded world ask of each other?
pragma solidity 0.8.37;

import {Pool} from "./Pool.sol";

interface IERC20 {
    function balanceOf(address account) external view returns (uint256);
    function allowance(address owner, address spender) external view returns (uint256);
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

interface ISwapCallback {
    function uniswapV3SwapCallback(int256 amount0Delta, int256 amount1Delta, bytes calldata data) external;
}

library Pools {
    address internal constant FACTORY = 0x33128a8fC17869897dcE68Ed026d694621f6FDfD;
    bytes32 internal constant INIT_CODE_HASH = 0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54;
    // The price limits of Uniswap V3, which mean "any price".
    uint160 internal constant LOWEST = 4295128740;
    uint160 internal constant HIGHEST = 1461446703485210103287273052203988822378723970341;

    /// The address at which Uniswap's factory on Base would put this pool; it may hold no code.
    function poolOf(address a, address b, uint24 fee) internal pure returns (Pool) {
        (address token0, address token1) = a < b ? (a, b) : (b, a);
        bytes32 salt = keccak256(abi.encode(token0, token1, fee));
        return Pool(address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", FACTORY, salt, INIT_CODE_HASH))))));
    }

    /// Asks the pool for exactly `amountOut`; it may give less, and calls the caller back for its price.
    function swapExactOut(
        address tokenIn,
        address tokenOut,
        uint24 fee,
        uint256 amountOut,
        address recipient,
        bytes memory data
    ) internal returns (uint256 received) {
        bool zeroForOne = tokenIn < tokenOut;
        (int256 amount0, int256 amount1) = poolOf(tokenIn, tokenOut, fee).swap(
            recipient, zeroForOne, -int256(amountOut), zeroForOne ? LOWEST : HIGHEST, data
        );
        return uint256(-(zeroForOne ? amount1 : amount0));
    }
}

library Tokens {
    /// Moves tokens and says `complaint` when the token refuses, runs out of gas or answers false.
    function move(address token, address to, uint256 amount, string memory complaint) internal {
        (bool ok, bytes memory answer) = token.call(abi.encodeCall(IERC20.transfer, (to, amount)));
        require(ok && (answer.length == 0 || abi.decode(answer, (bool))), complaint);
    }
}
