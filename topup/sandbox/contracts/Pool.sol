// SPDX-License-Identifier: MIT
// What does a dollar cost in ETH here, and what if there are not enough dollars?
pragma solidity 0.8.37;

import {IERC20, ISwapCallback, Tokens} from "./Interfaces.sol";

/// A WETH/USDC pool: constant product with a fee on what comes in, behind the `swap` of a Uniswap V3 pool.
/// It sells token1 for token0 by exact output only, never more than it holds. Prices are set through its storage.
contract Pool {
    address public token0; // slot 0: WETH
    address public token1; // slot 1: USDC
    uint256 public fee; // slot 2, in millionths; a whole word, like all that a genesis writes
    uint256 public reserve0; // slot 3, wei
    uint256 public reserve1; // slot 4, units of USDC

    // The last three are not modelled and always 0.
    event Swap(
        address indexed sender,
        address indexed recipient,
        int256 amount0,
        int256 amount1,
        uint160 sqrtPriceX96,
        uint128 liquidity,
        int24 tick
    );

    function swap(address recipient, bool zeroForOne, int256 amountSpecified, uint160, bytes calldata data)
        external
        returns (int256 amount0, int256 amount1)
    {
        require(zeroForOne && amountSpecified < 0, "AS");
        uint256 amountOut = atMost(uint256(-amountSpecified));
        uint256 amountIn = price(amountOut);
        (amount0, amount1) = (int256(amountIn), -int256(amountOut));
        reserve0 += amountIn;
        reserve1 -= amountOut;
        Tokens.move(token1, recipient, amountOut, "TF");
        uint256 before = IERC20(token0).balanceOf(address(this));
        ISwapCallback(msg.sender).uniswapV3SwapCallback(amount0, amount1, data);
        require(IERC20(token0).balanceOf(address(this)) >= before + amountIn, "IIA");
        emit Swap(msg.sender, recipient, amount0, amount1, 0, 0, 0);
    }

    function atMost(uint256 wanted) private view returns (uint256) {
        uint256 held = IERC20(token1).balanceOf(address(this));
        if (held >= reserve1) held = reserve1 - 1; // the last unit has no finite price
        return wanted < held ? wanted : held;
    }

    function price(uint256 amountOut) private view returns (uint256) {
        uint256 net = ceilDiv(reserve0 * amountOut, reserve1 - amountOut);
        return ceilDiv(net * 1e6, 1e6 - fee);
    }

    function ceilDiv(uint256 a, uint256 b) private pure returns (uint256) {
        return (a + b - 1) / b;
    }
}
