"""topup keeps a prepaid AI-API account funded from a crypto wallet, unattended.

Its rooms:

  domain/      words and pure judgement: money, a charge, a top-up, a decision
  accounting/  the journal, what is reckoned from it, and how it is written
  ports/       what the flow needs from the world, as protocols
  payment/     one pass, and the life of one top-up
  sellers/     who sells credits: their APIs, and the ways to pay
  chain/       what the chain says
  signers/     who signs
  ledger/      where everything is kept
  wire/        what is let in of what others say
  web/         what is given over HTTP to whoever looks
  app/         settings, assembly, daemon, logging
  commands/    one file a command
  sandbox/     a whole world, small enough for one process

Each module begins with the question it answers; docs/architecture.md lists them all.
"""

__version__ = "0.1.0"
