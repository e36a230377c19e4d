"""What the page shows, made from what the processes export: groups of numbers, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from local.debug.history import RATE_WINDOW, History

CALLS = "rpc_server_call_duration_seconds"
POOL = "db_client_connection_pool_name"
EDGE = {"envoy_http_conn_manager_prefix": "edge"}
PREFIXES = (
    "shop_",
    "rpc_server_",
    "db_",
    "process_",
    "envoy_http_",
    "envoy_server_",
    "envoy_cluster_upstream_rq_total",
)
"""The beginnings of the names that the page reads."""

NOTHING = "–"


@dataclass(frozen=True)
class Number:
    """A number, and its line of the last minute."""

    name: str
    value: str
    unit: str = ""
    points: Sequence[float] = ()
    bad: bool = False
    """Whether it should be 0, or true, and is not."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    extra: bool = False
    """Whether a narrow screen leaves it out."""


@dataclass(frozen=True)
class Row:
    """A row of a table. The first cell names it."""

    cells: Sequence[str]
    detail: str = ""
    """What is shown below the name."""
    points: Sequence[float] = ()


@dataclass(frozen=True)
class Group:
    """A part of the page: numbers, or a table."""

    title: str
    hint: str = ""
    numbers: Sequence[Number] = ()
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()


@dataclass(frozen=True)
class Shop:
    """The histories of the four processes."""

    product: History = field(default_factory=lambda: History(PREFIXES))
    order: History = field(default_factory=lambda: History(PREFIXES))
    sse: History = field(default_factory=lambda: History(PREFIXES))
    envoy: History = field(default_factory=lambda: History(PREFIXES))

    @property
    def services(self) -> Mapping[str, History]:
        """The shop's own processes."""
        return {"product": self.product, "order": self.order, "sse": self.sse}

    @property
    def processes(self) -> Mapping[str, History]:
        """All processes by name."""
        return {**self.services, "envoy": self.envoy}


def view(shop: Shop) -> dict[str, Any]:
    """Returns what the page shows, for JSON."""
    groups = (
        _edge(shop),
        _happened(shop),
        _calls(shop),
        _live(shop),
        _databases(shop),
        _waiting(shop),
        _processes(shop),
    )
    down = [name for name, history in shop.processes.items() if not history.is_up]
    return {"down": down, "groups": [asdict(each) for each in groups]}


def _edge(shop: Shop) -> Group:
    envoy = shop.envoy
    # Without the requests of this page itself.
    own = {"envoy_cluster_name": "debug"}
    all_of, own_of = "envoy_http_downstream_rq_total", "envoy_cluster_upstream_rq_total"
    rates = [max(0.0, a - b) for a, b in zip(envoy.rates(all_of, **EDGE), envoy.rates(own_of, **own), strict=True)]
    requests = max(0.0, envoy.rate(all_of, **EDGE) - envoy.rate(own_of, **own))

    def answers(digit: str) -> Number:
        labels = {**EDGE, "envoy_response_code_class": digit}
        name = "envoy_http_downstream_rq_xx"
        return _rate(envoy, f"{digit}xx", name, bad=digit == "5", **labels)

    numbers = (
        Number("requests", _decimal(requests), "/s", rates),
        answers("4"),
        answers("5"),
        _rate(envoy, "429, over the rate limit", "envoy_http_local_rate_limit_rate_limited"),
        _gauge(envoy, "requests running", "envoy_http_downstream_rq_active", **EDGE),
        _gauge(envoy, "connections", "envoy_http_downstream_cx_active", **EDGE),
    )
    return Group("Edge", "What Envoy gets. The requests of this page are not counted.", numbers)


def _happened(shop: Shop) -> Group:
    rows = [
        *_counts(shop.order, "order", "shop_orders_transitions_total", "status", everything=True),
        *_counts(shop.order, "checkout", "shop_checkouts_total", "outcome"),
        *_counts(shop.order, "refusal of an order's status", "shop_orders_refusals_total", "reason"),
        *_counts(shop.order, "cart", "shop_carts_changes_total", "operation"),
        *_counts(shop.product, "reservation", "shop_stock_reservations_total", "result"),
        _count(shop.product, "stock-out", "", "shop_stock_outs_total"),
        *_counts(shop.sse, "stream opened", "shop_streams_opened_total", "outcome"),
        *_counts(shop.sse, "stream closed", "shop_streams_closed_total", "reason"),
    ]
    return Group("Orders, carts, stock", columns=[Column("what"), Column("last minute"), Column("in all")], rows=rows)


def _counts(history: History, what: str, name: str, label: str, *, everything: bool = False) -> list[Row]:
    """Returns a row for each value of a label; without `everything`, for those that are not 0."""
    values = history.label_values(name, label)
    return [
        _count(history, value, what, name, **{label: value})
        for value in values
        if everything or history.last(name, **{label: value})
    ]


def _count(history: History, title: str, detail: str, name: str, **labels: str) -> Row:
    cells = [title, _whole(history.increase(name, **labels)), _whole(history.last(name, **labels))]
    return Row(cells, detail, history.rates(name, **labels))


def _calls(shop: Shop) -> Group:
    rows: list[Row] = []
    for history in shop.services.values():
        for method in history.label_values(f"{CALLS}_count", "rpc_method"):
            service, _, short = method.rpartition("/")
            called = {"rpc_method": method}
            rate = history.rate(f"{CALLS}_count", **called)
            errors = rate - history.rate(f"{CALLS}_count", **called, rpc_response_status_code="OK")
            quantiles = [_milliseconds(history.quantile(share, CALLS, **called)) for share in (0.5, 0.95, 0.99)]
            cells = [short, _decimal(rate), _decimal(errors), *quantiles]
            rows.append(Row(cells, service, history.rates(f"{CALLS}_count", **called)))
    columns = [
        Column("call"),
        Column("/s"),
        Column("errors/s"),
        Column("p50 ms", extra=True),
        Column("p95 ms"),
        Column("p99 ms"),
    ]
    hint = f"Of the last {RATE_WINDOW} seconds, without streams. Errors are all codes but OK."
    return Group("Calls", hint, columns=columns, rows=rows)


