"""Where everything is kept: one SQLite file and its lock."""
