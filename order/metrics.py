"""The metrics of the order service. Its parts count in plain numbers; this names them."""

import time
from dataclasses import dataclass

from order.cart.store import CartStore
from order.jobs.backlog import Backlog
from order.jobs.expired_carts import CartPurger
from order.jobs.expired_holds import ExpiredHoldReaper
from order.jobs.relay import Relay
from order.live.logs import Followers
from order.live.tailer import Tailer
from order.outcomes import Outcomes
from runtime.limits import CallerLimit
from runtime.telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts that count."""

    outcomes: Outcomes
    carts: CartStore
    backlog: Backlog
    relay: Relay
    reaper: ExpiredHoldReaper
    purger: CartPurger
    tailer: Tailer
    followers: Followers
    streams: CallerLimit


def measure(metrics: Metrics, parts: Parts) -> None:
    """Registers the metrics of the parts."""
    _measure_orders(metrics, parts.outcomes)
    _measure_carts(metrics, parts)
    _measure_messages(metrics, parts)
    _measure_streams(metrics, parts)


def _measure_orders(metrics: Metrics, outcomes: Outcomes) -> None:
    metrics.counter(
        "shop.orders.transitions",
        lambda: outcomes.transitions,
        "Statuses that orders got.",
        unit="{transition}",
        labels=["status"],
    )
    metrics.counter(
        "shop.orders.value",
        lambda: {currency: micros / 1_000_000 for currency, micros in dict(outcomes.value_micros).items()},
        "Totals of the orders placed, in units of their currency.",
        unit="{currency_unit}",
        labels=["currency"],
    )
    metrics.counter(
        "shop.orders.refusals",
        lambda: outcomes.refusals,
        "Changes of an order's status that were refused, by ErrorInfo reason.",
        unit="{refusal}",
        labels=["reason"],
    )
    metrics.counter(
        "shop.checkouts",
        lambda: outcomes.checkouts,
        "Attempts to place an order, from a cart or directly: ordered, repeated, or the ErrorInfo reason of the error.",
        unit="{checkout}",
        labels=["outcome"],
    )


def _measure_carts(metrics: Metrics, parts: Parts) -> None:
    metrics.counter(
        "shop.carts.changes",
        lambda: parts.carts.changes,
        "Changes of carts. An addition that was repeated is none.",
        unit="{change}",
        labels=["operation"],
    )
    metrics.counter(
        "shop.carts.expired", lambda: parts.purger.carts.deleted, "Expired carts that were deleted.", unit="{cart}"
    )
    metrics.gauge(
        "shop.carts.purge_lag",
        parts.backlog.latest.reader(lambda reading: reading.purge_lag),
        "How long the oldest expired cart has been waiting for its deletion. Every replica has the same value.",
        unit="s",
    )


def _measure_messages(metrics: Metrics, parts: Parts) -> None:
    metrics.gauge(
        "shop.outbox.messages",
        parts.backlog.latest.reader(lambda reading: reading.messages),
        "Messages that wait for the product service, at most 10,000 are counted. Every replica has the same value.",
        unit="{message}",
    )
    metrics.gauge(
        "shop.outbox.age",
        parts.backlog.latest.reader(lambda reading: reading.message_age),
        "Age of the oldest message that waits for the product service. Every replica has the same value.",
        unit="s",
    )
    metrics.counter(
        "shop.outbox.sent",
        lambda: parts.relay.sent,
        "Messages that the product service has got.",
        unit="{message}",
        labels=["action"],
    )
    metrics.counter(
        "shop.outbox.failures",
        lambda: parts.relay.failures,
        "Attempts to send a message that failed.",
        unit="{attempt}",
        labels=["action"],
    )
    metrics.counter(
        "shop.holds.settled",
        lambda: parts.reaper.settled,
        "Expired holds that were settled, because their process crashed before the order was written.",
        unit="{hold}",
        labels=["outcome"],
    )


def _measure_streams(metrics: Metrics, parts: Parts) -> None:
    metrics.gauge(
        "shop.tailer.age",
        lambda: time.monotonic() - parts.tailer.read_time,
        "Time since the status tailer last read all new events.",
        unit="s",
    )
    metrics.counter(
        "shop.tailer.events", lambda: parts.tailer.events, "Events that the status tailer has read.", unit="{event}"
    )
    metrics.gauge("shop.watchers", lambda: parts.streams.count, "Open StreamOrderStatus calls.", unit="{call}")
    metrics.gauge(
        "shop.watchers.max", lambda: parts.streams.total, "Limit of open StreamOrderStatus calls.", unit="{call}"
    )
    metrics.gauge(
        "shop.feed.connections",
        lambda: parts.followers.feeds,
        "Open FollowOrders calls: one for each pod of the edge, if all are connected.",
        unit="{call}",
    )
