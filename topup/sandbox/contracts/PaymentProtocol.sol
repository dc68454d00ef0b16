// SPDX-License-Identifier: MIT
// Is this intent the operator's, unused and alive, and did exactly what it names arrive?
pragma solidity 0.8.37;

import {IERC20} from "./Interfaces.sol";
import {Router} from "./Router.sol";

struct TransferIntent {
    uint256 recipientAmount;
    uint256 deadline;
    address payable recipient;
    address recipientCurrency;
    address refundDestination;
    uint256 feeAmount;
    bytes16 id;
    address operator;
    bytes signature;
    bytes prefix;
}

/// Stands in for the on-chain payment protocol: same storage slots, same checks in the same order, same errors.
/// It has no constructor and no owner's functions: the genesis, and whoever disturbs the world, write its storage.
contract PaymentProtocol {
    address public owner; // slot 0, with paused
    bool public paused;
    uint256 private entered; // slot 1: 1 outside, 2 inside
    address public sweeper; // slot 2
    mapping(address operator => address) private feeDestinations; // slot 3
    mapping(address operator => mapping(bytes16 id => bool)) private processedTransferIntents; // slot 4
    // The original holds these as immutables; here they have slots, so that a genesis can write them.
    Router private router; // slot 5
    address private weth; // slot 6
    address public permit2; // slot 7

    address private constant ETH = address(0);
    // secp256k1n / 2: a signature with a larger s is the twin of one with a smaller.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    // WRAP_ETH, V3_SWAP_EXACT_OUT, TRANSFER, TRANSFER, UNWRAP_WETH, SWEEP
    bytes private constant COMMANDS = hex"0b0105050c04";

    event Transferred(
        address indexed operator,
        bytes16 id,
        address recipient,
        address sender,
        uint256 spentAmount,
        address spentCurrency
    );

    error InvalidSignature();
    error ExpiredIntent();
    error NullRecipient();
    error AlreadyProcessed();
    error OperatorNotRegistered();
    error IncorrectCurrency(address attemptedCurrency);
    error InexactTransfer();
    error InsufficientBalance(uint256 difference);
    error InsufficientAllowance(uint256 difference);
    error SwapFailedString(string reason);
    error SwapFailedBytes(bytes reason);

    modifier guarded(TransferIntent calldata intent) {
        require(entered != 2, "ReentrancyGuard: reentrant call");
        entered = 2;
        require(!paused, "Pausable: paused");
        check(intent);
        _;
        entered = 1;
    }

    /// Pays a token intent with ETH through one Uniswap V3 pool; what is left of the ETH goes back to the sender.
    /// An intent over nothing is taken as paid and keeps the ETH, as the original does.
    function swapAndTransferUniswapV3Native(TransferIntent calldata intent, uint24 poolFeesTier)
        external
        payable
        guarded(intent)
    {
        if (intent.recipientCurrency == ETH || intent.recipientCurrency == weth) revert IncorrectCurrency(ETH);
        uint256 needed = intent.recipientAmount + intent.feeAmount;
        uint256 spent = needed == 0 ? 0 : swap(intent, needed, poolFeesTier);
        succeed(intent, spent, ETH);
    }

    /// Pays a token intent with the sender's own tokens, which this contract must have been approved to take.
    function transferTokenPreApproved(TransferIntent calldata intent) external guarded(intent) {
        if (intent.recipientCurrency == ETH) revert IncorrectCurrency(ETH);
        IERC20 token = IERC20(intent.recipientCurrency);
        uint256 needed = intent.recipientAmount + intent.feeAmount;
        uint256 balance = token.balanceOf(msg.sender);
        if (balance < needed) revert InsufficientBalance(needed - balance);
        uint256 allowance = token.allowance(msg.sender, address(this));
        if (allowance < needed) revert InsufficientAllowance(needed - allowance);
        if (needed > 0) {
            uint256 before = token.balanceOf(address(this));
            require(token.transferFrom(msg.sender, address(this), needed), "SafeERC20: ERC20 operation did not succeed");
            exactly(token, address(this), before, needed);
            give(token, intent.recipient, intent.recipientAmount);
            give(token, feeDestinations[intent.operator], intent.feeAmount);
        }
        succeed(intent, needed, intent.recipientCurrency);
    }

    receive() external payable {
        require(msg.sender == weth, "only payable for unwrapping");
    }

    function check(TransferIntent calldata intent) private view {
        if (recover(digest(intent), intent.signature) != intent.operator) revert InvalidSignature();
        if (intent.deadline < block.timestamp) revert ExpiredIntent();
        if (intent.recipient == address(0)) revert NullRecipient();
        if (processedTransferIntents[intent.operator][intent.id]) revert AlreadyProcessed();
        if (feeDestinations[intent.operator] == address(0)) revert OperatorNotRegistered();
    }

    function digest(TransferIntent calldata intent) private view returns (bytes32) {
        bytes memory head = abi.encodePacked(
            intent.recipientAmount,
            intent.deadline,
            intent.recipient,
            intent.recipientCurrency,
            intent.refundDestination,
            intent.feeAmount
        );
        bytes memory tail = abi.encodePacked(intent.id, intent.operator, block.chainid, msg.sender, address(this));
        bytes32 hash = keccak256(bytes.concat(head, tail));
        bytes memory prefix = intent.prefix.length == 0 ? bytes("\x19Ethereum Signed Message:\n32") : intent.prefix;
        return keccak256(abi.encodePacked(prefix, hash));
    }

    function recover(bytes32 hash, bytes calldata signature) private pure returns (address signer) {
        require(signature.length == 65, "ECDSA: invalid signature length");
        bytes32 s = bytes32(signature[32:64]);
        require(uint256(s) <= HALF_ORDER, "ECDSA: invalid signature 's' value");
        signer = ecrecover(hash, uint8(signature[64]), bytes32(signature[:32]), s);
        require(signer != address(0), "ECDSA: invalid signature");
    }

    function swap(TransferIntent calldata intent, uint256 needed, uint24 tier) private returns (uint256 spent) {
        IERC20 token = IERC20(intent.recipientCurrency);
        address feeDestination = feeDestinations[intent.operator];
        uint256 feeBefore = token.balanceOf(feeDestination);
        uint256 recipientBefore = token.balanceOf(intent.recipient);
        // Ether that lies in the router goes to the payer too, and is no part of the price.
        uint256 etherBefore = msg.sender.balance + msg.value + heldByRouter();

        try router.execute{value: msg.value}(COMMANDS, inputs(intent, needed, tier, feeDestination), intent.deadline) {
            exactly(token, feeDestination, feeBefore, intent.feeAmount);
            exactly(token, intent.recipient, recipientBefore, intent.recipientAmount);
        } catch Error(string memory reason) {
            revert SwapFailedString(reason);
        } catch (bytes memory reason) {
            string memory name = routerError(reason);
            if (bytes(name).length == 0) revert SwapFailedBytes(reason);
            revert SwapFailedString(name);
        }
        return etherBefore - (msg.sender.balance + heldByRouter());
    }

    function inputs(TransferIntent calldata intent, uint256 needed, uint24 tier, address feeDestination)
        private
        view
        returns (bytes[] memory list)
    {
        address token = intent.recipientCurrency;
        list = new bytes[](6);
        list[0] = abi.encode(router, msg.value);
        // An exact-output path is written backwards: what is bought, the fee tier, what is paid with.
        list[1] = abi.encode(router, needed, msg.value, abi.encodePacked(token, tier, weth), false);
        list[2] = abi.encode(token, feeDestination, intent.feeAmount);
        list[3] = abi.encode(token, intent.recipient, intent.recipientAmount);
        list[4] = abi.encode(router, 0);
        list[5] = abi.encode(ETH, msg.sender, 0);
    }

    function heldByRouter() private view returns (uint256) {
        return address(router).balance + IERC20(weth).balanceOf(address(router));
    }

    /// The name of one of the router's own errors about a swap, or nothing.
    function routerError(bytes memory reason) private pure returns (string memory) {
        if (reason.length != 4) return "";
        bytes4 selector = bytes4(reason);
        if (selector == 0x316cf0eb) return "V3InvalidSwap";
        if (selector == 0x39d35496) return "V3TooLittleReceived";
        if (selector == 0x739dbe52) return "V3TooMuchRequested";
        if (selector == 0xd4e0248e) return "V3InvalidAmountOut";
        if (selector == 0x32b13d91) return "V3InvalidCaller";
        return "";
    }

    function exactly(IERC20 token, address account, uint256 before, uint256 amount) private view {
        if (token.balanceOf(account) - before != amount) revert InexactTransfer();
    }

    function give(IERC20 token, address to, uint256 amount) private {
        if (amount > 0) require(token.transfer(to, amount), "SafeERC20: ERC20 operation did not succeed");
    }

    function succeed(TransferIntent calldata intent, uint256 spent, address currency) private {
        processedTransferIntents[intent.operator][intent.id] = true;
        emit Transferred(intent.operator, intent.id, intent.recipient, msg.sender, spent, currency);
    }
}
