"""What does the chain say? Transport, contracts, quotes, simulation and evidence, each in a room of its own.

`profiles` holds the addresses as data, `rpc` speaks JSON-RPC, `owners` tells providers apart, `providers` watches them,
`agreement` joins what they say, `quorum` says how many have to. `contracts` knows the ABIs, `reverts` turns revert data
into sentences, `survey` reads what a payment is planned on, `simulation` runs it dry, `broadcast` hands signed bytes
over, `submission` does so by web3.py, `evidence` says what became of them, `fate` and `scan` whether a charge was ever
paid. `evm` joins them into the `Chain` port.
Only `submission` imports web3, which is slow to load: a daemon that never pays never does, and a restart with a payment
out there sends its bytes again without.
"""
