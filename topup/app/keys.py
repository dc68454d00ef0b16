"""Which keys are there: who pays, what signs for it, what opens the API, and which words must never be said?

A key that cannot be opened is a SettingsError or a SignerError, and so is one of another wallet than `wallet.address`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from topup.app.assembly import limits, pay_with, price_min, profile, wei
from topup.app.setting_types import token
from topup.app.settings import CREDENTIALS, Settings, secret, secret_file
from topup.domain.errors import SettingsError, SignerError
from topup.domain.json_document import read
from topup.domain.lifecycle import MONEY_OUT
from topup.domain.money import Asset, Usd
from topup.domain.policy import worst_spend
from topup.ledger.store import SqliteStore
from topup.payment.config import MPP, X402
from topup.ports.signer import Signer
from topup.wire import files
from topup.wire.secrets import Masker, of_url

if TYPE_CHECKING:  # what signs takes half a second to load
    from topup.signers.local import LocalSigner


def api_key(s: Settings) -> str:
    """Return the key of the credits API; a SettingsError where there is none."""
    key = secret(s, "api.key_file")
    if key is None:
        raise SettingsError(
            "api.key is missing", remedy="set TOPUP_API__KEY_FILE to a file that holds a management key"
        )
    return token(key, "api.key")


def signer(s: Settings) -> LocalSigner | None:
    """Open the wallet's key; None when there is none to open."""
    from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLARS
    from topup.domain.typed_data import Domain
    from topup.signers import local

    chain = profile(s)
    own = local.Ceilings(
        chain.chain_id,
        chain.contract,
        wei(s.wallet.payment_max_eth),
        wei(s.fees.network_fee_max_eth),
        price_min(s),
        chain.currency if pay_with(s) is Asset.USDC else b"",
        worst_spend(Usd(s.policy.topup_max), limits(s)).usdc_up(),
        chain.currency,
        frozenset({Domain(d.name, d.version, d.chain_id, d.token) for d in (BASE_DOLLAR,) if X402 in s.rails_in_use}),
        frozenset({(d.chain_id, d.token) for d in (TEMPO_DOLLARS[s.rails.mpp.pay_with],) if MPP in s.rails_in_use}),
        Usd(s.rails.mpp.network_fee_max_usd).usdc_down(),
        sponsored=s.rails.mpp.sponsored,
        prefixes=chain.prefixes,
        root=_root(s) or b"",
    )
    if s.wallet.keystore is not None:
        named = password_file(s)
        if named is None:
            raise SettingsError(
                "wallet.keystore_password_file is missing", remedy="name a file that holds the keystore's password"
            )
        password = files.password(named, "wallet.keystore_password_file")
        key = local.from_keystore(s.wallet.keystore, password, own)
    elif (raw := _raw_key(s)) is not None:
        key = local.from_private_key(raw, own)
    else:
        return None
    _must_be_of_the_wallet(s, key.address)
    return key


def password_file(s: Settings) -> Path | None:
    """Return the file of the keystore's password, or systemd's credential; None where neither is set."""
    return secret_file(s, "wallet.keystore_password_file")


def signing(s: Settings, store: SqliteStore) -> Signer | None:
    """Open the key, or promise to where a payment is out there and the wallet is known: it is looked for first."""
    unfinished, own = store.open_topup(s.account), known(s)
    if unfinished is None or unfinished.state not in MONEY_OUT or own is None:
        return signer(s)
    return cast("Signer", LateSigner(own, lambda: signer(s)))


def known(s: Settings) -> bytes | None:
    """Return the key's address where that takes no time: from the keystore, a raw key, or else the settings."""
    address = _told(s)
    if address is not None:
        _must_be_of_the_wallet(s, address)
        return address
    return _configured(s) if _root(s) is None else None


def wallet(s: Settings) -> bytes | None:
    """Return the wallet's address, from the key and from `wallet.address`; None when neither is set."""
    address = _told(s) if s.wallet.address is not None else None
    if address is not None:
        _must_be_of_the_wallet(s, address)
        return address
    key = signer(s)
    return key.address if key is not None else _configured(s)


def payer(s: Settings) -> bytes | None:
    """Return the account that pays: the root where the key is one of its access keys, else the wallet, or None."""
    return _root(s) or wallet(s)


