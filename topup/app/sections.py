"""Which settings are there? Each table of the file with its settings: type, bounds, default, and what each means."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from topup.app.setting_types import (
    Address,
    ApiKey,
    BaseUrl,
    Dollars,
    Eth,
    File,
    Gwei,
    Hash,
    HostName,
    Hours,
    Listen,
    Mailbox,
    Many,
    Margin,
    Prefix,
    PrivateKey,
    QuietHours,
    Quorum,
    Realm,
    Seconds,
    Tier,
    TierName,
    Timeout,
    Url,
    distinct,
    listed,
    setting,
    table,
)
from topup.sellers.mpp_fields import Fields

Rail = Literal["coinbase", "mpp", "x402"]


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

    kind: Literal["openrouter", "x402", "mpp"] = setting(
        "openrouter",
        "who is asked for the credits: OpenRouter's API, the x402 rail's gateway, or the mpp rail's seller",
    )
    url: BaseUrl = setting("https://openrouter.ai/api/v1", "base URL of the credits API or a compatible gateway")
    key: ApiKey | None = setting(None, "management key; better through key_file or a credential")
    key_file: File | None = setting(None, "file that holds the management key")
    timeout_s: Timeout = setting(20, "longest wait for one answer")


class WalletSection(Section):
    """The key that pays."""

    address: Address | None = setting(None, "wallet address; needed only to observe without a key")
    keystore: File | None = setting(None, "keystore v3 file")
    keystore_password_file: File | None = setting(None, "file that holds the keystore's password")
    private_key: PrivateKey | None = setting(None, "raw private key; prefer a keystore")
    private_key_file: File | None = setting(None, "file that holds a raw private key; prefer a keystore")
    payment_max_eth: Eth = setting("0.1", "the signer refuses any payment above this value", ge=Decimal("0.0001"))
    reserve_eth: Eth = setting("0.001", "ETH the wallet always keeps")


class ChainSection(Section):
    """The chain and its providers."""

    id: int = setting(8453, "chain id; a profile of that chain must exist")
    rpc_urls: Many[Url] = setting(
        ("https://mainnet.base.org",), "JSON-RPC providers; signed bytes go to all", min_length=1, repr=False
    )
    quorum: Quorum | None = setting(None, "providers of different owners that must agree; default 2 when there are")
    lag_max_s: int = setting(30, "a provider that is further behind the others is set aside", ge=4, le=3600)
    timeout_s: Timeout = setting(15, "longest wait for one answer")
    head_age_max_s: int = setting(120, "a provider whose newest block is older is not believed", ge=10, le=86_400)
    contract_code_hash: Hash | None = setting(None, "keccak256 of the payment contract's code, to pin it")
    quoter: Address | None = setting(None, "QuoterV2, when not the profile's")
    tiers: Annotated[Many[Tier], Field(min_length=1)] | None = setting(
        None, "Uniswap fee tiers to quote, when not the profile's"
    )
    price_feed: Address | Literal["off"] | None = setting(
        None, "ETH/USD feed, when not the profile's; off = judge no price"
    )
    sequencer_feed: Address | Literal["off"] | None = setting(
        None, "sequencer uptime feed, when not the profile's; off = do not ask"
    )


class CoinbaseSection(Section):
    """What a Coinbase charge must match; replaceable because a compatible gateway has its own."""

    pay_with: Literal["eth", "usdc"] = setting("eth", "what the wallet pays with: ETH by a swap, or USDC that it holds")
    contract: Address | None = setting(None, "payment contract, when not the profile's")
    operators: Many[Address] = setting((), "operators allowed to sign charges, when not the profile's")
    prefixes: Many[Prefix] = setting(
        (), "what an operator may sign behind, when not the profile's: `eip191`, or 0x and its bytes in hex"
    )
    recipients: Many[Address] = setting((), "recipients allowed to be paid; more are learnt by `topup pin`")
    fee_ceiling_bps: Margin = setting(550, "most a charge may exceed the credits asked for")
    fee_part_bps: Margin = setting(150, "most of the total that the operator may keep")
    life_min_s: int = setting(900, "shortest time to a charge's deadline", ge=60)
    life_max_s: int = setting(604_800, "longest time to a charge's deadline", le=31_536_000)


class MppFieldsSection(Section, Fields):
    """How an mpp seller is asked, and where things stand in its answers; the defaults are OpenRouter's."""

    _as_lists = field_validator("texts", "credited", "failed", mode="before")(listed)
    _each_once = field_validator("texts", "credited", "failed")(distinct)
    _as_table = field_validator("body", mode="before")(table)


