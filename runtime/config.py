"""Configuration from environment variables, verified before anything opens."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

REPLICA_TIMEOUT = 2.0
"""Seconds that a read may wait for a connection to a replica, and run there, at most."""


class ConfigError(Exception):
    """A variable has an invalid value. The message names the variable."""


class Env:
    """Reads typed values from environment variables. An empty value counts as absent.

    Each method returns the value of a variable, or the default. All but `text` raise ConfigError if it is invalid.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str) -> str:
        """Returns any text."""
        return self._variables.get(name, "") or default

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """Returns one of the allowed values."""
        value = self.text(name, default)
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Returns a whole number from `minimum` to `maximum`."""
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            raise ConfigError(f"{name} must be a whole number, not {value!r}") from None
        if not minimum <= number <= maximum:
            raise ConfigError(f"{name} must be from {minimum} to {maximum}, not {number}")
        return number

    def seconds(self, name: str, default: float, minimum: float, maximum: float) -> float:
        """Returns a number of seconds from `minimum` to `maximum`."""
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number of seconds, not {value!r}") from None
        if not minimum <= number <= maximum:
            raise ConfigError(f"{name} must be from {minimum:g} to {maximum:g} seconds, not {number:g}")
        return number

    def share(self, name: str, default: float) -> float:
        """Returns a number from 0 to 1."""
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number from 0 to 1, not {value!r}") from None
        if not 0 <= number <= 1:
            raise ConfigError(f"{name} must be from 0 to 1, not {number:g}")
        return number

    def boolean(self, name: str, *, default: bool) -> bool:
        """Returns whether a variable is `true` rather than `false`."""
        return self.choice(name, str(default).lower(), ("true", "false")) == "true"

    def port(self, name: str, default: int) -> int:
        """Returns a port number."""
        return self.integer(name, default, 1, 65535)

    def host(self, name: str, default: str) -> str:
        """Returns a host name or an address. An IPv6 address may be in brackets, which are removed."""
        value = self.text(name, default)
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            return str(ip_address(bare))
        except ValueError:
            if (
                bare != value
                or any(letter in ":[]" for letter in value)
                or not value.isascii()
                or any(letter.isspace() for letter in value)
            ):
                raise ConfigError(f"{name} must be a host name or an address, not {value!r}") from None
            return value


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where a process listens, and how it shuts down."""

    host: str
    """The address to listen on. `::` includes IPv4, if the machine has both."""
    grpc_port: int
    shutdown_delay: float
    """Seconds between NOT_SERVING and the end of the server, in which DNS and Envoy notice it."""
    shutdown_grace: float
    """Seconds that running calls have to finish."""
    reflection: bool = True
    """Whether reflection describes the services."""
    ready_delay: float = 0
    """Seconds that a replica serves before Kubernetes counts it as ready, if there are other replicas."""
    peers: str = ""
    """The DNS name of all replicas of this service; empty if there is only one."""

    @classmethod
    def from_env(cls, env: Env, *, grpc_port: int) -> Self:
        """Reads the configuration; `grpc_port` is the default port.

        Raises:
            ConfigError: A variable has an invalid value.
        """
        return cls(
            host=env.host("LISTEN_HOST", "0.0.0.0"),  # noqa: S104 - a pod listens on its own address
            grpc_port=env.port("GRPC_PORT", grpc_port),
            shutdown_delay=env.seconds("SHUTDOWN_DELAY", 5, 0, 300),
            shutdown_grace=env.seconds("SHUTDOWN_GRACE", 20, 0, 300),
            reflection=env.boolean("REFLECTION", default=True),
            ready_delay=env.seconds("READY_DELAY", 0, 0, 300),
            peers=env.text("PEERS", ""),
        )

    def address(self, port: int) -> str:
        """Returns host and port, as in a URL."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    """How to reach the service's database."""

    conninfo: str
    """A libpq connection string or URI. What it lacks comes from `credentials`, then from PGHOST and so on."""
    credentials: str = ""
    """A folder with the files host, port, username, password and dbname, read for each connection; or empty."""
    pooler: str = ""
    """The parameters of the connection string that differ for calls, which use a pooler in transaction mode. Empty if
    there is no pooler."""
    replicas: str = ""
    """The parameters of the connection string that differ for replicas, if these connections are to replicas."""
    pool_size: int
    pool_waiting: int
    """How many calls may wait for a connection. Further calls get RESOURCE_EXHAUSTED at once."""
    timeout: float
    """Seconds that a call may wait for a connection, and that a statement may run."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has an invalid value.
        """
        return cls(
            conninfo=env.text("DATABASE_URL", ""),
            credentials=env.text("DATABASE_CREDENTIALS", ""),
            pooler=env.text("DATABASE_POOLER_URL", ""),
            pool_size=env.integer("DATABASE_POOL_SIZE", 6, 1, 100),
            pool_waiting=env.integer("DATABASE_POOL_WAITING", 200, 1, 100_000),
            timeout=env.seconds("DATABASE_TIMEOUT", 5, 0.1, 60),
        )

    def for_searches(self, env: Env) -> Self:
        """Returns the configuration for statements that may read many rows.

        There are few of them at a time. They may not take long, but longer than a migration may lock a table.

        Raises:
            ConfigError: A variable has an invalid value.
        """
        size = env.integer("SEARCH_POOL_SIZE", 2, 1, 100)
        return replace(self, pool_size=size, timeout=env.seconds("SEARCH_TIMEOUT", 3, 0.1, 60))

    def for_replicas(self, env: Env) -> Self | None:
        """Returns the configuration for reads from replicas; None if there are none.

        A replica that does not respond must leave time for the primary.

        Raises:
            ConfigError: A variable has an invalid value.
        """
        size = env.integer("DATABASE_READ_POOL_SIZE", 6, 1, 100)
        replicas = env.text("DATABASE_READ_URL", "")
        if not replicas:
            return None
        return replace(self, replicas=replicas, pooler="", pool_size=size, timeout=min(self.timeout, REPLICA_TIMEOUT))
