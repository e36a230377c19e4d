"""The configuration of the sidecar."""

from dataclasses import dataclass, field, replace
from typing import Self

from runtime.access.config import AccessConfig
from runtime.client import parse_target
from runtime.config import Env, ServerConfig
from runtime.telemetry.config import TelemetryConfig

EDGE_REFRESH_INTERVAL = 30.0
"""Seconds between two fetches of the issuer's keys, at most."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Intervals and timeouts, in seconds."""

    heartbeat_interval: float = 15.0
    """Time between two heartbeats of a stream."""
    log_timeout: float = 5.0
    """How long a new stream waits for its order's log, also for one as new as the client's Last-Event-ID."""
    upstream_timeout: float = 30.0
    """How long streams stay open while the order service is unavailable."""
    answer_timeout: float = 10.0
    """How long to wait for an answer of the order service before the call is made again."""
    feed_age: float = 300.0
    """How long one call to the order service follows the orders, give or take a fifth. The next call may be to a newer
    replica."""
    authorization_timeout: float = 5.0
    """How long the order service may take to say whether a client may follow an order."""
    slow_reader_timeout: float = 10.0
    """How long a browser may leave its buffer full."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the process carries, and one client of it."""

    streams: int = 15_000
    """Maximum number of streams."""
    streams_per_client: int = 100
    """Maximum number of streams of one client: of the subject of its token, else of its address (IPv6: of one /64).
    Also of the health watches and reflection streams of one address. 0 for no limit of its own."""
    authorizations_per_address: int = 16
    """Maximum number of clients of one address about whom the order service is asked, or about to be asked."""
    authorizations: int = 64
    """Maximum number of clients about whom the order service is asked at the same time. The others wait."""
    watches: int = 1_000
    """Maximum number of health watches and reflection streams."""
    buffer: int = 64 * 1024
    """Maximum number of bytes that wait for one browser, beyond what the kernel holds."""


@dataclass(frozen=True, kw_only=True)
class SidecarConfig:
    """Everything that the sidecar is configured with."""

    server: ServerConfig
    access: AccessConfig
    telemetry: TelemetryConfig
    http_port: int
    product_target: str
    order_target: str
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has no valid value.
        """
        return cls(
            server=ServerConfig.from_env(env, grpc_port=50054),
            access=_refreshed_often(AccessConfig.from_env(env)),
            telemetry=TelemetryConfig.from_env(env),
            http_port=env.port("HTTP_PORT", 8081),
            product_target=parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052")),
            order_target=parse_target("ORDER_TARGET", env.text("ORDER_TARGET", "dns:///localhost:50053")),
            limits=Limits(
                streams=env.integer("SSE_MAX_STREAMS", 15_000, 1, 1_000_000),
                streams_per_client=env.integer("SSE_MAX_STREAMS_PER_CLIENT", 100, 0, 1_000_000),
            ),
        )


def _refreshed_often(access: AccessConfig) -> AccessConfig:
    """Returns the configuration with a shorter interval between two fetches of keys.

    The edge has its keys from here. Unlike a service, it cannot look for a key that it does not know yet.
    """
    if access.tokens is None:
        return access
    interval = min(access.tokens.refresh_interval, EDGE_REFRESH_INTERVAL)
    return replace(access, tokens=replace(access.tokens, refresh_interval=interval))
