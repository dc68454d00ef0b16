// SPDX-License-Identifier: MIT
// What does a transaction cost on L1, on top of its gas?
pragma solidity 0.8.37;

/// The two questions a payer asks of the OP stack's predeploy, with one plain price in place of its compression model.
contract GasPriceOracle {
    uint256 private weiPerByte; // slot 0
    uint256 private constant SIGNATURE_BYTES = 68;

    /// The fee in wei of the transaction whose unsigned RLP this is.
    function getL1Fee(bytes calldata unsignedTx) external view returns (uint256) {
        return weiPerByte * (unsignedTx.length + SIGNATURE_BYTES);
    }

    /// The most that an unsigned transaction of this many bytes can cost, in wei.
    function getL1FeeUpperBound(uint256 unsignedTxSize) external view returns (uint256) {
        return weiPerByte * (unsignedTxSize + unsignedTxSize / 255 + 16 + SIGNATURE_BYTES);
    }
}