def _live(shop: Shop) -> Group:
    order, sse = shop.order, shop.sse
    numbers = (
        _gauge(sse, "event streams", "shop_streams", most="shop_streams_max"),
        _rate(sse, "events to browsers", "shop_stream_events_total"),
        _state(sse, "feed of the order service", "shop_feed_up"),
        _gauge(order, "StreamOrderStatus calls", "shop_watchers", most="shop_watchers_max"),
        _gauge(order, "feeds to the edge", "shop_feed_connections"),
        _rate(order, "events read", "shop_tailer_events_total"),
        _gauge(order, "last read", "shop_tailer_age_seconds", unit="s ago"),
    )
    return Group("Streams and events", numbers=numbers)


def _databases(shop: Shop) -> Group:
    rows: list[Row] = []
    for history in (shop.product, shop.order):
        for pool in history.label_values("db_client_connection_max", POOL):
            connections, statements = {POOL: pool}, {"pool": pool}
            rate = history.rate("shop_database_statements_total", **statements)
            time = history.rate("shop_database_statement_time_seconds_total", **statements)
            used = _whole(history.last("db_client_connection_count", **connections, db_client_connection_state="used"))
            cells = [
                pool,
                f"{used} of {_whole(history.last('db_client_connection_max', **connections))}",
                _whole(history.last("db_client_connection_pending_requests", **connections)),
                _milliseconds(history.quantile(0.99, "db_client_connection_wait_time_seconds", **connections)),
                _decimal(rate),
                _milliseconds(time / rate if rate else None),
                _whole(history.last("shop_database_errors_total", **statements)),
            ]
            rows.append(Row(cells, "", history.rates("shop_database_statements_total", **statements)))
    columns = [
        Column("pool"),
        Column("in use"),
        Column("waiting", extra=True),
        Column("p99 wait ms", extra=True),
        Column("statements/s"),
        Column("mean ms"),
        Column("errors"),
    ]
    return Group("Databases", "Errors are counted from the start.", columns=columns, rows=rows)


def _waiting(shop: Shop) -> Group:
    order, product = shop.order, shop.product
    failures = sum(each.last("shop_jobs_failures_total") or 0 for each in shop.services.values())
    numbers = (
        _gauge(order, "messages in the outbox", "shop_outbox_messages"),
        _gauge(order, "oldest message", "shop_outbox_age_seconds", unit="s"),
        _rate(order, "messages sent", "shop_outbox_sent_total"),
        _gauge(product, "overdue holds", "shop_reservations_overdue"),
        _gauge(product, "most overdue hold", "shop_reservations_overdue_age_seconds", unit="s"),
        _gauge(order, "oldest expired cart", "shop_carts_purge_lag_seconds", unit="s"),
        Number("failed steps of jobs", _whole(failures), bad=failures > 0),
    )
    return Group("Background work", "What only the database knows is read every 15 seconds.", numbers)


def _processes(shop: Shop) -> Group:
    rows = [_process(name, history) for name, history in shop.services.items()]
    envoy = shop.envoy
    memory = envoy.last("envoy_server_memory_physical_size")
    cells = ["envoy", _yes(envoy.last("envoy_server_live")), NOTHING, _mebibytes(memory), NOTHING, NOTHING]
    rows.append(Row([*cells, _whole(envoy.last("envoy_server_uptime"))]))
    columns = [
        Column("process"),
        Column("ready"),
        Column("CPU %"),
        Column("MiB"),
        Column("open files", extra=True),
        Column("loop lag ms"),
        Column("up s", extra=True),
    ]
    hint = "The lag is the longest time of the last seconds in which the event loop did not get to other work."
    return Group("Processes", hint, columns=columns, rows=rows)


def _process(name: str, history: History) -> Row:
    time = "process_cpu_time_seconds_total"
    cells = [
        name,
        _yes(history.last("shop_server_ready")),
        _whole(100 * history.rate(time)),
        _mebibytes(history.last("process_memory_usage_bytes")),
        _whole(history.last("process_open_file_descriptor_count")),
        _milliseconds(history.last("shop_event_loop_max_lag_seconds")),
        _whole(history.last("process_uptime_seconds")),
    ]
    return Row(cells, "", history.rates(time))


def _rate(history: History, title: str, name: str, *, bad: bool = False, **labels: str) -> Number:
    rate = history.rate(name, **labels)
    return Number(title, _decimal(rate), "/s", history.rates(name, **labels), bad=bad and rate > 0)


def _gauge(history: History, title: str, name: str, *, most: str = "", unit: str = "", **labels: str) -> Number:
    value = history.last(name, **labels)
    text = f"of {_whole(history.last(most))}" if most else unit
    shown = _whole(value) if value is None or value == int(value) else _decimal(value)
    return Number(title, shown, text, history.values(name, **labels))


def _state(history: History, title: str, name: str) -> Number:
    value = history.last(name)
    return Number(title, _yes(value, "up", "down"), "", history.values(name), bad=value == 0)


def _yes(value: float | None, yes: str = "yes", no: str = "no") -> str:
    return NOTHING if value is None else yes if value else no


def _whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or not value else f"{value:.1f}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:,.0f}" if seconds >= 0.1 else f"{seconds * 1000:.1f}"


def _mebibytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 1024**2:,.0f}"
