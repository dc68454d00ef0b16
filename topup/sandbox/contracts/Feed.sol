// SPDX-License-Identifier: MIT
// What is the price, how old is it, and is the sequencer up?
pragma solidity 0.8.37;

/// A Chainlink AggregatorV3 whose answers are written into its storage.
contract Feed {
    int256 private answer; // slot 0
    uint256 private startedAt; // slot 1, unix seconds; of the sequencer feed: when its state last changed
    uint256 private updatedAt; // slot 2, unix seconds
    uint256 private heartbeat; // slot 3: when not 0, the answer is confirmed every so many seconds
    uint256 private roundId; // slot 4
    uint256 private answeredInRound; // slot 5
    uint256 private places; // slot 6

    function decimals() external view returns (uint8) {
        return uint8(places);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        uint256 beats = heartbeat == 0 || block.timestamp < updatedAt ? 0 : (block.timestamp - updatedAt) / heartbeat;
        uint256 confirmed = beats * heartbeat;
        uint256 began = startedAt == updatedAt ? startedAt + confirmed : startedAt;
        return (uint80(roundId), answer, began, updatedAt + confirmed, uint80(answeredInRound));
    }
}
