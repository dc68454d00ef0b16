"""What does the chain say? Transport, contracts, quotes, simulation and evidence, each in a room of its own.

`profiles` holds the addresses as data, `rpc` speaks JSON-RPC, `owners` tells providers apart, `providers` watches them,
`agreement` joins what they say, `quorum` says how many have to. `blocks` reads which block was shown, `contracts` knows
the ABIs, `reverts` turns revert data into sentences, `preflight` reads what a payment is planned on, `simulation` runs
it dry, `broadcast` hands signed bytes over, `submission` does so by web3.py, `receipts` and `authorizations` say what
became of them, `charge_status` and `logs` whether a charge was ever paid. `contract_chain` and `token_chain` join them
into the two chains of `ports`. Only `submission` imports web3, which is slow to load: a daemon that never pays never
does, and a restart with a payment out there sends its bytes again without.

Whatever asks a provider raises `WrongChain` where it speaks for another chain, and `ChainUnknown` where it did not
answer, is behind, or answered what cannot be read. Docstrings of this room name the errors beyond these two, and what
is unknown only where that is not plain.
"""
