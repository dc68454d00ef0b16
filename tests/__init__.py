"""Does topup keep its promises? `python -m tests` answers."""
