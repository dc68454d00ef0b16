"""Who bounds the daemon's key? An account on a Tempo chain, and its owner, who has the root key and types commands."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_keys.datatypes import PrivateKey

from tests.tools import outside
from tests.world.served import TOPUP, ran
from tests.world.tempo import selling
from topup.sandbox.tempo import USDC_E
from topup.sandbox.world import World

KEY: Final = PrivateKey(b"\x21" * 32)
ROOT: Final = KEY.public_key.to_canonical_address()
TOKEN: Final = bytes.fromhex(USDC_E[2:])
HELD: Final = 100_000_000


def account() -> World:
    """A world whose wallet is an empty key, beside an account with a hundred dollars that knows nothing of it."""
    return selling(funds={shown(ROOT): HELD}, holds=0)


def shown(data: bytes) -> str:
    return "0x" + data.hex()


class Owner:
    """Who has the root key in a keystore of its own, and types commands."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.directory = world, directory
        self.keystore, self.password = directory / "root.json", directory / "root.password"
        encrypted = Account.encrypt(KEY.to_bytes(), "open", kdf="scrypt", iterations=2)
        self.keystore.write_text(json.dumps(encrypted), encoding="utf-8")
        self.password.write_text("open", encoding="utf-8")

    def types(self, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command with the daemon's settings, which name no root key; None removes one of them."""
        return ran([*TOPUP, *arguments], {k: v for k, v in (self.settings() | changes).items() if v is not None})

    def settings(self) -> dict[str, str | None]:
        own = {
            "TOPUP_CONFIG": os.devnull,
            "TOPUP_STATE_DIR": str(self.directory / "state"),
            "TOPUP_RAILS__USE": "mpp",
            "TOPUP_RAILS__MPP__RPC_URLS": self.world.rpc.url,
            "TOPUP_RAILS__MPP__ROOT": shown(ROOT),
        }
        return {**outside(), **self.world.environment(), **own}

    def sets(self, amount: str, *more: str) -> subprocess.CompletedProcess[str]:
        files = ("--root-keystore", str(self.keystore), "--root-password-file", str(self.password))
        return self.types("wallet", "limit", "--amount", amount, "--period-days", "1", *files, *more)

    def reads(self) -> dict[str, Any]:
        """Return what `topup wallet limit --show --json` says."""
        told: dict[str, Any] = json.loads(self.types("wallet", "limit", "--show", "--json").stdout)
        return told

    def doctor(self) -> dict[str, Any]:
        """Return what doctor says of the access key."""
        checks = json.loads(self.types("doctor", "--json").stdout)["checks"]
        (one,) = [check for check in checks if check["name"] == "mpp access key"]
        found: dict[str, Any] = one
        return found
