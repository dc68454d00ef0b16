"""What a person runs, one file a command."""
