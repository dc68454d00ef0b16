"""What did the owner say? Environment `TOPUP_*` over file over default, each with a type, a bound and a cross-check.

Nested names are joined by two underscores: `policy.floor` is `TOPUP_POLICY__FLOOR` in the environment and
`[policy] floor` in the file. Secrets may come from files (`…_FILE`) or from `$CREDENTIALS_DIRECTORY`. A name that
is not known is an error, because a limit that was misspelt is a limit that does not hold.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from topup.app import variables
from topup.chain.owners import quorum
from topup.domain.errors import FileAway, SettingsError
from topup.domain.money import plain
from topup.sellers.mpp_fields import OPENROUTER as SELLER
from topup.wire import files

PREFIX = "TOPUP_"
CONFIG = "TOPUP_CONFIG"


# No plain number of a setting is longer than this.
DIGITS_MAX = 40
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _exact(places: int) -> Any:
    """Return a reader of plain decimal numbers with at most `places` digits behind the point; nothing is rounded."""

    def read(value: object) -> Decimal:
        # A float has already lost what it was, and `true` is an int to Python.
        if isinstance(value, bool | float) or not isinstance(value, str | int | Decimal):
            raise ValueError("expected a plain number, such as 10 or 12.5")  # noqa: TRY004 - pydantic wants ValueError
        text = str(value).strip()
        if isinstance(value, str) and not (0 < len(text) <= DIGITS_MAX and set(text) <= set("0123456789.-")):
            raise ValueError("expected a plain number, such as 10 or 12.5")
        try:
            number = Decimal(text)
        except ArithmeticError:
            raise ValueError("expected a plain number, such as 10 or 12.5") from None
        tiny = number.is_finite() and int(number.as_tuple().exponent) < -DIGITS_MAX
        if not number.is_finite() or number.adjusted() > DIGITS_MAX or tiny:
            raise ValueError("expected a finite number of ordinary size")
        if len(plain(number).partition(".")[2]) > places:
            raise ValueError(f"has more than {places} digits behind the point")
        return number

    return read


def _listed(value: object) -> object:
    """Environment lists are separated by commas."""
    if isinstance(value, int):  # pydantic-settings has read the text "500" as JSON
        return [value]
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names the same thing twice")
    return values


def _hex(digits: int) -> Any:
    def check(value: str) -> str:
        body = value[2:]
        if value[:2] not in ("0x", "0X") or len(body) != digits or set(body) - set("0123456789abcdefABCDEF"):
            raise ValueError(f"expected 0x and {digits} hex digits")
        return "0x" + body.lower()

    return check


def _address(value: str) -> str:
    lower: str = _hex(40)(value)
    if lower == "0x" + "0" * 40:
        raise ValueError("is the null address")
    if value[2:] not in (value[2:].lower(), value[2:].upper()) and _checksum(lower[2:]) != value[2:]:
        raise ValueError("has a wrong checksum: a digit or a letter's case is mistyped")
    return lower


def _prefix(value: str) -> str:
    """Read how an operator signs: by EIP-191, which the contract takes an empty prefix for, or behind these bytes."""
    if value.lower() == "eip191":
        return "eip191"
    body = value[2:].lower()
    if value[:2] != "0x" or not 2 <= len(body) <= 128 or len(body) % 2 or set(body) - set("0123456789abcdef"):
        raise ValueError("expected eip191, or 0x and the bytes of a prefix in hex, 64 at most")
    return "0x" + body


def _checksum(digits: str) -> str:
    """Write the 40 lower-case digits of an address in the case that ERC-55 gives them."""
    from eth_hash.auto import keccak  # eth_utils has this function, and every command would wait 0.2 s for the rest

    marks = keccak(digits.encode()).hex()
    return "".join(d.upper() if int(m, 16) >= 8 else d for d, m in zip(digits, marks, strict=False))


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    strange = any(c.isspace() or not c.isprintable() or c == "\\" for c in value)
    if parts is None or parts.scheme not in ("http", "https") or not host or strange or parts.fragment:
        raise ValueError("expected a URL that begins with https:// (or http:// for loopback)")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError("plain http is allowed for loopback only: keys and payments would travel in the clear")
    netloc = parts.netloc.rpartition("@")
    # A key at a query's end may end in a slash that belongs to it.
    path = parts.path.rstrip("/") if not parts.query else parts.path
    return urlunsplit(parts._replace(netloc=netloc[0] + netloc[1] + netloc[2].lower(), path=path))


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.query or parts.username is not None:
        raise ValueError("expected a base URL without user or query: paths are appended to it")
    return value


def _realm(value: str) -> str:
    # As a challenge's header can hold it; mppx calls itself "MPP Payment".
    if not (0 < len(value) <= 253 and value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError("expected up to 253 printable characters of ASCII, without a blank at either end")
    return value


def _path(value: object) -> object:
    if value in ("", Path()):
        raise ValueError("is empty: name a file, or leave it out")
    if isinstance(value, str | Path) and (wrong := files.stray(str(value))):
        raise ValueError(wrong)
    return value


def _private_key(value: SecretStr) -> SecretStr:
    body = value.get_secret_value().strip().removeprefix("0x")
    if len(body) != 64 or set(body) - set("0123456789abcdefABCDEF"):
        raise ValueError("expected 0x and 64 hex digits")
    return value


def token(text: str, what: str) -> str:
    """Return `text` when it can stand in an HTTP header.

    Raises:
        SettingsError: it is empty, or holds a blank or something else than printable ASCII; `what` names the setting.
    """
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(
            f"{what} is {'empty' if not text else 'no key: it holds blanks or letters that no key has'}",
            remedy="copy the key again, alone and on one line",
        )
    if text[0] in "\"'`" or re.match(r"(export\s+)?[A-Z][A-Z0-9_]*=", text):
        raise SettingsError(
            f"{what} is no key: quotes or a variable's name stand before it", remedy="copy the key alone, on one line"
        )
    return text


def _token(value: SecretStr) -> SecretStr:
    try:
        token(value.get_secret_value().strip(), "it")
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return value


Dollars = Annotated[Decimal, BeforeValidator(_exact(6)), Field(ge=0, le=1_000_000)]
Eth = Annotated[Decimal, BeforeValidator(_exact(18)), Field(ge=0, le=1000)]
Gwei = Annotated[Decimal, BeforeValidator(_exact(9)), Field(le=1_000_000)]
Hours = Annotated[Decimal, BeforeValidator(_exact(6)), Field(gt=0, le=8760)]
Address = Annotated[str, AfterValidator(_address)]
Hash = Annotated[str, AfterValidator(_hex(64))]
Url = Annotated[str, AfterValidator(_url)]
BaseUrl = Annotated[Url, AfterValidator(_base_url)]
File = Annotated[Path, BeforeValidator(_path)]
PrivateKey = Annotated[SecretStr, AfterValidator(_private_key)]
ApiKey = Annotated[SecretStr, AfterValidator(_token)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Addresses = Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)]
Prefixes = Annotated[
    tuple[Annotated[str, AfterValidator(_prefix)], ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)
]
Urls = Annotated[tuple[Url, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)]
Realm = Annotated[str, AfterValidator(_realm)]
UrlPath = Annotated[str, Field(pattern=r"^/[!-~]{1,255}$")]
PurchasePath = Annotated[str, Field(pattern=r"^(/[!-z|~]{0,200}\{id\}[!-z|~]{0,55})?$")]
Member = Annotated[str, Field(pattern=r"^[!-~]{0,64}$")]
Name = Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]
Paths = Annotated[tuple[UrlPath, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)]
Words = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)]
Rails = Annotated[
    tuple[Literal["coinbase", "mpp", "x402"], ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)
]
Tiers = Annotated[
    tuple[Annotated[int, Field(ge=1, le=999_999)], ...],
    NoDecode,
    BeforeValidator(_listed),
    AfterValidator(_distinct),
    Field(min_length=1),
]


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: object, info: ValidationInfo) -> object:
        """Take true and false where they are meant, and nothing else there; to Python `true` is also the number 1."""
        field = cls.model_fields.get(info.field_name or "")
        if field is not None and field.annotation is bool:
            words: dict[object, bool] = {"true": True, "false": False}
            said = words.get(value.strip().lower()) if isinstance(value, str) else value
            if not isinstance(said, bool):
                raise ValueError("expected true or false")
            return said
        if isinstance(value, bool):
            raise ValueError("expected something else than true or false")  # noqa: TRY004 - pydantic wants ValueError
        return value


class ApiSection(Section):
    """The prepaid account."""

    kind: Literal["openrouter", "x402", "mpp"] = Field(
        default="openrouter",
        description="who is asked for the credits: OpenRouter's API, the x402 rail's gateway, or the mpp rail's seller",
    )
    url: BaseUrl = Field(
        default="https://openrouter.ai/api/v1", description="base URL of the credits API or a compatible gateway"
    )
    key: ApiKey | None = Field(default=None, description="management key; better through key_file or a credential")
    key_file: File | None = Field(default=None, description="file that holds the management key")
    timeout_s: int = Field(default=20, ge=1, le=300, description="longest wait for one answer")


class WalletSection(Section):
    """The key that pays."""

    address: Address | None = Field(default=None, description="wallet address; needed only to observe without a key")
    keystore: File | None = Field(default=None, description="keystore v3 file")
    keystore_password_file: File | None = Field(default=None, description="file that holds the keystore's password")
    private_key: PrivateKey | None = Field(default=None, description="raw private key; prefer a keystore")
    private_key_file: File | None = Field(
        default=None, description="file that holds a raw private key; prefer a keystore"
    )
    payment_max_eth: Eth = Field(
        default=Decimal("0.1"), ge=Decimal("0.0001"), description="the signer refuses any payment above this value"
    )
    reserve_eth: Eth = Field(default=Decimal("0.001"), description="ETH the wallet always keeps")


class ChainSection(Section):
    """The chain and its providers."""

    id: int = Field(default=8453, description="chain id; a profile of that chain must exist")
    rpc_urls: Urls = Field(
        default=("https://mainnet.base.org",),
        min_length=1,
        repr=False,
        description="JSON-RPC providers; signed bytes go to all",
    )
    quorum: int | None = Field(
        default=None, ge=1, le=2, description="providers of different owners that must agree; default 2 when there are"
    )
    lag_max_s: int = Field(
        default=30, ge=4, le=3600, description="a provider that is further behind the others is set aside"
    )
    timeout_s: int = Field(default=15, ge=1, le=300, description="longest wait for one answer")
    head_age_max_s: int = Field(
        default=120, ge=10, le=86_400, description="a provider whose newest block is older is not believed"
    )
    contract_code_hash: Hash | None = Field(
        default=None, description="keccak256 of the payment contract's code, to pin it"
    )
    quoter: Address | None = Field(default=None, description="QuoterV2, when not the profile's")
    tiers: Tiers | None = Field(default=None, description="Uniswap fee tiers to quote, when not the profile's")
    price_feed: Address | Literal["off"] | None = Field(
        default=None, description="ETH/USD feed, when not the profile's; off = judge no price"
    )
    sequencer_feed: Address | Literal["off"] | None = Field(
        default=None, description="sequencer uptime feed, when not the profile's; off = do not ask"
    )


class CoinbaseSection(Section):
    """What a Coinbase charge must match; replaceable because a compatible gateway has its own."""

    pay_with: Literal["eth", "usdc"] = Field(
        default="eth", description="what the wallet pays with: ETH by a swap, or USDC that it holds"
    )
    contract: Address | None = Field(default=None, description="payment contract, when not the profile's")
    operators: Addresses = Field(default=(), description="operators allowed to sign charges, when not the profile's")
    prefixes: Prefixes = Field(
        default=(),
        description="what an operator may sign behind, when not the profile's: `eip191`, or 0x and its bytes in hex",
    )
    recipients: Addresses = Field(
        default=(), description="recipients allowed to be paid; more are learnt by `topup pin`"
    )
    fee_ceiling_bps: int = Field(
        default=550, ge=0, le=2000, description="most a charge may exceed the credits asked for"
    )
    fee_part_bps: int = Field(default=150, ge=0, le=2000, description="most of the total that the operator may keep")
    life_min_s: int = Field(default=900, ge=60, description="shortest time to a charge's deadline")
    life_max_s: int = Field(default=604_800, le=31_536_000, description="longest time to a charge's deadline")


class MppFieldsSection(Section):
    """How an mpp seller is asked, and where things stand in its answers; the defaults are OpenRouter's."""

    request_path: UrlPath = Field(default=SELLER.request_path, description="where a purchase is asked for, by POST")
    amount_field: Name = Field(default=SELLER.amount_field, description="member of the request that holds the dollars")
    amount_as: Literal["number", "text"] = Field(
        default=SELLER.amount_as, description="whether the dollars stand there as a JSON number or as a text"
    )
    body: dict[str, str] = Field(default={}, description="other members of the request, always the same")
    texts: Paths = Field(default=SELLER.texts, description="paths of what the seller has written for machines")
    envelope: Member = Field(default=SELLER.envelope, description="member that an answer is wrapped in; empty for none")
    purchase_path: PurchasePath = Field(
        default=SELLER.purchase_path, description="where a purchase is looked up, with {id} in it; empty for nowhere"
    )
    id_field: Name = Field(default=SELLER.id_field, description="member that names a purchase")
    status_field: Name = Field(default=SELLER.status_field, description="member that tells a purchase's state")
    credited: Words = Field(default=SELLER.credited, description="words for a purchase that was credited")
    failed: Words = Field(default=SELLER.failed, description="words for a purchase that will never be")
    balance_path: Annotated[str, Field(pattern=r"^(/[!-~]{1,255})?$")] = Field(
        default=SELLER.balance_path, description="where the balance is read, for api.kind mpp; empty for nowhere"
    )
    balance_field: Name = Field(
        default=SELLER.balance_field, description="members that lead to the balance, joined by points"
    )


