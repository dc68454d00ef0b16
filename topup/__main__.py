"""The command line, run as a module."""

from topup.cli import main

main()
