"""Which address has the wallet's key?"""

from pathlib import Path

from eth_utils.address import to_checksum_address

from topup.app import keys
from topup.commands.answer import Answer
from topup.commands.start import load
from topup.domain.errors import Exit, SettingsError


def answer(keystore: Path | None) -> Answer:
    """Say the address, of which a keystore makes no secret; its password is needed only where it states none."""
    if keystore is not None:
        address = keys.stated(keystore, "--keystore")
        if address is None:
            remedy = "set wallet.keystore and wallet.keystore_password_file, which open it, and leave --keystore out"
            raise SettingsError(f"--keystore: {keystore} states no address", remedy=remedy)
    else:
        settings = load()
        address = keys.known(settings) or keys.wallet(settings)
    if address is None:
        raise SettingsError("no wallet is set", remedy="`topup wallet new` makes one; or set wallet.address")
    shown = str(to_checksum_address(address))
    return Answer({"schema": 1, "address": shown}, [shown], Exit.OK)