class MppSection(Section):
    """Machine payments: OpenRouter's `POST /credits/purchases`, paid in a dollar on Tempo."""

    rpc_urls: Urls = Field(
        default=("https://rpc.tempo.xyz",), min_length=1, repr=False, description="JSON-RPC providers of Tempo"
    )
    quorum: int | None = Field(
        default=None, ge=1, le=2, description="providers of different owners that must agree; default 2 when there are"
    )
    realm: Realm | None = Field(default=None, description="realm of the challenges, when not the host of api.url")
    pay_with: Literal["usdc.e", "pathusd"] = Field(
        default="usdc.e", description="the dollar that is paid with: usdc.e or pathusd, which pay the network's fee too"
    )
    recipients: Addresses = Field(
        default=(), description="recipients allowed to be paid; none named = any, since each purchase may have its own"
    )
    fee_ceiling_bps: int = Field(
        default=600, ge=0, le=2000, description="most a challenge may exceed the credits asked for"
    )
    network_fee_max_usd: Dollars = Field(
        default=Decimal("0.10"), ge=Decimal("0.001"), description="most the network may take of one payment"
    )
    life_min_s: int = Field(default=30, ge=10, description="shortest time to a challenge's end")
    life_max_s: int = Field(default=900, le=86_400, description="longest time to a challenge's end")
    sponsored: bool = Field(
        default=False, description="pay offers whose network fee the seller pays, where there is no other"
    )
    sponsored_s: int = Field(
        default=300, ge=20, le=300, description="how long what is signed for such an offer can be used"
    )
    root: Address | None = Field(
        default=None, description="the account that pays, when the key is one of its access keys with a limit"
    )
    fields: MppFieldsSection = MppFieldsSection()


