"""What is a whole world, small enough for one process? A chain, a provider of credits, and a daemon that is real.

`contracts` are our own stand-ins at Base's addresses, `evm` an embedded chain (`anvil` another), `rpc` serves either,
`gateway` sells credits for charges that `charges` signs, and `postings` sees them paid; `purchases` and `x402_seller`
sell on other rails. `wire` and `faults` make all of it misbehave, and `world` joins them under one clock.
"""