class MppSection(Section):
    """Machine payments: OpenRouter's `POST /credits/purchases`, paid in a dollar on Tempo."""

    rpc_urls: Many[Url] = setting(("https://rpc.tempo.xyz",), "JSON-RPC providers of Tempo", min_length=1, repr=False)
    quorum: Quorum | None = setting(None, "providers of different owners that must agree; default 2 when there are")
    realm: Realm | None = setting(None, "realm of the challenges, when not the host of api.url")
    pay_with: Literal["usdc.e", "pathusd"] = setting(
        "usdc.e", "the dollar that is paid with: usdc.e or pathusd, which pay the network's fee too"
    )
    recipients: Many[Address] = setting(
        (), "recipients allowed to be paid; none named = any, since each purchase may have its own"
    )
    fee_ceiling_bps: Margin = setting(600, "most a challenge may exceed the credits asked for")
    network_fee_max_usd: Dollars = setting("0.10", "most the network may take of one payment", ge=Decimal("0.001"))
    life_min_s: int = setting(30, "shortest time to a challenge's end", ge=10)
    life_max_s: int = setting(900, "longest time to a challenge's end", le=86_400)
    sponsored: bool = setting(False, "pay offers whose network fee the seller pays, where there is no other")
    sponsored_s: int = setting(300, "how long what is signed for such an offer can be used", ge=20, le=300)
    root: Address | None = setting(None, "the account that pays, when the key is one of its access keys with a limit")
    fields: MppFieldsSection = MppFieldsSection()


class X402Section(Section):
    """x402: a gateway that sells prepaid credit for a signed USDC transfer on Base."""

    profile: Annotated[str, Field(min_length=1, max_length=4096)] = setting(
        "venice",
        "how the seller is asked: venice, venice-ai (its other login text), plain, dria, gaib, or the path "
        "of a TOML file with a record of your own (docs/rails.md)",
    )
    recipients: Many[Address] = setting((), "recipients allowed to be paid, when not the profile's")
    fee_ceiling_bps: Margin = setting(0, "most an offer may exceed the credits asked for")
    life_max_s: int = setting(900, "longest time an authorization may be good for", ge=120, le=3600)


class RailsSection(Section):
    """The ways to buy."""

    use: Annotated[Many[Rail], Field(min_length=1)] | None = setting(
        None,
        "rails in the order of preference: coinbase, mpp, x402;"
        " default: the one by which the host of api.url sells, which is mpp for openrouter.ai",
    )
    young_s: int | None = setting(
        None,
        "how long a process has watched before it buys by mpp or x402 on its own;"
        " default: until whatever another ledger may have signed has ended and been posted",
        ge=0,
        le=86_400,
    )
    coinbase: CoinbaseSection = CoinbaseSection()
    mpp: MppSection = MppSection()
    x402: X402Section = X402Section()


class PolicySection(Section):
    """When to buy, how much, and the limits that hold whatever happens."""

    floor: Dollars = setting(10, "buy when the balance falls below this")
    floor_hours: Hours | None = setting(None, "also buy when less than this many hours are left")
    request_max_usd: Dollars | None = setting(
        None, "most that one request may cost: a seller turns a request away that the balance may not cover"
    )
    requests_at_once: int | None = setting(
        None,
        "how many such requests may run at once: also buy below request_max_usd times this; default 1 with it",
        ge=1,
        le=100_000,
    )
    amount: Dollars | None = setting(None, "credits to buy each time; default 25 unless target is set")
    target: Dollars | None = setting(None, "buy up to this balance instead of a fixed amount")
    topup_min: Dollars = setting(5, "smallest top-up", ge=1)
    topup_max: Dollars = setting(90, "largest top-up; with its fee it has to fit into cap_24h", ge=1)
    cap_24h: Dollars = setting(100, "most spent on credits and fees within any 24 hours")
    cap_30d: Dollars = setting(500, "most spent on credits and fees within any 30 days")
    count_24h: int = setting(6, "most top-ups within any 24 hours", ge=1, le=1000)
    revert_gas_24h_eth: Eth = setting(
        "0.001", "gas that reverted payments, and approvals without a payment, may cost within 24 hours"
    )
    cooldown_s: Seconds = setting(600, "shortest time between two top-ups; a failure does not release it")
    backoff_s: Seconds = setting(300, "first wait after a failure; doubles with each")
    failures_max: int = setting(5, "failures in a row after which buying stops", ge=1, le=100)
    charges_per_hour: int = setting(10, "most charges requested within an hour", ge=1, le=1000)
    fresh_s: int = setting(60, "oldest reading that may lead to a purchase", ge=1, le=3600)
    burn_factor_max: int = setting(
        10,
        "nothing is bought after an hour that used so many times what a usual day's fastest does; 0 = off",
        ge=0,
        le=1000,
    )
    burn_floor: Dollars = setting(1, "an hour that used no more than this is never too fast")

    @property
    def requests_floor(self) -> Decimal | None:
        """What the requests that run at once may cost together; None where no request's cost is set."""
        return None if self.request_max_usd is None else self.request_max_usd * (self.requests_at_once or 1)

    @property
    def highest_floor(self) -> Decimal:
        """Below what the account is refilled, whatever is used an hour."""
        return max(self.floor, self.requests_floor or Decimal(0))

    @property
    def fixed_amount(self) -> Decimal | None:
        """Return the fixed amount to buy; None when a target is set."""
        return Decimal(25) if self.amount is None and self.target is None else self.amount


