// SPDX-License-Identifier: MIT
// What does the router do with the six commands that the payment contract sends?
pragma solidity 0.8.37;

import {IERC20, ISwapCallback, Pools, Tokens} from "./Interfaces.sol";
import {Weth} from "./Weth.sol";

/// Stands in for Uniswap's UniversalRouter: the same inputs and errors, for these commands and one-hop paths only.
contract Router is ISwapCallback {
    address private weth; // slot 0

    error TransactionDeadlinePassed();
    error LengthMismatch();
    error InvalidCommandType(uint256 commandType);
    error InsufficientETH();
    error V3TooMuchRequested();
    error V3InvalidAmountOut();
    error V3InvalidCaller();

    function execute(bytes calldata commands, bytes[] calldata inputs, uint256 deadline) external payable {
        if (block.timestamp > deadline) revert TransactionDeadlinePassed();
        if (commands.length != inputs.length) revert LengthMismatch();
        for (uint256 i = 0; i < commands.length; i++) dispatch(uint8(commands[i]), inputs[i]);
    }

    function uniswapV3SwapCallback(int256 amount0Delta, int256 amount1Delta, bytes calldata data) external {
        (address token, uint24 fee, uint256 most) = abi.decode(data, (address, uint24, uint256));
        if (msg.sender != address(Pools.poolOf(weth, token, fee))) revert V3InvalidCaller();
        uint256 owed = uint256(amount0Delta > 0 ? amount0Delta : amount1Delta);
        if (owed > most) revert V3TooMuchRequested();
        Tokens.move(weth, msg.sender, owed, "TRANSFER_FAILED");
    }

    receive() external payable {}

    function dispatch(uint256 command, bytes calldata input) private {
        if (command == 0x01) {
            (address to, uint256 amountOut, uint256 most, bytes memory path,) =
                abi.decode(input, (address, uint256, uint256, bytes, bool));
            swapExactOut(to, amountOut, most, path);
        } else if (command == 0x04) {
            (address token, address to, uint256 least) = abi.decode(input, (address, address, uint256));
            sweep(token, to, least);
        } else if (command == 0x05) {
            (address token, address to, uint256 amount) = abi.decode(input, (address, address, uint256));
            Tokens.move(token, to, amount, "TRANSFER_FAILED");
        } else if (command == 0x0b) {
            (, uint256 amount) = abi.decode(input, (address, uint256));
            if (amount > address(this).balance) revert InsufficientETH();
            if (amount > 0) Weth(payable(weth)).deposit{value: amount}();
        } else if (command == 0x0c) {
            (, uint256 least) = abi.decode(input, (address, uint256));
            uint256 held = IERC20(weth).balanceOf(address(this));
            if (held < least) revert InsufficientETH();
            if (held > 0) Weth(payable(weth)).withdraw(held);
        } else {
            revert InvalidCommandType(command);
        }
    }

    function swapExactOut(address to, uint256 amountOut, uint256 most, bytes memory path) private {
        address token;
        uint24 fee;
        assembly ("memory-safe") {
            token := shr(96, mload(add(path, 32)))
            fee := shr(232, mload(add(path, 52)))
        }
        bytes memory data = abi.encode(token, fee, most);
        if (Pools.swapExactOut(weth, token, fee, amountOut, to, data) != amountOut) revert V3InvalidAmountOut();
    }

    function sweep(address token, address to, uint256 least) private {
        require(token == address(0), "only ETH is swept here");
        uint256 held = address(this).balance;
        if (held < least) revert InsufficientETH();
        if (held == 0) return;
        (bool ok,) = to.call{value: held}("");
        require(ok, "ETH_TRANSFER_FAILED");
    }
}
