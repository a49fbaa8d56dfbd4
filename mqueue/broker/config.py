"""The broker's settings stand here: one line per option with default, name, unit and help.

Flags come before the environment, that before `.env` in the working directory, that before the defaults. An empty value
counts as not set. A name under `MQUEUE_` that nobody knows is an error, since a misspelt limit would otherwise be no
limit; other programs' names in `.env` are none of our business.
"""

import base64
import binascii
import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mqueue.errors import MQueueError
from mqueue.message import NAME_PATTERN
from mqueue.paths import default_data_dir

PREFIX = "MQUEUE_"
# Fields whose name in the environment has no prefix.
BARE = frozenset(
    {
        "database_urls",
        "redis_addrs",
        "redis_password",
        "wal_dir",
        "jwt_secret",
        "namespace_quotas",
        "tls_cert_file",
        "tls_key_file",
    }
)
# Read by workers, clients and fault tests.
OTHERS = frozenset({"MQUEUE_URL", "MQUEUE_TOKEN", "MQUEUE_TRANSPORT", "MQUEUE_FAILPOINTS"})
# What Kubernetes puts into every container for a service called mqueue or mqueue-…
KUBERNETES = re.compile(r"MQUEUE_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)")
SENTINELS = re.compile(r"rediss?\+sentinel://(?:[^@/\s]*@)?[^@/\s]+/[^@/\s?]+(?:\?\S*)?")
JWT_SECRET_MIN = 32  # bytes: as long as HS256's hash
# SHA-256 of a secret that was printed in a README once, as text and as the bytes it encodes.
PUBLISHED = frozenset(
    {
        "604c7839115cf0d9fc8dc557d6615b9b001d797510f1953820d05201c9763039",
        "53de05733fb62571456755bb8fdad5b4168823ec865916d2b6ae90b5cb4b7326",
    }
)


class ConfigError(MQueueError):
    """A setting is wrong; `detail` is one line that names it. The broker exits with 78 (EX_CONFIG)."""

    code = "config"
    exit_code: ClassVar[int] = 78


class Option(NamedTuple):
    """One setting, as the documentation lists it."""

    name: str  # in the environment
    field: str  # of Settings
    default: str
    unit: str
    help: str


def _option(default: Any, unit: str, help: str, **limits: Any) -> Any:
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=help, json_schema_extra={"unit": unit}, **limits)


def _split_databases(value: Any) -> Any:
    """Splits at commas before a new URL only: one URL may name several hosts."""
    return [part.strip() for part in re.split(r",(?=\s*postgres)", value) if part.strip()] if isinstance(value, str) else value


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_redis(value: Any) -> Any:
    """Splits at commas, but for those between the sentinels of one URL."""
    return _split(re.sub(r"rediss?\+sentinel://[^/]+", lambda found: found[0].replace(",", "\0"), value)) if isinstance(value, str) else value


def _split_quotas(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    quotas = {}
    for part in _split(value):
        namespace, colon, limit = part.rpartition(":")
        if not colon or not re.match(NAME_PATTERN, namespace) or namespace in quotas:
            raise ValueError("should be like default:10000,payments:5000, each namespace once")
        quotas[namespace] = limit
    return quotas


def _namespaces(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.match(NAME_PATTERN, namespace) for namespace in value):
        raise ValueError("should be namespaces, with commas between")
    return value


def _database_urls(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.match(r"postgres(ql)?://", url) for url in value):
        raise ValueError("should be URLs like postgresql://user:password@host:5432/database, with commas between")
    if len(set(value)) != len(value):
        raise ValueError("names the same database twice; each shard needs its own")
    return value


def _redis_addrs(value: tuple[str, ...]) -> tuple[str, ...]:
    value = tuple(address.replace("\0", ",") for address in value)
    if not all(re.match(r"(rediss?|unix)://.|[^\s/]+:\d+$", address) or SENTINELS.fullmatch(address) for address in value):
        raise ValueError(
            "should be like host:6379, redis://, rediss:// or unix:// URLs, or redis+sentinel://host:26379,host:26379/name, with commas between"
        )
    return value


def _jwt_secret(value: str | None) -> str | None:
    return None if value is None else checked_secret(value)


def checked_secret(value: str) -> str:
    """Returns it. Raises ValueError where it protects nothing."""
    if len(value.encode()) < JWT_SECRET_MIN:
        raise ValueError(f"is shorter than {JWT_SECRET_MIN} bytes: make one with: openssl rand -base64 48")
    shapes = [value.strip().encode()]
    try:
        shapes.append(base64.b64decode(value.strip().translate(str.maketrans("-_", "+/")) + "==", validate=False))
    except (binascii.Error, ValueError):
        pass
    if any(hashlib.sha256(shape).hexdigest() in PUBLISHED for shape in shapes):
        raise ValueError("is a published example that everybody knows: make one with: openssl rand -base64 48")
    return value


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Folder = Annotated[Path, AfterValidator(_absolute)]
DatabaseUrls = Annotated[tuple[str, ...], BeforeValidator(_split_databases), AfterValidator(_database_urls)]
RedisAddrs = Annotated[tuple[str, ...], BeforeValidator(_split_redis), AfterValidator(_redis_addrs)]
Quotas = Annotated[dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(_split_quotas)]
Namespaces = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_namespaces)]
JwtSecret = Annotated[str | None, AfterValidator(_jwt_secret)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
Format = Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)]