class PriceSection(Section):
    """What one payment may cost against the market."""

    slippage_bps: Margin = setting(100, "added to the quote; bounds what a sandwich can take")
    deviation_bps: int = setting(300, "most the payment may exceed the feed's price", ge=0, le=5000)
    eth_usd_min: Dollars = setting(1000, "lowest plausible price of ETH: bounds a payment even if providers lie", gt=0)


class FeesSection(Section):
    """What the network may cost."""

    gas_price_max_gwei: Gwei = setting(5, "highest price per gas", ge=Decimal("0.001"))
    network_fee_max_eth: Eth = setting("0.001", "most gas and L1 data fee of one payment", ge=Decimal("0.000001"))
    gas_margin_pct: int = setting(20, "added to the gas estimate", ge=5, le=100)
    bump_after_s: int = setting(30, "outbid a payment that is in no block after this", ge=2, le=3600)
    bump_max: int = setting(6, "how often one payment is outbid; 0 never", ge=0, le=20)
    bump_bps: int = setting(1250, "added to both fees; nodes ask for a tenth", ge=1250, le=10_000)
    bump_times_max: int = setting(5, "highest multiple of the fees that are asked now", ge=1, le=100)


class WatchSection(Section):
    """How often to look."""

    poll_fastest_s: int = setting(60, "shortest time between readings", ge=1)
    poll_slowest_s: int = setting(900, "longest time between readings", ge=1)
    staleness_s: int = setting(60, "how old an answer of the API may be", ge=0)
    unknown_alert_s: Seconds = setting(
        1800, "alert when nothing was believable, or a due top-up stood still, for this long"
    )
    usage_fall_max: Dollars = setting(
        1, "total_usage that is lower by no more than this is believed after an hour of it"
    )
    key_recheck_s: Seconds = setting(3600, "how often the key's kind is asked")


class PostingSection(Section):
    """How long credits may take."""

    poll_s: int = setting(15, "time between readings while waiting for credits", ge=1)
    late_s: Seconds = setting(1800, "paid but not credited after this")
    late_large_s: Seconds = setting(5400, "the same for large amounts")
    large: Dollars = setting(500, "from this amount on posting is slow")
    resend_s: int = setting(12, "send the same bytes again after this", ge=1)
    pay_timeout_s: Timeout = setting(45, "longest wait for a seller that carries a payment to the chain")
    plan_fresh_s: int = setting(20, "oldest quote and simulation that may be signed", ge=1, le=120)
    retries_max: int = setting(2, "how often the same charge is tried again after a revert", ge=0, le=10)


class NotifySection(Section):
    """Who is told what happens, without looking."""

    webhook_url: Url | None = setting(None, "gets each message, signed as Standard Webhooks say", repr=False)
    webhook_secret_file: File | None = setting(None, "file that holds the webhook's secret: whsec_ and base64")
    webhook_tier: TierName = setting("info", "least urgent message that the webhook gets: info, warning, critical")
    heartbeat_url: Url | None = setting(
        None, "is asked after each pass and run, as healthchecks.io wants it; its silence is the alarm", repr=False
    )
    email_to: Many[Mailbox] = setting((), "who gets e-mails")
    email_from: Mailbox | None = setting(None, "as whom they are sent; the first of email_to where it is not set")
    email_tier: TierName = setting("warning", "least urgent message that is sent as an e-mail")
    smtp_host: str | None = setting(None, "relay that takes them", min_length=1, max_length=253)
    smtp_port: int = setting(587, "its port", ge=1, le=65_535)
    smtp_tls: Literal["starttls", "tls", "none"] = setting("starttls", "how the way to it is encrypted")
    smtp_user: str | None = setting(None, "name that it wants", min_length=1, max_length=320)
    smtp_password_file: File | None = setting(None, "file that holds the password that it wants")
    apprise_file: File | None = setting(None, "file that holds URLs of Apprise, one a line; wants topup[apprise]")
    apprise_tier: TierName = setting("warning", "least urgent message that they get")
    quiet_hours: QuietHours | None = setting(
        None, "hours of the day, in UTC, in which only critical messages are told, such as 22-7"
    )
    digest: Literal["off", "daily", "weekly"] = setting(
        "off", "how often every target is told what was bought, spent and used; weekly on Monday"
    )
    digest_hour: int = setting(8, "from which hour of the day on, in UTC", ge=0, le=23)


class WebSection(Section):
    """What is served over HTTP beside the passes; it has no password."""

    metrics: Listen | None = setting(
        None, "where /metrics, /healthz and /readyz are served: address:port, or a port of loopback"
    )
    page: Listen | None = setting(
        None, "where a page is served that shows the account, read only: address:port, or a port of loopback"
    )
    names: Many[HostName] = setting(
        (), "names of this machine under which it may be asked, beside localhost and any address"
    )


class LogSection(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least level that is written")
    format: Literal["auto", "json", "console", "logfmt"] = setting("auto", "auto: console on a terminal, else json")
