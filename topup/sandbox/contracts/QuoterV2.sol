// SPDX-License-Identifier: MIT
// What would an exact-output swap cost right now, to the wei?
pragma solidity 0.8.37;

import {ISwapCallback, Pools} from "./Interfaces.sol";

/// Stands in for Uniswap's QuoterV2: it runs the swap and undoes it, so a quote and a payment cannot differ.
contract QuoterV2 is ISwapCallback {
    struct QuoteExactOutputSingleParams {
        address tokenIn;
        address tokenOut;
        uint256 amount;
        uint24 fee;
        uint160 sqrtPriceLimitX96;
    }

    /// Reverts without data when there is no such pool, with "Unexpected error" when it holds too little.
    /// The price after the swap and the ticks crossed are not modelled and 0.
    function quoteExactOutputSingle(QuoteExactOutputSingleParams memory params)
        external
        returns (uint256 amountIn, uint160 sqrtPriceX96After, uint32 initializedTicksCrossed, uint256 gasEstimate)
    {
        uint256 gasBefore = gasleft();
        require(address(Pools.poolOf(params.tokenIn, params.tokenOut, params.fee)).code.length > 0);
        try this.swapAndRevert(params) {}
        catch (bytes memory reason) {
            amountIn = parse(reason);
        }
        return (amountIn, 0, 0, gasBefore - gasleft());
    }

    function swapAndRevert(QuoteExactOutputSingleParams memory params) external {
        Pools.swapExactOut(
            params.tokenIn, params.tokenOut, params.fee, params.amount, address(this), abi.encode(params.amount)
        );
    }

    function uniswapV3SwapCallback(int256 amount0Delta, int256 amount1Delta, bytes calldata data) external pure {
        (int256 owed, int256 received) =
            amount0Delta > 0 ? (amount0Delta, -amount1Delta) : (amount1Delta, -amount0Delta);
        require(uint256(received) == abi.decode(data, (uint256)));
        assembly ("memory-safe") {
            mstore(0, owed)
            revert(0, 32)
        }
    }

    function parse(bytes memory reason) private pure returns (uint256) {
        if (reason.length == 32) return abi.decode(reason, (uint256));
        require(reason.length >= 68, "Unexpected error");
        assembly ("memory-safe") {
            revert(add(reason, 32), mload(reason))
        }
    }
}
