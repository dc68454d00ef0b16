"""Where did `topup.settings` go? To `topup.app.settings`; the old name stays for one version."""

from topup.app.settings import Settings, load

__all__ = ["Settings", "load"]
