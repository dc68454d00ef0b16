"""Where is the ledger? One file each for a database: its schema and the `Store` port spoken to it."""
