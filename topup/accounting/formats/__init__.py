"""How statements are written: text, CSV, plain-text accounting, HTML."""
