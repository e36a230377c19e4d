"""The metrics of the product service. Its parts count in plain numbers; this names them."""

from collections.abc import Sequence

from product.overdue_holds import MAX_COUNTED, OverdueHoldReader
from product.stock_batches import StockBatches
from runtime.replica import Replica
from runtime.telemetry.metrics import Metrics


def measure(metrics: Metrics, batches: StockBatches, overdue: OverdueHoldReader, replicas: Sequence[Replica]) -> None:
    """Registers the metrics of the parts."""
    metrics.counter(
        "shop.stock.reservations",
        lambda: batches.results,
        "Reservations that were held, confirmed, released, released before they were made, or refused.",
        unit="{reservation}",
        labels=["result"],
    )
    metrics.counter(
        "shop.stock.outs",
        lambda: batches.stock_outs,
        "Reservations that were refused because too little stock is left.",
        unit="{reservation}",
    )
    metrics.gauge(
        "shop.reservations.overdue",
        overdue.latest.reader(lambda latest: latest.count),
        f"Holds past their time; at most {MAX_COUNTED:,} are counted. Every replica has the same value.",
        unit="{reservation}",
    )
    metrics.gauge(
        "shop.reservations.overdue_age",
        overdue.latest.reader(lambda latest: latest.age),
        "How long the most overdue hold is past its time; 0 without one. Every replica has the same value.",
        unit="s",
    )
    metrics.counter(
        "shop.catalogue.reads",
        lambda: {server: sum(each.reads[server] for each in replicas) for server in ("replica", "primary")},
        "Reads of the catalogue that may use a replica, by the server that was asked in the end.",
        unit="{statement}",
        labels=["server"],
    )
