"""Channels to other services of the shop."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc

from runtime.config import ConfigError
from runtime.health import CALLS

RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    # A server that closes cancels what it has received and not begun.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
"""For calls that may be made twice: a connection that is closed under one, as in a rollout, is no failure of it. In all
it takes longer than to ask DNS again (`dns_min_time_between_resolutions_ms`) for whoever has replaced the last peer."""

THROTTLE = {"maxTokens": 100, "tokenRatio": 0.1}
"""Where most calls fail, none is retried: it would only add to the trouble."""

METADATA: Sequence[tuple[str, Any]] = (
    # The edge lets 32 KiB of headers through, and gRPC counts 32 bytes more for each. By default 8 KiB are too many by
    # chance and 16 KiB always, and who sent them is told to try again.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
)
"""What servers and clients of ours take of metadata."""

OPTIONS: Sequence[tuple[str, Any]] = (
    *METADATA,
    # A lost peer says nothing: ask it, no oftener than servers permit, those of the version before included.
    ("grpc.keepalive_time_ms", 11_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    # What ends a connection whose pings are not answered; a minute by default, in which nothing else asks again.
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A hundred reservations of fifty items with the longest names are more than the usual 4 MiB.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # A pod that was replaced is found again in a second, not after half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Calls inside of the shop go straight to their peer, whatever http_proxy says: clusters set it for the way out.
    ("grpc.enable_http_proxy", 0),
)


def parse_target(name: str, value: str) -> str:
    """A gRPC target, as in `dns:///product:50052`."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{name} must be a gRPC target like dns:///host:port, not {value!r}")
    return value


def channel(
    address: str, interceptors: Sequence[grpc.aio.ClientInterceptor] = (), *, idempotent: Sequence[str] = ()
) -> grpc.aio.Channel:
    """A channel that spreads calls over those addresses of a name whose process says SERVING. It connects with the
    first call. `idempotent` has the full names of services whose calls may be made twice."""
    # Each peer's health is watched. A peer without health checks counts as healthy.
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": CALLS}}
    if idempotent:
        names = [{"service": name} for name in idempotent]
        config |= {"methodConfig": [{"name": names, "retryPolicy": RETRY}], "retryThrottling": THROTTLE}
    options = (*OPTIONS, ("grpc.service_config", json.dumps(config)))
    return grpc.aio.insecure_channel(address, options=options, interceptors=list(interceptors))


async def is_resolvable(address: str) -> bool:
    """Whether the name in a gRPC target is there. A channel that asks for a name too early asks again later and later;
    jobs of a process that may be up before its peer look here before they use theirs."""
    name, _, port = address.rpartition(":")
    if not name.startswith("dns:///"):
        return True
    try:
        await asyncio.get_running_loop().getaddrinfo(name.removeprefix("dns:///").strip("[]"), int(port))
    except OSError:
        return False
    return True
