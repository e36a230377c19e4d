"""The samples of a shop as Prometheus has them, healthy or with faults, for promtool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

STEP = 15
"""Seconds between two samples."""
LENGTH = 45 * 60 // STEP
FAULT_START = 12 * 60 // STEP
"""The sample with which faults begin."""

NAMESPACE, RELEASE = "NAMESPACE", "RELEASE"
TARGETS = (
    ("product", "product-0", "product"),
    ("product", "product-1", "product"),
    ("order", "order-0", "order"),
    ("order", "order-1", "order"),
    ("gateway", "gateway-0", "sse"),
    ("gateway", "gateway-0", "envoy"),
    ("gateway", "gateway-1", "sse"),
    ("gateway", "gateway-1", "envoy"),
)
"""Component, pod and container of everything that is scraped."""
POOLS = {"product": ("product", "product stock", "product search"), "order": ("order", "order search")}
METHODS = {
    "product": ("shop.product.v1.ProductService/GetProduct", "shop.product.v1.StockService/Reserve"),
    "order": ("shop.order.v1.OrderService/CreateOrder", "shop.order.v1.OrderService/GetOrder"),
    "sse": ("grpc.health.v1.Health/Check",),
}
BUCKETS = ("0.005", "0.05", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
FAST = 3
"""How many of the buckets stay empty when all calls are slow."""
CLUSTERS = ("product", "order", "sse", "sse-grpc")
JOBS = {"relay": 1, "expired-hold reaper": 5, "event log pruner": 300, "cart purger": 300}
"""Background work of order, and the seconds between two steps."""

Values = list[float | None]
"""One value a step; None where there is no sample."""


@dataclass(frozen=True)
class Key:
    """A series."""

    name: str
    labels: frozenset[tuple[str, str]]

    def __str__(self) -> str:
        return self.name + "{" + ",".join(f'{name}="{value}"' for name, value in sorted(self.labels)) + "}"

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        return (not name or self.name == name) and labels.items() <= self.labels


class Series:
    """The samples of a shop for three quarters of an hour. Without faults it is healthy and has customers."""

    def __init__(self, *, seconds: int = 25 * 60, calls: float = 2) -> None:
        """A shop.

        Args:
            seconds: How long faults last.
            calls: How many calls each method of a process gets in a second.
        """
        self.samples: dict[Key, Values] = {}
        self._fault = range(FAULT_START, min(FAULT_START + seconds // STEP, LENGTH))
        self._calls = calls
        for component, pod, container in TARGETS:
            self._process(component, pod, container)

    def _gauge(self, value: float, name: str, **labels: str) -> None:
        self._add(name, labels, lambda _: value)

    def _counter(self, per_second: float, name: str, **labels: str) -> None:
        self._add(name, labels, lambda step: round(per_second * step * STEP, 3))

    def _add(self, name: str, labels: Mapping[str, str], value: Callable[[int], float]) -> None:
        every = {"namespace": NAMESPACE, "app_kubernetes_io_instance": RELEASE, **labels}
        self.samples[Key(name, frozenset(every.items()))] = [value(step) for step in range(LENGTH)]

    def _process(self, component: str, pod: str, container: str) -> None:
        target = {"app_kubernetes_io_component": component, "pod": pod, "container": container}
        self._gauge(1, "up", **target)
        if container == "envoy":
            self._envoy(target)
            return
        self._counter(1, "process_uptime_seconds", **target)
        self._gauge(1, "shop_server_ready", **target)
        self._gauge(0.004, "shop_event_loop_max_lag_seconds", **target)
        self._counter(1 / 300, "shop_access_key_fetches_total", outcome="ok", **target)
        self._counter(0, "shop_access_key_fetches_total", outcome="failed", **target)
        for method in METHODS[container]:
            self._server_calls(method, target)
        for pool in POOLS.get(container, ()):
            self._pool(pool, target)
        if container == "product":
            self._gauge(0, "shop_reservations_overdue_age_seconds", **target)
        if container == "order":
            self._order(target)
        if container == "sse":
            self._gauge(1, "shop_feed_up", **target)
            self._gauge(100, "shop_streams", **target)
            for outcome, rate in (("opened", 0.2), ("UNAVAILABLE", 0)):
                self._counter(rate, "shop_streams_opened_total", outcome=outcome, **target)
            self._gauge(5000, "shop_streams_max", **target)

    def _server_calls(self, method: str, target: Mapping[str, str]) -> None:
        for code, rate in (("OK", self._calls), ("NOT_FOUND", self._calls / 10)):
            labels = {"rpc_method": method, "rpc_response_status_code": code, **target}
            self._counter(rate, "rpc_server_call_duration_seconds_count", **labels)
            for bound in BUCKETS:
                self._counter(rate, "rpc_server_call_duration_seconds_bucket", le=bound, **labels)

    def _pool(self, pool: str, target: Mapping[str, str]) -> None:
        if "search" not in pool:
            self._gauge(1, "shop_database_up", pool=pool, **target)
        if pool == "order":
            self._gauge(1, "shop_database_writable", pool=pool, **target)
        self._counter(2 * self._calls, "shop_database_statements_total", pool=pool, statement="get", **target)
        for error in ("connection_lost", "race", "timeout", "read_only", "full", "constraint", "other"):
            self._counter(0, "shop_database_errors_total", pool=pool, error=error, **target)
        self._counter(0, "db_client_connection_timeouts_total", db_client_connection_pool_name=pool, **target)
        self._gauge(0, "db_client_connection_pending_requests", db_client_connection_pool_name=pool, **target)

    def _order(self, target: Mapping[str, str]) -> None:
        self._counter(
            0.5,  # the reaper asks at night, too
            "rpc_client_call_duration_seconds_count",
            rpc_method="shop.product.v1.StockService/ListExpired",
            rpc_response_status_code="OK",
            **target,
        )
        self._gauge(0, "shop_outbox_age_seconds", **target)
        self._gauge(0.5, "shop_tailer_age_seconds", **target)
        self._gauge(120, "shop_carts_purge_lag_seconds", **target)
        self._gauge(3, "shop_watchers", **target)
        self._gauge(1000, "shop_watchers_max", **target)
        for batch in ("order.find", "order.insert", "cart.change"):
            self._gauge(2, "shop_batch_waiting", batch=batch, **target)
            self._counter(0, "shop_batch_refusals_total", batch=batch, **target)
        for job, interval in JOBS.items():
            self._gauge(interval / 2, "shop_jobs_age_seconds", job_name=job, **target)
            self._gauge(interval, "shop_jobs_interval_seconds", job_name=job, **target)
            self._counter(0, "shop_jobs_failures_total", job_name=job, **target)

    def _envoy(self, target: Mapping[str, str]) -> None:
        self._counter(1, "envoy_server_uptime", **target)
        self._gauge(4294967295, "envoy_server_days_until_first_cert_expiring", **target)
        for monitor in ("fixed_heap", "global_downstream_max_connections"):
            self._gauge(2, f"envoy_overload_envoy_resource_monitors_{monitor}_pressure", **target)
        self._counter(0, "envoy_http_local_rate_limit_rate_limited", **target)
        for cluster in CLUSTERS:
            labels = {"envoy_cluster_name": cluster, **target}
            self._gauge(2, "envoy_cluster_membership_healthy", **labels)
            self._counter(self._calls, "envoy_cluster_upstream_rq_total", **labels)
            for name in ("cx_connect_fail", "cx_none_healthy", "rq_pending_overflow", "rq_timeout"):
                self._counter(0, f"envoy_cluster_upstream_{name}", **labels)
        for prefix in ("edge", "admin"):
            for digit, rate in (("2", self._calls), ("4", self._calls / 10), ("5", 0)):
                code = {"envoy_http_conn_manager_prefix": prefix, "envoy_response_code_class": digit}
                self._counter(rate, "envoy_http_downstream_rq_xx", **code, **target)

    def keep(self, value: float, name: str, **labels: str) -> None:
        """Adds a series that never changes."""
        self._gauge(value, name, **labels)

    # --- faults -------------------------------------------------------------------------------------------------------

    def _select(self, name: str, labels: Mapping[str, str]) -> list[Values]:
        found = [values for key, values in self.samples.items() if key.matches(name, labels)]
        assert found, f"there is no series {name}{labels}"
        return found

    def set(self, name: str, value: float, *, after: int = 0, **labels: str) -> None:
        """Gives a gauge another value while the fault lasts, or from so many seconds after its start on."""
        for values in self._select(name, labels):
            for step in self._fault[after // STEP :]:
                values[step] = value

    def grow(self, name: str, **labels: str) -> None:
        """Lets an age grow while the fault lasts."""
        for values in self._select(name, labels):
            for step in self._fault:
                values[step] = (step - FAULT_START) * STEP

    def count(self, name: str, per_second: float, **labels: str) -> None:
        """Lets counters grow while the fault lasts, by so much more or less than before."""
        for values in self._select(name, labels):
            for step in range(FAULT_START, LENGTH):
                extra = min(step - FAULT_START, len(self._fault)) * STEP * per_second
                values[step] = round((values[step] or 0) + extra, 3)

    def stop(self, name: str, **labels: str) -> None:
        """Lets counters stand still while the fault lasts."""
        for values in self._select(name, labels):
            before = [value or 0 for value in values]
            for step in range(FAULT_START, LENGTH):
                end = min(step, self._fault[-1] + 1, LENGTH - 1)
                values[step] = round(before[step] - before[end] + before[FAULT_START], 3)

    def begin(self, name: str, per_second: float, **labels: str) -> None:
        """Begins a counter with its first count, as the SDK does with the labels of a histogram."""
        self._add(name, labels, lambda _: 0)
        self.count(name, per_second, **labels)
        for key, values in self.samples.items():
            if key.matches(name, labels):
                values[: FAULT_START + 1] = [None] * (FAULT_START + 1)

    def end(self, *, after: int = 0, seconds: int = LENGTH * STEP, **labels: str) -> None:
        """Ends the series of targets while the fault lasts, or for a part of it: they are not scraped. `up` is 0."""
        for key, values in self.samples.items():
            if key.matches("", labels):
                for step in self._fault[after // STEP :][: seconds // STEP]:
                    values[step] = 0 if key.name == "up" else None

    def remove(self, **labels: str) -> None:
        """Removes targets while the fault lasts, as if their pods were deleted."""
        for values in self._select("", labels):
            for step in self._fault:
                values[step] = None

    def restart(self, every: int, **labels: str) -> None:
        """Restarts processes every so many seconds while the fault lasts: all that they count begins at 0."""
        for key, values in self.samples.items():
            if not key.matches("", labels) or not key.name.endswith(
                ("_total", "_count", "_bucket", "uptime", "seconds")
            ):
                continue
            before = list(values)
            for step in range(FAULT_START, LENGTH):
                last = self._fault[(min(step, self._fault[-1]) - FAULT_START) // (every // STEP) * (every // STEP)]
                values[step] = (before[step] or 0) - (before[last] or 0)

    def input(self, part: slice = slice(None)) -> list[dict[str, str]]:
        """The samples as promtool's `input_series`, all or a part of them."""
        return [{"series": str(key), "values": _notation(values[part])} for key, values in self.samples.items()]


def _notation(values: Values) -> str:
    """Returns values as promtool reads them, equal ones in a row together: it reads a short text faster.

    Prometheus marks the end of a series, so that it has no value at once.
    """
    parts: list[str] = []
    for value, run in groupby(values):
        length = len(list(run))
        if value is not None:
            parts.append(f"{value:.12g}x{length - 1}" if length > 1 else f"{value:.12g}")
            continue
        if parts:
            parts.append("stale")
            length -= 1
        if length:
            parts.append(f"_x{length}")
    return " ".join(parts)
