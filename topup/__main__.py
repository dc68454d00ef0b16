"""The command line, run as a module."""

from topup.commands.cli import main

main()
