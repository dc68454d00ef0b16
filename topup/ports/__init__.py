"""What the flow of a payment needs from the world, as protocols.

Each is spoken in the words of this program; what lies behind it (HTTP, JSON-RPC, a keystore, SQLite) is known by one
package at the edge. The ledger is synchronous on purpose: a transaction that cannot be suspended cannot be interleaved.
"""