def paying(s: Settings, key: Signer | None) -> bytes | None:
    """Return the account that pays as far as that is known when this key, or none, is open."""
    return _root(s) or (key.address if key is not None else _configured(s))


def access_key(s: Settings) -> bytes | None:
    """Return the wallet's key where it is an access key of another account; None where it pays for itself."""
    root = _root(s)
    if root is None:
        return None
    own = wallet(s)
    return None if own == root else own


def masker(s: Settings) -> Masker:
    """Return what masks our secrets: the API key, the wallet's, what opens it, and whatever in a URL may be one."""
    told = (url for url in (s.notify.webhook_url, s.notify.heartbeat_url) if url is not None)
    urls = (*s.chain.rpc_urls, *s.rails.mpp.rpc_urls, *told)
    return Masker([*secrets(s), *(part for url in urls for part in of_url(url))])


def secrets(s: Settings) -> list[str]:
    """Return what is secret for sure: no answer may hold it that is kept as it came."""
    known_ones: list[str] = []
    for name in CREDENTIALS:
        with contextlib.suppress(SettingsError):  # whoever needs it says what is wrong with it
            known_ones += [line.strip() for line in (secret(s, name) or "").splitlines() if line.strip()]
    return known_ones


def _must_be_of_the_wallet(s: Settings, own: bytes) -> None:
    """Refuse another wallet's key: one command would pay from this one, and another look at that."""
    if _root(s) is not None or _configured(s) in (None, own):
        return
    raise SettingsError(
        f"wallet.address is {s.wallet.address}, and the key is that of 0x{own.hex()}",
        remedy="correct or remove wallet.address, or name another key",
    )


def _configured(s: Settings) -> bytes | None:
    return bytes.fromhex(s.wallet.address[2:]) if s.wallet.address is not None else None


def _root(s: Settings) -> bytes | None:
    return bytes.fromhex(s.rails.mpp.root[2:]) if s.rails.mpp.root is not None else None


def _raw_key(s: Settings) -> str | None:
    return secret(s, "wallet.private_key_file")


def _told(s: Settings) -> bytes | None:
    """Return what the keystore says of its key, or the address of a raw one; None where that cannot be told."""
    if s.wallet.keystore is None:
        raw = _raw_key(s)
        return None if raw is None else _address_of(raw)
    return stated(s.wallet.keystore, "wallet.keystore")


def stated(keystore: Path, named: str) -> bytes | None:
    """Return the address that a keystore states, unopened; None where it states none. `named` is what names it."""
    try:
        said = read(files.text(keystore, named).encode())["address"]
        address = bytes.fromhex(str(said).strip().lower().removeprefix("0x"))
    except (ValueError, LookupError, TypeError):
        return None  # whoever opens it says what is wrong with it
    return address if len(address) == 20 else None


def _address_of(raw: str) -> bytes | None:
    from eth_keys.datatypes import PrivateKey  # the curve alone, without what signs transactions

    digits = raw.strip().removeprefix("0x")
    if len(digits) != 64 or set(digits) - set("0123456789abcdefABCDEF"):
        return None  # whoever opens the key says what is wrong with it
    return PrivateKey(bytes.fromhex(digits)).public_key.to_canonical_address()


class LateSigner:
    """A `Signer` that opens its key when it is first told to sign; its address is known before.

    Opening a keystore takes a second on purpose, and loading what opens it half of one. Neither is needed to find a
    payment or to send the same bytes again.
    """

    def __init__(self, address: bytes, opening: Callable[[], Signer | None]) -> None:
        self.address = address
        self._opening = opening
        self._signer: Signer | None = None

    def __getattr__(self, name: str) -> Any:
        """Return how the opened key signs; for nothing else is it opened, and nothing else of it is shown."""
        if not name.startswith("sign_"):
            raise AttributeError(name)
        return getattr(self._opened(), name)

    def _opened(self) -> Signer:
        if self._signer is None:
            try:
                signer = self._opening()
            except SettingsError as error:  # what cannot be opened signs nothing, and the payment is planned again
                raise SignerError(str(error), remedy=error.remedy) from None
            if signer is None:
                raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
            if signer.address != self.address:
                raise SignerError(
                    f"the key belongs to 0x{signer.address.hex()}, not to 0x{self.address.hex()}",
                    remedy="correct wallet.address, or wallet.keystore",
                )
            self._signer = signer
        return self._signer