class X402Section(Section):
    """x402: a gateway that sells prepaid credit for a signed USDC transfer on Base."""

    profile: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        default="venice",
        description="how the seller is asked: venice, venice-ai (its other login text), plain, dria, gaib, or the path "
        "of a TOML file with a record of your own (docs/rails.md)",
    )
    recipients: Addresses = Field(default=(), description="recipients allowed to be paid, when not the profile's")
    fee_ceiling_bps: int = Field(default=0, ge=0, le=2000, description="most an offer may exceed the credits asked for")
    life_max_s: int = Field(default=900, ge=120, le=3600, description="longest time an authorization may be good for")


class RailsSection(Section):
    """The ways to buy."""

    use: Rails = Field(
        default=("coinbase",), min_length=1, description="rails in the order of preference: coinbase, mpp, x402"
    )
    young_s: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="how long a process has watched before it buys by mpp or x402 on its own;"
        " default: until whatever another ledger may have signed has ended and been posted",
    )
    coinbase: CoinbaseSection = CoinbaseSection()
    mpp: MppSection = MppSection()
    x402: X402Section = X402Section()


class PolicySection(Section):
    """When to buy, how much, and the limits that hold whatever happens."""

    floor: Dollars = Field(default=Decimal(10), description="buy when the balance falls below this")
    floor_hours: Hours | None = Field(default=None, description="also buy when less than this many hours are left")
    amount: Dollars | None = Field(
        default=None, description="credits to buy each time; default 25 unless target is set"
    )
    target: Dollars | None = Field(default=None, description="buy up to this balance instead of a fixed amount")
    topup_min: Dollars = Field(default=Decimal(5), ge=1, description="smallest top-up")
    topup_max: Dollars = Field(default=Decimal(100), ge=1, description="largest top-up")
    cap_24h: Dollars = Field(default=Decimal(100), description="most spent on credits and fees within any 24 hours")
    cap_30d: Dollars = Field(default=Decimal(500), description="most spent on credits and fees within any 30 days")
    count_24h: int = Field(default=6, ge=1, le=1000, description="most top-ups within any 24 hours")
    revert_gas_24h_eth: Eth = Field(
        default=Decimal("0.001"),
        description="gas that reverted payments, and approvals without a payment, may cost within 24 hours",
    )
    cooldown_s: Seconds = Field(
        default=600, description="shortest time between two top-ups; a failure does not release it"
    )
    backoff_s: Seconds = Field(default=300, description="first wait after a failure; doubles with each")
    failures_max: int = Field(default=5, ge=1, le=100, description="failures in a row after which buying stops")
    charges_per_hour: int = Field(default=10, ge=1, le=1000, description="most charges requested within an hour")
    fresh_s: int = Field(default=60, ge=1, le=3600, description="oldest reading that may lead to a purchase")
    burn_factor_max: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="nothing is bought after an hour that used so many times what a usual day's fastest does; 0 = off",
    )
    burn_floor: Dollars = Field(default=Decimal(1), description="an hour that used no more than this is never too fast")