class Settings(BaseModel):
    """All settings of a broker. They are made by `load`, or from field names, and never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # fmt: off
    host: str = _option("127.0.0.1", "", "Address of the HTTP API and the metrics; 0.0.0.0 for all")
    port: int = _option(8080, "", "Port of the HTTP API; 0 lets the system choose", ge=0, le=65535)
    metrics_port: int = _option(2112, "", "Port of the metrics; 0 lets the system choose", ge=0, le=65535)
    data_dir: Folder = _option(default_data_dir, "", "Folder of the log, the embedded stores and what is made once")
    shards: int = _option(1, "databases", "Databases of the embedded PostgreSQL; their number is fixed at the first start", ge=1, le=64)
    database_urls: DatabaseUrls = _option((), "", "PostgreSQL, one URL per shard, comma-separated; unset: embedded", repr=False)
    redis_addrs: RedisAddrs = _option((), "", "Redis or Valkey: host:port or URL, comma-separated; shards share", repr=False)
    redis_password: str | None = _option(None, "", "Password for each address without one of its own", repr=False)
    allow_cold: bool = _option(False, "", "Start without a Redis that refuses its password, name or certificate: PostgreSQL serves")
    wal_dir: Folder | None = _option(None, "", "Folder of the write-ahead log; unset: wal in the data dir")
    wal_moved: bool = _option(False, "", "The WAL folder was moved or restored on purpose, and no copy of it runs")
    jwt_secret: JwtSecret = _option(None, "", "Signs tokens (HS256), 32 bytes or more; unset: made and kept", repr=False)
    namespace_quotas: Quotas = _option(dict, "enqueues a minute", "By namespace, like default:10000,payments:5000")
    postgres_namespaces: Namespaces = _option((), "", "Namespaces whose enqueues are answered only when PostgreSQL has them")
    tls_cert_file: Folder | None = _option(None, "", "Certificate chain (PEM); with TLS_KEY_FILE: HTTPS")
    tls_key_file: Folder | None = _option(None, "", "Private key (PEM)")
    ready_max: int = _option(10_000, "messages", "Ready messages of one topic in Redis", ge=4, le=1_000_000)
    buffer_max_mb: int = _option(64, "MB", "Write-behind buffer of one shard; above it enqueues get 503", ge=1)
    redis_max_mb: int = _option(256, "MB", "All that Redis holds of one shard; twice BUFFER_MAX_MB or more", ge=4)
    delayed_max: int = _option(100_000, "messages", "Delayed messages of one shard in Redis", ge=4)
    flush_age_ms: int = _option(500, "ms", "Age at which a batch goes from Redis to PostgreSQL", ge=0, le=60_000)
    lease_s: float = _option(30.0, "s", "Lease of a message that names none", ge=1, le=86_400)
    max_retries: int = _option(3, "retries", "Retries of a message that names none", ge=0, le=1_000)
    idempotency_s: int = _option(86_400, "s", "How long an idempotency key is remembered", ge=1)
    result_max_kb: int = _option(1024, "KiB", "Largest result of a task; a larger one fails its job", ge=1, le=1024)
    time_horizon_s: int = _option(60, "s", "How far ahead delayed messages are loaded into Redis", ge=1)
    topic_idle_s: int = _option(600, "s", "Idle time after which a topic leaves Redis", ge=1)
    log_level: Level = _option("info", "", "debug, info, warning or error")
    log_format: Format = _option("auto", "", "console, json, or auto: console on a terminal, else json")
    # fmt: on

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Checks the rules over more than one setting."""
        if bool(self.database_urls) != bool(self.redis_addrs):
            missing = "REDIS_ADDRS" if self.database_urls else "DATABASE_URLS"
            raise ValueError(f"DATABASE_URLS and REDIS_ADDRS belong together: {missing} is not set (set neither for the embedded stores)")
        if self.database_urls and self.jwt_secret is None:
            raise ValueError("JWT_SECRET is not set: brokers that share stores need the same one: openssl rand -base64 48")
        if self.redis_max_mb < 2 * self.buffer_max_mb:
            raise ValueError(
                f"MQUEUE_REDIS_MAX_MB ({self.redis_max_mb}) is less than twice MQUEUE_BUFFER_MAX_MB ({self.buffer_max_mb}): the buffer is "
                "a part of it, and what is ready and delayed needs the other"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE belong together: set both or neither")
        for name, path in (("TLS_CERT_FILE", self.tls_cert_file), ("TLS_KEY_FILE", self.tls_key_file)):
            if path is not None and not os.access(path, os.R_OK):
                raise ValueError(f"{name}: {path} is not there or cannot be read")
        return self

    @property
    def effective_wal_dir(self) -> Path:
        return self.wal_dir or self.data_dir / "wal"

    @property
    def embedded(self) -> bool:
        """Does the broker start its own stores?"""
        return not self.database_urls


def name_of(field: str) -> str:
    """Returns its name in the environment."""
    return field.upper() if field in BARE else PREFIX + field.upper()


NAMES = {name_of(field): field for field in Settings.model_fields}


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Path = Path(".env"),
    unless_named: Mapping[str, object] | None = None,
) -> Settings:
    """Reads settings from `flags` (by field name; None: not given), environment and `dotenv`; `unless_named` comes
    after these and before the defaults. Raises ConfigError.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    named: dict[str, object] = {name: value for name, value in (unless_named or {}).items() if value is not None}
    for source, values in ((str(dotenv), _read(dotenv)), ("the environment", os.environ if environ is None else environ)):
        named |= {NAMES[name]: value for name, value in _known(source, values).items()}
    try:
        return Settings.model_validate(named | given)
    except ValidationError as error:
        raise ConfigError(_explain(error, given, named)) from None


def reference() -> list[Option]:
    """Returns every option, in the order of Settings."""
    options = []
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        unit = str(extra["unit"]) if isinstance(extra, dict) else ""
        options.append(Option(name_of(name), name, _default_text(name, field.default), unit, field.description or ""))
    return options


def example() -> str:
    """Returns a file with every option at its default, commented out: for `.env`, or an EnvironmentFile of systemd."""
    lines = ["# The settings of `mqueue broker` at their defaults, as `mqueue settings` prints them. An empty value counts as not set."]
    for option in reference():
        unit = f" ({option.unit})" if option.unit else ""
        default, by_user = ("", f" (default: {option.default})") if option.field == "data_dir" else (option.default, "")
        lines += ["", f"# {option.help}{unit}{by_user}", f"#{option.name}={default}"]
    return "\n".join(lines) + "\n"


def _default_text(name: str, default: object) -> str:
    if name == "data_dir":
        return "~/.local/share/mqueue; as root /var/lib/mqueue"
    return str(default) if isinstance(default, int | float | str) else ""


def _read(dotenv: Path) -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(dotenv, interpolate=False).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{dotenv} cannot be read: {error}") from error


def _known(source: str, values: Mapping[str, str]) -> dict[str, str]:
    """Returns the broker's own names that have a value. Raises ConfigError for one under MQUEUE_ that is nobody's."""
    own = {}
    for name, value in values.items():
        if not value.strip() or name in OTHERS or _from_kubernetes(name, value):
            continue
        if name in NAMES:
            own[name] = value.strip()
        elif name.startswith(PREFIX):
            close = difflib.get_close_matches(name, [*NAMES, *OTHERS], 1)
            raise ConfigError(f"{name} in {source} is no setting of mqueue" + (f": did you mean {close[0]}?" if close else ""))
    return own


def _from_kubernetes(name: str, value: str) -> bool:
    return bool(KUBERNETES.fullmatch(name)) or (
        name.startswith(PREFIX) and name.endswith("PORT") and bool(re.match(r"(tcp|udp|sctp)://", value))
    )


def _explain(error: ValidationError, flags: Mapping[str, object], named: Mapping[str, object]) -> str:
    """Tells the first fault in one line: where it was set, the value unless it may be secret, what is wrong."""
    fault = error.errors(include_url=False, include_context=False)[0]
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not fault["loc"]:
        return message
    field = str(fault["loc"][0])
    name, values = (f"--{field.replace('_', '-')}", flags) if field in flags else (name_of(field), named)
    shown = f" = {str(values[field])!r}" if field in values and Settings.model_fields[field].repr else ""
    return f"{name}{shown}: {message}"
