"""What did the owner say? Environment `TOPUP_*` over file over default; which settings there are, `sections.py` says.

Nested names are joined by two underscores: `policy.floor` is `TOPUP_POLICY__FLOOR` in the environment and
`[policy] floor` in the file. Secrets may come from files (`…_FILE`) or from `$CREDENTIALS_DIRECTORY`. A name that
is not known is an error, because a limit that was misspelt is a limit that does not hold.
"""

import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from topup.app import variables
from topup.app.contradictions import contradictions
from topup.app.hosts import sold_by
from topup.app.sections import (
    ApiSection,
    ChainSection,
    FeesSection,
    LogSection,
    NotifySection,
    PolicySection,
    PostingSection,
    PriceSection,
    Rail,
    RailsSection,
    WalletSection,
    WatchSection,
    WebSection,
)
from topup.app.setting_types import AccountName, File, Texts, setting
from topup.domain.errors import SettingsError
from topup.wire import files

PREFIX = "TOPUP_"
CONFIG = "TOPUP_CONFIG"
# Which settings name a file that holds a secret, and which of systemd's credentials holds it where none is named.
CREDENTIALS = {
    "api.key_file": "topup-api-key",
    "wallet.keystore_password_file": "topup-keystore-password",
    "wallet.private_key_file": "topup-private-key",
    "notify.webhook_secret_file": "topup-webhook-secret",
    "notify.smtp_password_file": "topup-smtp-password",
    "notify.apprise_file": "topup-apprise",
}


def default_state_dir() -> Path:
    """Return systemd's state directory, or the user's; a SettingsError where there is neither."""
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


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and a user id without a name, as containers are given
        return None


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    mode: Literal["observe", "live"] = setting("observe", "observe never signs anything; live pays")
    account: AccountName = setting("default", "name of the account in ledger and log")
    state_dir: File = Field(default_factory=default_state_dir, description="directory of the ledger")
    labels: Texts = setting({}, "who answers for which API key, by its hash or its name: a team or a customer")
    api: ApiSection = ApiSection()
    wallet: WalletSection = WalletSection()
    chain: ChainSection = ChainSection()
    rails: RailsSection = RailsSection()
    policy: PolicySection = PolicySection()
    price: PriceSection = PriceSection()
    fees: FeesSection = FeesSection()
    watch: WatchSection = WatchSection()
    posting: PostingSection = PostingSection()
    notify: NotifySection = NotifySection()
    web: WebSection = WebSection()
    log: LogSection = LogSection()

    @property
    def rails_in_use(self) -> tuple[Rail, ...]:
        """The rails that are bought by, in the order of preference."""
        return self.rails.use or sold_by(self.api)

    @property
    def fee_ceiling_bps(self) -> int:
        """The most any rail in use may exceed the credits asked for: the caps count with it."""
        r = self.rails
        every = {"coinbase": r.coinbase.fee_ceiling_bps, "mpp": r.mpp.fee_ceiling_bps, "x402": r.x402.fee_ceiling_bps}
        return max(every[name] for name in self.rails_in_use)


def names(model: type[BaseModel] = Settings, before: str = "") -> dict[str, Any]:
    """Return every setting's dotted name with its pydantic field."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields |= names(kind, f"{before}{name}.")
        else:
            fields[before + name] = field
    return fields


def env_name(dotted: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + dotted.replace(".", "__").upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; a SettingsError names all that is unknown, malformed, out of bounds or contradictory."""
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
    if wrong := contradictions(settings):
        raise SettingsError("; ".join(wrong), remedy="change what is named; `topup config show` lists it all")
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
    if path is None or (not named and _absent(path)):
        return {}
    text = files.text(path, CONFIG if named else "the settings file")
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        if isinstance(error, ArithmeticError | RecursionError):
            error = ValueError("a number or a nesting beyond all bounds")
        raise SettingsError(f"{path} cannot be read: {error}", remedy="correct the file") from None


def _absent(path: Path) -> bool:
    """Tell whether there is no such file; one that nobody lets us look for may be there, and reading it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def file_of(environ: Mapping[str, str]) -> Path | None:
    """Return where the settings file is, or would be, None without a home; a SettingsError where that is no path."""
    if not (named := environ.get(CONFIG)):
        return default_file()
    if wrong := files.stray(named):
        raise SettingsError(f"{CONFIG} {wrong}", remedy=f"correct {CONFIG}")
    return Path(named)


def default_file() -> Path | None:
    """Return where the settings file is looked for when `TOPUP_CONFIG` does not say; None without a home."""
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "topup" / "topup.toml"
    home = _home()
    return home / ".config" / "topup" / "topup.toml" if home is not None else None


def secret(settings: Settings, name: str) -> str | None:
    """Return what the setting beside a secret's file holds, such as `api.key`, else the file; None for neither.

    `name` is one of `CREDENTIALS`; errors as `files.secret`.
    """
    beside = name.removesuffix("_file")
    value = value_of(settings, beside) if beside in names() else None
    if isinstance(value, SecretStr):
        return value.get_secret_value().strip()
    path = secret_file(settings, name)
    return files.secret(path, name) if path is not None else None


def secret_file(settings: Settings, name: str) -> Path | None:
    """Return the file that a setting of `CREDENTIALS` names, or systemd's credential; None where there is neither."""
    path: Path | None = value_of(settings, name)
    return path if path is not None else files.credential(CREDENTIALS[name])


def value_of(settings: Settings, name: str) -> Any:
    """Return what a setting is, by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _sentences(error: ValidationError) -> list[str]:
    """Return one sentence for each setting that is wrong; nothing that may be secret is repeated."""
    sentences: dict[str, str] = {}
    for wrong in error.errors():
        # Positions in a list and the branches of a union are no names of settings.
        parts = [str(p) for p in wrong["loc"] if isinstance(p, str) and not p.startswith(("function-", "literal["))]
        dotted = ".".join(p for p in parts if "[" not in p)
        sentences.setdefault(dotted, _sentence(dotted, wrong))
    return list(sentences.values())


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
    rows = []
    for name in names():
        value, inside = value_of(settings, name), cast("Any", document)
        for part in name.split("."):
            inside = inside.get(part) if isinstance(inside, dict) else None
        where = env_name(name) if env_name(name) in environ else "file" if inside is not None else "default"
        if name == "rails.use" and value is None:
            value, where = settings.rails_in_use, "default for api.url"
        elif value is None and (told := _from_file(settings, name)) is not None:
            value, where = told
        rows.append((name, _masked(value), where))
    return rows


def _from_file(settings: Settings, name: str) -> tuple[str | None, str] | None:
    """Return what stands in for a secret that a file holds, and which file; None where none does. It is not read."""
    whence = name if name in CREDENTIALS else f"{name}_file"
    path = secret_file(settings, whence) if whence in CREDENTIALS else None
    if path is None:
        return None
    whence = whence if value_of(settings, whence) is not None else "$CREDENTIALS_DIRECTORY"
    if not os.access(path, os.R_OK):
        return None, f"{whence}: {path}, which cannot be read"
    return str(path) if name in CREDENTIALS else "********", f"{whence}: {path}"


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