class PriceSection(Section):
    """What one payment may cost against the market."""

    slippage_bps: int = Field(
        default=100, ge=0, le=2000, description="added to the quote; bounds what a sandwich can take"
    )
    deviation_bps: int = Field(default=300, ge=0, le=5000, description="most the payment may exceed the feed's price")
    eth_usd_min: Dollars = Field(
        default=Decimal(1000), gt=0, description="lowest plausible price of ETH: bounds a payment even if providers lie"
    )


class FeesSection(Section):
    """What the network may cost."""

    gas_price_max_gwei: Gwei = Field(default=Decimal(5), ge=Decimal("0.001"), description="highest price per gas")
    network_fee_max_eth: Eth = Field(
        default=Decimal("0.001"), ge=Decimal("0.000001"), description="most gas and L1 data fee of one payment"
    )
    gas_margin_pct: int = Field(default=20, ge=5, le=100, description="added to the gas estimate")
    bump_after_s: int = Field(default=30, ge=2, le=3600, description="outbid a payment that is in no block after this")
    bump_max: int = Field(default=6, ge=0, le=20, description="how often one payment is outbid; 0 never")
    bump_bps: int = Field(default=1250, ge=1250, le=10_000, description="added to both fees; nodes ask for a tenth")
    bump_times_max: int = Field(default=5, ge=1, le=100, description="highest multiple of the fees that are asked now")


