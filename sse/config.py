"""What the sidecar is told, and the times it keeps."""

from dataclasses import dataclass, field
from typing import Self

from runtime.client import parse_target
from runtime.config import Env, ServerConfig


@dataclass(frozen=True, kw_only=True)
class Timing:
    """In seconds."""

    heartbeat: float = 15.0
    """Between two heartbeats of a stream."""
    start: float = 5.0
    """A new stream waits so long for its order's log."""
    catch_up: float = 1.0
    """A browser that has seen more than is known here is given so long to be right."""
    patience: float = 30.0
    """Live streams outlast the order service's absence so long."""
    answer: float = 10.0
    """A call on which nothing comes, though something is due, is given up."""
    slow: float = 10.0
    """A browser may leave its buffer full so long."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    streams: int = 15_000
    """Streams in all."""
    streams_per_client: int = 100
    """Streams of one client address (IPv6: of one /64), and its health watches; 0: as many as in all."""
    watches: int = 1_000
    """Health watches and reflection streams in all."""
    buffer: int = 64 * 1024
    """Bytes that wait for one browser, beyond what the kernel holds."""


@dataclass(frozen=True, kw_only=True)
class SidecarConfig:
    server: ServerConfig
    http_port: int
    product_target: str
    order_target: str
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)

    @classmethod
    def from_env(cls, env: Env) -> Self:
        return cls(
            server=ServerConfig.from_env(env, grpc_port=50054),
            http_port=env.port("HTTP_PORT", 8081),
            product_target=parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052")),
            order_target=parse_target("ORDER_TARGET", env.text("ORDER_TARGET", "dns:///localhost:50053")),
            limits=Limits(
                streams=env.integer("SSE_MAX_STREAMS", 15_000, 1, 1_000_000),
                streams_per_client=env.integer("SSE_MAX_STREAMS_PER_CLIENT", 100, 0, 1_000_000),
            ),
        )
