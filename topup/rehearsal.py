"""Where did `topup.rehearsal` go? To `topup.commands.demo`; the old name stays for one version."""

from topup.commands.demo import SERVED

__all__ = ["SERVED"]