class WatchSection(Section):
    """How often to look."""

    poll_fastest_s: int = Field(default=60, ge=1, description="shortest time between readings")
    poll_slowest_s: int = Field(default=900, ge=1, description="longest time between readings")
    staleness_s: int = Field(default=60, ge=0, description="how old an answer of the API may be")
    unknown_alert_s: Seconds = Field(
        default=1800, description="alert when nothing was believable, or a due top-up stood still, for this long"
    )
    usage_fall_max: Dollars = Field(
        default=Decimal(1), description="total_usage that is lower by no more than this is believed after an hour of it"
    )
    key_recheck_s: Seconds = Field(default=3600, description="how often the key's kind is asked")


class PostingSection(Section):
    """How long credits may take."""

    poll_s: int = Field(default=15, ge=1, description="time between readings while waiting for credits")
    late_s: Seconds = Field(default=1800, description="paid but not credited after this")
    late_large_s: Seconds = Field(default=5400, description="the same for large amounts")
    large: Dollars = Field(default=Decimal(500), description="from this amount on posting is slow")
    resend_s: int = Field(default=12, ge=1, description="send the same bytes again after this")
    pay_timeout_s: int = Field(
        default=45, ge=1, le=300, description="longest wait for a seller that carries a payment to the chain"
    )
    plan_fresh_s: int = Field(default=20, ge=1, le=120, description="oldest quote and simulation that may be signed")
    retries_max: int = Field(
        default=2, ge=0, le=10, description="how often the same charge is tried again after a revert"
    )


