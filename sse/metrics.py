"""The metrics of the sidecar. Its parts count in plain numbers; this names them."""

from runtime.telemetry.metrics import Metrics
from sse.config import Limits
from sse.streams.connections import Connections
from sse.streams.counts import StreamCounts
from sse.streams.feed import Feed


def measure(metrics: Metrics, limits: Limits, connections: Connections, feed: Feed, counts: StreamCounts) -> None:
    """Registers the metrics of the parts."""
    metrics.gauge(
        "shop.streams",
        lambda: len(connections),
        "Event streams of browsers, those included whose client is being authorized.",
        unit="{stream}",
    )
    metrics.gauge("shop.streams.max", lambda: limits.streams, "Limit of event streams.", unit="{stream}")
    metrics.counter(
        "shop.streams.opened",
        lambda: counts.opened,
        "Requests for an event stream: opened, over (there was nothing more to send), or the code of the error.",
        unit="{request}",
        labels=["outcome"],
    )
    metrics.counter(
        "shop.streams.closed",
        lambda: counts.closed,
        "Event streams that have ended, by what ended them.",
        unit="{stream}",
        labels=["reason"],
    )
    metrics.counter(
        "shop.stream.events",
        lambda: counts.events,
        "Events that were written to browsers: one for each browser that watches the order.",
        unit="{event}",
    )
    metrics.gauge(
        "shop.feed.up",
        lambda: int(feed.is_up),
        "Whether the order service responds to the feed of watched orders (1) or not (0). 1 if none is watched.",
    )
