"""Run topup as `python -m topup`."""

from topup.cli import main

main()