class LogSection(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is written"
    )
    format: Literal["auto", "json", "console", "logfmt"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    mode: Literal["observe", "live"] = Field(default="observe", description="observe never signs anything; live pays")
    account: str = Field(
        default="default",
        min_length=1,
        max_length=64,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="name of the account in ledger and log",
    )
    state_dir: File = Field(
        default_factory=lambda: default_state_dir(),  # noqa: PLW0108 - defined further down
        description="directory of the ledger",
    )
    labels: dict[str, str] = Field(
        default={}, description="who answers for which API key, by its hash or its name: a team or a customer"
    )
    api: ApiSection = ApiSection()
    wallet: WalletSection = WalletSection()
    chain: ChainSection = ChainSection()
    rails: RailsSection = RailsSection()
    policy: PolicySection = PolicySection()
    price: PriceSection = PriceSection()
    fees: FeesSection = FeesSection()
    watch: WatchSection = WatchSection()
    posting: PostingSection = PostingSection()
    log: LogSection = LogSection()


def default_state_dir() -> Path:
    """Return systemd's state directory, or the user's.

    Raises:
        SettingsError: there is neither.
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "topup"
    if (home := _home()) is None:
        raise SettingsError(
            f"state_dir is not set, HOME is not either, and the system knows no user {os.getuid()}",
            remedy="set TOPUP_STATE_DIR to a directory that this user can write",
        )
    return home / ".local" / "state" / "topup"


def default_file() -> Path | None:
    """Return where the settings file is looked for when `TOPUP_CONFIG` does not say; None without a home."""
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "topup" / "topup.toml"
    home = _home()
    return home / ".config" / "topup" / "topup.toml" if home is not None else None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and a user id without a name, as containers are given
        return None


def names(model: type[BaseModel] = Settings, before: str = "") -> dict[str, Any]:
    """Return every setting's dotted name with its pydantic field."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= names(kind, f"{before}{name}.")
        else:
            found[before + name] = field
    return found


def env_name(dotted: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + dotted.replace(".", "__").upper()


def fee_ceiling_bps(s: Settings) -> int:
    """Return the most any rail in use may exceed the credits asked for: the caps count with it."""
    every = {"coinbase": s.rails.coinbase.fee_ceiling_bps, "mpp": s.rails.mpp.fee_ceiling_bps}
    every["x402"] = s.rails.x402.fee_ceiling_bps
    return max(every[name] for name in s.rails.use)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: something is unknown, malformed, out of bounds or contradictory; every finding is named.
    """
    environment = os.environ if environ is None else environ
    document = read_file(environment)
    known = {env_name(n) for n in names()} | {CONFIG}
    variables.must_be_known(environment, PREFIX, known)
    try:
        settings = _Loaded(environment)(**document)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_sentences(error)), remedy="`topup config show --defaults` lists every setting"
        ) from None
    contradictions = check(settings)
    if contradictions:
        raise SettingsError("; ".join(contradictions), remedy="change what is named; `topup config show` lists it all")
    return settings


def _Loaded(environ: Mapping[str, str]) -> type[Settings]:  # noqa: N802 - makes a class
    """Return Settings bound to one environment, so that a test or the sandbox need not touch the process's own."""

    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {k.lower(): v for k, v in environ.items()}

    class Bound(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return Source(settings_cls), init_settings

    return Bound


def read_file(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings file, numbers with a point as exact decimals; no file is an empty one."""
    named = environ.get(CONFIG)
    path = file_of(environ)
    if path is None or (not named and not path.exists()):
        return {}
    text = files.text(path, CONFIG if named else "the settings file")
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        if isinstance(error, ArithmeticError | RecursionError):
            error = ValueError("a number or a nesting beyond all bounds")
        raise SettingsError(f"{path} cannot be read: {error}", remedy="correct the file") from None


def file_of(environ: Mapping[str, str]) -> Path | None:
    """Return where the settings file is, or would be; None where nobody says and there is no home to look in.

    Raises:
        SettingsError: the variable that names it holds what no path means.
    """
    if not (named := environ.get(CONFIG)):
        return default_file()
    if wrong := files.stray(named):
        raise SettingsError(f"{CONFIG} {wrong}", remedy=f"correct {CONFIG}")
    return Path(named)


def check(s: Settings) -> list[str]:
    """Return every contradiction between settings, each naming the fields and the remedy."""
    p, found = s.policy, []

    def rule(wrong: bool, sentence: str) -> None:  # noqa: FBT001
        if wrong:
            found.append(sentence)

    amount = fixed_amount(s)
    rule(
        p.amount is not None and p.target is not None, "policy.amount and policy.target exclude each other: remove one"
    )
    rule(
        p.target is not None and p.target <= p.floor,
        f"policy.target {p.target} must be above policy.floor {p.floor}, or every top-up asks for the next",
    )
    rule(p.topup_min > p.topup_max, f"policy.topup_min {p.topup_min} is above policy.topup_max {p.topup_max}")
    least = amount if amount is not None else p.topup_min
    rule(
        amount is not None and not p.topup_min <= amount <= p.topup_max,
        f"policy.amount {amount} is outside policy.topup_min {p.topup_min} to policy.topup_max {p.topup_max}",
    )
    # Up to a target the largest top-up may be needed, and one that no cap admits would be refused for ever.
    largest = least if amount is not None else p.topup_max
    cost = largest * (10_000 + fee_ceiling_bps(s)) / 10_000
    rule(
        p.cap_24h < cost,
        f"policy.cap_24h {p.cap_24h} is below the {plain(cost)} that a top-up of {largest} may cost: "
        f"raise it, or lower policy.{'amount' if amount is not None else 'topup_max'}",
    )
    rule(p.cap_30d < p.cap_24h, f"policy.cap_30d {p.cap_30d} is below policy.cap_24h {p.cap_24h}")
    rule(
        p.burn_factor_max == 1,
        "policy.burn_factor_max 1 would stop at every hour faster than usual: choose 2 or more, or 0 to switch it off",
    )
    rule(
        s.watch.poll_fastest_s > s.watch.poll_slowest_s,
        f"watch.poll_fastest_s {s.watch.poll_fastest_s} is above watch.poll_slowest_s {s.watch.poll_slowest_s}",
    )
    rule(
        s.watch.poll_fastest_s < s.watch.staleness_s,
        f"watch.poll_fastest_s {s.watch.poll_fastest_s} is below watch.staleness_s {s.watch.staleness_s}: "
        "it would read the same answer again",
    )
    rule(s.rails.mpp.life_min_s >= s.rails.mpp.life_max_s, "rails.mpp.life_min_s must be below rails.mpp.life_max_s")
    # What is bought has to be what is watched.
    rule(
        s.api.kind == "mpp" and (s.rails.use != ("mpp",) or not s.rails.mpp.fields.balance_path),
        "api.kind mpp reads the balance of the one seller that rails.mpp.fields describes: "
        "set rails.use to mpp alone, and rails.mpp.fields.balance_path",
    )
    rule(
        (s.api.kind == "x402") != (s.rails.use == ("x402",)),
        f"api.kind {s.api.kind} does not watch what {', '.join(s.rails.use)} buys: "
        "rails.use x402 goes alone, with api.kind x402, and the other rails with api.kind openrouter",
    )
    rule(
        s.rails.mpp.root is not None and s.wallet.address not in (None, s.rails.mpp.root),
        f"wallet.address {s.wallet.address} is not rails.mpp.root {s.rails.mpp.root}, the account that pays: "
        "make them one, or remove wallet.address",
    )
    rule(
        s.rails.mpp.root is not None and s.rails.mpp.sponsored,
        "rails.mpp.sponsored pays by the wallet's own key: sponsors take no access key; remove rails.mpp.root",
    )
    rule(
        s.rails.mpp.root is not None and s.rails.use != ("mpp",),
        "rails.mpp.root is another account than the key's own: set rails.use to mpp alone, or remove it",
    )
    if s.rails.use == ("x402",):
        found += _x402(s, least, largest)
    rule(
        s.rails.coinbase.life_min_s >= s.rails.coinbase.life_max_s,
        "rails.coinbase.life_min_s must be below rails.coinbase.life_max_s",
    )
    rule(
        s.price.deviation_bps <= s.price.slippage_bps,
        f"price.deviation_bps {s.price.deviation_bps} is not above price.slippage_bps {s.price.slippage_bps}: "
        "every payment would be refused",
    )
    keys = [
        n
        for n, v in (
            ("keystore", s.wallet.keystore),
            ("private_key", s.wallet.private_key),
            ("private_key_file", s.wallet.private_key_file),
        )
        if v
    ]
    rule(len(keys) > 1, f"wallet.{' and wallet.'.join(keys)} exclude each other: keep one")
    rule(
        s.wallet.keystore is not None
        and s.wallet.keystore_password_file is None
        and "CREDENTIALS_DIRECTORY" not in os.environ,
        "wallet.keystore needs wallet.keystore_password_file",
    )
    rule(
        s.mode == "live" and not keys, "mode = live needs a key: set wallet.keystore and wallet.keystore_password_file"
    )
    rule(
        s.wallet.keystore is None and s.wallet.keystore_password_file is not None,
        "wallet.keystore_password_file is set without wallet.keystore",
    )
    rule(
        s.posting.late_s <= s.watch.staleness_s,
        f"posting.late_s {s.posting.late_s} is not above watch.staleness_s {s.watch.staleness_s}: "
        "every payment would look late",
    )
    rule(
        s.posting.late_large_s < s.posting.late_s,
        f"posting.late_large_s {s.posting.late_large_s} is below posting.late_s {s.posting.late_s}",
    )
    rule(
        not s.state_dir.is_absolute(), f"state_dir {s.state_dir} is not absolute: it would depend on where topup starts"
    )
    distinct = quorum(s.chain.rpc_urls, None)
    rule(
        s.chain.quorum is not None and s.chain.quorum > distinct,
        "chain.quorum is 2 and chain.rpc_urls are all of one owner: add a provider of another, or set chain.quorum = 1",
    )
    rule(not _has_profile(s.chain.id), f"chain.id {s.chain.id} has no profile in this program: use 8453 (Base)")
    rule(s.api.key is not None and s.api.key_file is not None, "api.key and api.key_file exclude each other: keep one")
    return found


def _x402(s: Settings, least: Decimal, most: Decimal) -> list[str]:
    """Return what contradicts the record of the x402 seller; `least` and `most` are what a top-up may be of."""
    from topup.sellers.x402_profile import (
        profile,  # its models cost a tenth of a second, and most settings name no seller
    )

    try:
        seller = profile(s.rails.x402.profile)
    except FileAway:
        raise  # no contradiction: it may be mounted yet
    except SettingsError as error:
        return [f"{error}; {error.remedy}"]
    found, sale = [], seller.sell
    if not sale.recipients and not s.rails.x402.recipients:
        found.append("rails.x402.recipients is empty: name who may be paid, as the seller publishes it")
    which = "amount" if fixed_amount(s) is not None else "topup_min"
    if sale.least_usd is not None and least < sale.least_usd:
        found.append(
            f"policy.{which} {least} is below the {sale.least_usd} that {seller.name} sells at least: raise it"
        )
    if sale.most_usd is not None and most > sale.most_usd:
        which = "amount" if fixed_amount(s) is not None else "topup_max"
        found.append(f"policy.{which} {most} is above the {sale.most_usd} that {seller.name} sells at most")
    return found


def _has_profile(chain_id: int) -> bool:
    if chain_id == ChainSection.model_fields["id"].default:
        return True  # without loading the profiles, whose imports are slow
    from topup.chain.profiles import PROFILES

    return chain_id in PROFILES


def fixed_amount(s: Settings) -> Decimal | None:
    """Return the fixed amount to buy; None when a target is set."""
    if s.policy.target is not None:
        return s.policy.amount
    return s.policy.amount if s.policy.amount is not None else Decimal(25)


def secret(value: SecretStr | None, file: Path | None, credential: str, what: str) -> str | None:
    """Return a secret from its setting, its file, or systemd's credentials directory.

    Raises:
        FileAway, SettingsError: the file is not there, cannot be read, or is empty; `what` names the setting.
    """
    if value is not None:
        return value.get_secret_value().strip()
    path = file if file is not None else files.credential(credential)
    return files.secret(path, what) if path is not None else None


def _sentences(error: ValidationError) -> list[str]:
    """Return one sentence for each setting that is wrong; nothing that may be secret is repeated."""
    told: dict[str, str] = {}
    for one in error.errors():
        # Positions in a list and the branches of a union are no names of settings.
        parts = [str(p) for p in one["loc"] if isinstance(p, str) and not p.startswith(("function-", "literal["))]
        dotted = ".".join(p for p in parts if "[" not in p)
        told.setdefault(dotted, _sentence(dotted, one))
    return list(told.values())


def _sentence(dotted: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        near = variables.nearest(dotted, set(names()))
        return f"{dotted} is no setting" + (f", did you mean {near}?" if near else "")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{dotted} is a table of settings, not a value: write [{dotted}]"
    # Keys, and URLs because a provider's often holds one.
    hidden = any(word in dotted for word in ("key", "private", "password", "url"))
    text = str(error.get("input"))
    # Longer than an address: a key that was put into the wrong place, for instance.
    given = "" if hidden or len(text) > len("0x") + 40 else f" (given: {text!r})"
    return f"{dotted} ({env_name(dotted)}): {message}{given}"


def provenance(settings: Settings, environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (name, value, where it came from) of every setting; secrets are masked."""
    document = read_file(environ)
    upper = {k.upper() for k in environ}
    rows = []
    for name in names():
        value: Any = settings
        inside: Any = document
        for part in name.split("."):
            value = getattr(value, part)
            inside = inside.get(part) if isinstance(inside, dict) else None
        where = env_name(name) if env_name(name) in upper else "file" if inside is not None else "default"
        rows.append((name, _masked(value), where))
    return rows


def _masked(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ", ".join(_masked(v) for v in value)
    text = str(value)
    if "://" not in text:
        return text
    # A provider's URL often holds a key in its path, its query or its user part.
    parts = urlsplit(text)
    hidden = parts.username is not None or parts.query or parts.path.count("/") > 0
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{'/…' if hidden else ''}"
