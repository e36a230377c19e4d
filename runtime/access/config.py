"""The configuration of who may call, from environment variables."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from runtime.config import ConfigError, Env

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The algorithms of tokens that can be allowed. All have a public key: with HS256, whoever can verify can sign."""

TOKEN_VARIABLES = (
    "AUTH_ISSUER",
    "AUTH_AUDIENCE",
    "AUTH_JWKS_FILE",
    "AUTH_JWKS_URL",
    "AUTH_JWKS_REFRESH",
    "AUTH_ALGORITHMS",
    "AUTH_LEEWAY",
    "AUTH_STAFF_CLAIM",
    "AUTH_STAFF_VALUE",
    "AUTH_GUESTS",
)
"""The variables that mean something with AUTH_MODE=jwt only."""


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """Which tokens are accepted, and what they say about a caller."""

    issuer: str
    """The `iss` of tokens."""
    audiences: tuple[str, ...]
    """The `aud` of a token has to be, or to contain, one of these."""
    jwks_file: Path | None = None
    """A file with the issuer's keys (a JSON Web Key Set, RFC 7517), read again when it changes."""
    jwks_url: str = ""
    """Where to fetch that set. If there is no file either, the issuer's discovery document says it."""
    refresh_interval: float = 300.0
    """Seconds between two fetches. A key that is not known is looked for at once."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway: float = 30.0
    """Seconds by which the clocks of the issuer and the shop may differ."""
    staff_claim: str = "scope"
    """The claim that says who is staff: its name, or a path with dots, as in `realm_access.roles`."""
    staff_value: str = "shop:staff"
    """The value that it has for staff: the claim itself, one of its words, or one of its list."""
    guests: bool = True
    """Whether a caller without a token may order."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has an invalid value, or one is missing.
        """
        file = env.text("AUTH_JWKS_FILE", "")
        url = env.text("AUTH_JWKS_URL", "")
        if file and url:
            raise ConfigError("AUTH_JWKS_FILE and AUTH_JWKS_URL cannot be used together")
        if url:
            _check_url("AUTH_JWKS_URL", url)
        issuer = _required(env, "AUTH_ISSUER", "the `iss` of tokens")
        if not file and not url:
            _check_url("AUTH_ISSUER", issuer, ", or set AUTH_JWKS_FILE or AUTH_JWKS_URL")
            if "?" in issuer or "#" in issuer:
                raise ConfigError("AUTH_ISSUER must be a URL without a query and a fragment")
        audiences = _list(_required(env, "AUTH_AUDIENCE", "the `aud` of tokens"))
        if not audiences:
            raise ConfigError("AUTH_AUDIENCE must be a list of audiences with commas between them")
        algorithms = _list(env.text("AUTH_ALGORITHMS", ",".join(cls.algorithms)))
        if not algorithms:
            raise ConfigError("AUTH_ALGORITHMS must be a list of algorithms with commas between them")
        for algorithm in algorithms:
            if algorithm not in ALGORITHMS:
                raise ConfigError(f"AUTH_ALGORITHMS must be a list of {', '.join(ALGORITHMS)}, not {algorithm!r}")
        return cls(
            issuer=issuer,
            audiences=audiences,
            jwks_file=Path(file) if file else None,
            jwks_url=url,
            refresh_interval=env.seconds("AUTH_JWKS_REFRESH", cls.refresh_interval, 1, 86_400),
            algorithms=algorithms,
            leeway=env.seconds("AUTH_LEEWAY", cls.leeway, 0, 300),
            staff_claim=env.text("AUTH_STAFF_CLAIM", cls.staff_claim),
            staff_value=env.text("AUTH_STAFF_VALUE", cls.staff_value),
            guests=env.boolean("AUTH_GUESTS", default=cls.guests),
        )


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Who may call a process."""

    tokens: TokenConfig | None
    """None: no tokens are verified, and every client may call everything that is not internal."""
    caller_header: str = ""
    """Without tokens: the header in which a gateway names the caller; empty if callers are not told apart."""
    credentials: Path
    """The folder with the credential of the shop's own processes: see `RotatingSecret`."""
    optional_until: datetime | None = None
    """Until then, internal calls without a credential are accepted: for an upgrade from a release without one."""

    @property
    def guests(self) -> bool:
        """Whether there are guests: callers without a token, in a shop that verifies tokens."""
        return self.tokens is not None and self.tokens.guests

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has an invalid value, or one is missing.
        """
        mode = env.choice("AUTH_MODE", "none", ("none", "jwt"))
        header = env.text("CALLER_HEADER", "")
        if header != header.lower() or not header.isascii() or " " in header:
            raise ConfigError(f"CALLER_HEADER must be a lower-case header name, not {header!r}")
        if mode == "none":
            for name in TOKEN_VARIABLES:
                if env.text(name, ""):
                    raise ConfigError(f"{name} has no effect with AUTH_MODE=none: set AUTH_MODE=jwt, or remove it")
        elif header:
            raise ConfigError("CALLER_HEADER cannot be used with AUTH_MODE=jwt: the token names the caller")
        return cls(
            tokens=TokenConfig.from_env(env) if mode == "jwt" else None,
            caller_header=header,
            credentials=Path(_required(env, "INTERNAL_CREDENTIALS", "a folder with the file `current`")),
            optional_until=_time(env, "INTERNAL_CREDENTIALS_OPTIONAL_UNTIL"),
        )


def _required(env: Env, name: str, what: str) -> str:
    value = env.text(name, "").strip()
    if not value:
        raise ConfigError(f"{name} is missing: {what}")
    return value


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _check_url(name: str, url: str, otherwise: str = "") -> None:
    try:
        parts = urlsplit(url)
        has_password = parts.username is not None or parts.password is not None
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_password = usable = False
    if has_password:
        raise ConfigError(f"{name} must not contain a user or a password")
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{name} must be an http or https URL{otherwise}, not {url!r}")


def _time(env: Env, name: str) -> datetime | None:
    value = env.text(name, "")
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{name} must be a time like 2026-01-31T12:00:00Z, not {value!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
