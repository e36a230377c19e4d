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
    # A server that closes cancels calls that it has received and not begun.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
"""How idempotent calls are retried, so that a connection that closes, as in a rollout, fails no call. Together the
pauses are longer than `dns_min_time_between_resolutions_ms`, after which DNS knows who has replaced the last peer."""

RETRY_THROTTLING = {"maxTokens": 100, "tokenRatio": 0.1}
"""If most calls fail, none is retried: it would only add to the overload."""

METADATA: Sequence[tuple[str, Any]] = (
    # The edge accepts 32 KiB of headers, and gRPC counts 32 bytes more for each header. By default gRPC refuses some
    # calls with more than 8 KiB and all with more than 16 KiB, with an error that tells clients to retry.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
)
"""The limits of metadata, for servers and clients."""

OPTIONS: Sequence[tuple[str, Any]] = (
    *METADATA,
    # Pings find a peer that died without closing its connections. They are as rare as servers of the previous release
    # demand.
    ("grpc.keepalive_time_ms", 11_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    # The connection ends if a ping gets no response. By default that takes a minute.
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # The largest responses within the shop are longer than the default of 4 MiB.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # The successor of a pod is found in a second, not after half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Calls within the shop use no proxy: clusters set http_proxy for calls that leave the cluster.
    ("grpc.enable_http_proxy", 0),
)


def parse_target(name: str, value: str) -> str:
    """Returns a gRPC target, as in `dns:///product:50052`, if it is one.

    Args:
        name: The variable that it comes from.
        value: The target.

    Raises:
        ConfigError: It has no host or no port.
    """
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{name} must be a gRPC target like dns:///host:port, not {value!r}")
    return value


def channel(
    address: str, interceptors: Sequence[grpc.aio.ClientInterceptor] = (), *, idempotent: Sequence[str] = ()
) -> grpc.aio.Channel:
    """Returns a channel that spreads calls over the addresses of a name, as far as they are SERVING.

    It connects at the first call.

    Args:
        address: A gRPC target.
        interceptors: What wraps each call.
        idempotent: The full names of the services whose calls may be retried, or of single methods, as in
            `shop.order.v1.OrderService/GetOrder`.
    """
    # The health of each peer is watched. A peer without health checks counts as healthy.
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": CALLS}}
    if idempotent:
        names = [dict(zip(("service", "method"), name.split("/"), strict=False)) for name in idempotent]
        config |= {"methodConfig": [{"name": names, "retryPolicy": RETRY}], "retryThrottling": RETRY_THROTTLING}
    options = (*OPTIONS, ("grpc.service_config", json.dumps(config)))
    return grpc.aio.insecure_channel(address, options=options, interceptors=list(interceptors))


async def is_resolvable(address: str) -> bool:
    """Returns whether DNS knows the name in a gRPC target.

    A process may start before its peer has a name. Its background jobs check this before they use their channel, which
    would double its pauses between attempts to resolve the name.
    """
    name, _, port = address.rpartition(":")
    if not name.startswith("dns:///"):
        return True
    try:
        await asyncio.get_running_loop().getaddrinfo(name.removeprefix("dns:///").strip("[]"), int(port))
    except OSError:
        return False
    return True
