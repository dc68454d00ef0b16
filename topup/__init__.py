"""topup keeps a prepaid AI-API account funded from a crypto wallet, unattended."""

__version__ = "0.1.0"
