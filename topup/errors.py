"""Where did `topup.errors` go? To `topup.domain.errors`; the old name stays for one version."""

from topup.domain.errors import *  # noqa: F403
