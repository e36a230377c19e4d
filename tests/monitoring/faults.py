"""Faults as the samples show them: the cause, and all that follows from it."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.monitoring.series import Series

Change = Callable[[Series], None]

SERVER_COUNT = "rpc_server_call_duration_seconds_count"
CLIENT_COUNT = "rpc_client_call_duration_seconds_count"
GET_ORDER = "shop.order.v1.OrderService/GetOrder"
LIST_EXPIRED = "shop.product.v1.StockService/ListExpired"
ORDER = {"app_kubernetes_io_component": "order"}
PRODUCT = {"app_kubernetes_io_component": "product"}


@dataclass(frozen=True)
class Fault:
    """A fault, and the only alert that it fires."""

    alert: str
    name: str
    change: Change
    blip: str = ""
    """The alert that half a minute of the fault fires; mostly none."""
    severity: str = ""
    """The severity, if the alert has more than one."""

    def __str__(self) -> str:
        return f"{self.alert}-{self.name}"


def edge_5xx(series: Series, per_second: float = 0.5, **labels: str) -> None:
    """Requests fail at each Envoy: by default nearly one in five, because customers mostly look around."""
    code = {"envoy_http_conn_manager_prefix": "edge", "envoy_response_code_class": "5"}
    series.count("envoy_http_downstream_rq_xx", per_second, **code, **labels)


def calls_to_product_fail(series: Series, code: str = "UNAVAILABLE") -> None:
    """What follows for order, and for its clients."""
    for pod in ("order-0", "order-1"):
        target = {"pod": pod, "container": "order", **ORDER}
        series.begin(CLIENT_COUNT, 1, rpc_method=LIST_EXPIRED, rpc_response_status_code=code, **target)
        series.count("shop_jobs_failures_total", 0.2, pod=pod, job_name="expired-hold reaper")
    series.grow("shop_jobs_age_seconds", job_name="expired-hold reaper")
    series.grow("shop_outbox_age_seconds")
    series.grow("shop_reservations_overdue_age_seconds")
    edge_5xx(series)


def calls_are_slow(series: Series, container: str) -> None:
    """All calls of a container take between one second and 2.5."""
    for bound in ("0.005", "0.05", "0.5", "1.0"):
        series.stop("rpc_server_call_duration_seconds_bucket", container=container, le=bound)


def product_is_gone(series: Series) -> None:
    series.end(container="product")
    calls_to_product_fail(series)
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="product")
    series.count("envoy_cluster_upstream_cx_none_healthy", 3, envoy_cluster_name="product")
    edge_5xx(series, 3)


def product_has_no_pods(series: Series) -> None:
    product_is_gone(series)
    series.remove(container="product")


def order_is_gone(series: Series) -> None:
    series.end(container="order")
    series.set("shop_feed_up", 0)
    series.grow("shop_reservations_overdue_age_seconds")
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="order")
    edge_5xx(series, 3)


def envoy_is_gone(series: Series) -> None:
    series.end(container="envoy")


def sidecar_is_gone(series: Series) -> None:
    series.end(container="sse")
    series.count("envoy_cluster_upstream_cx_connect_fail", 2, envoy_cluster_name="sse")


def one_replica_is_gone(series: Series) -> None:
    series.end(pod="order-1")


def one_sidecar_is_gone(series: Series) -> None:
    series.end(container="sse", pod="gateway-1")
    series.count("envoy_cluster_upstream_cx_connect_fail", 2, envoy_cluster_name="sse", pod="gateway-1")


def order_restarts(series: Series) -> None:
    series.restart(120, pod="order-0")


def order_restarts_after_pauses(series: Series) -> None:
    """Kubernetes waits longer and longer."""
    series.restart(60, pod="order-0")
    series.end(after=480, seconds=390, pod="order-0")


def envoy_restarts(series: Series) -> None:
    series.restart(120, pod="gateway-0", container="envoy")


def envoy_restarts_after_pauses(series: Series) -> None:
    series.restart(60, pod="gateway-0", container="envoy")
    series.end(after=480, seconds=390, pod="gateway-0", container="envoy")


def product_is_not_ready(series: Series) -> None:
    series.set("shop_server_ready", 0, container="product")
    calls_to_product_fail(series)
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="product")


def one_order_is_not_ready(series: Series) -> None:
    series.set("shop_server_ready", 0, pod="order-1")
    series.set("envoy_cluster_membership_healthy", 1, envoy_cluster_name="order")


def one_order_has_no_database(series: Series) -> None:
    """A firewall cuts off one pod."""
    series.set("shop_database_up", 0, pod="order-1")
    series.set("shop_server_ready", 0, pod="order-1")
    series.count("db_client_connection_timeouts_total", 2, pod="order-1")
    series.set("db_client_connection_pending_requests", 20, pod="order-1")
    series.grow("shop_tailer_age_seconds", pod="order-1")
    for job in ("relay", "expired-hold reaper", "cart purger"):
        series.count("shop_jobs_failures_total", 0.2, job_name=job, pod="order-1")
        series.grow("shop_jobs_age_seconds", job_name=job, pod="order-1")


def order_database_is_down(series: Series) -> None:
    series.set("shop_database_up", 0, container="order")
    series.set("shop_server_ready", 0, container="order")
    series.count("shop_database_errors_total", 2, container="order", error="connection_lost")
    series.count("db_client_connection_timeouts_total", 2, container="order")
    series.set("db_client_connection_pending_requests", 20, container="order")
    series.grow("shop_tailer_age_seconds")
    for job in ("relay", "expired-hold reaper", "cart purger"):
        series.count("shop_jobs_failures_total", 0.2, job_name=job)
        series.grow("shop_jobs_age_seconds", job_name=job)
    series.grow("shop_outbox_age_seconds")
    series.grow("shop_reservations_overdue_age_seconds")
    series.set("shop_feed_up", 0)
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="order")
    calls_are_slow(series, "order")
    edge_5xx(series, 3)


def order_database_is_full_and_down(series: Series) -> None:
    series.set("shop_database_writable", 0)
    order_database_is_down(series)


def product_database_is_down(series: Series) -> None:
    series.set("shop_database_up", 0, container="product")
    series.set("shop_server_ready", 0, container="product")
    series.count("db_client_connection_timeouts_total", 2, container="product")
    calls_to_product_fail(series)


def order_database_is_read_only(series: Series) -> None:
    series.set("shop_database_writable", 0)
    series.count("shop_database_errors_total", 0.1, container="order", error="read_only")
    for job in ("relay", "cart purger"):
        series.count("shop_jobs_failures_total", 0.2, job_name=job)
        series.grow("shop_jobs_age_seconds", job_name=job)
    series.grow("shop_outbox_age_seconds")
    series.set("shop_carts_purge_lag_seconds", 10_000)
    edge_5xx(series)


def product_database_is_full(series: Series) -> None:
    series.count("shop_database_errors_total", 0.1, container="product", error="full")
    calls_to_product_fail(series, "DEADLINE_EXCEEDED")


def order_database_is_slow(series: Series) -> None:
    series.count("shop_database_errors_total", 1, pod="order-0", pool="order", error="timeout")
    series.count("db_client_connection_timeouts_total", 1, db_client_connection_pool_name="order")
    series.set("db_client_connection_pending_requests", 40, db_client_connection_pool_name="order")
    calls_are_slow(series, "order")
    edge_5xx(series)


def batches_are_full(series: Series) -> None:
    series.count("shop_batch_refusals_total", 2, batch="order.insert")
    edge_5xx(series)


def searches_queue(series: Series) -> None:
    series.set("db_client_connection_pending_requests", 3, db_client_connection_pool_name="product search")


def product_is_out_of_reach(series: Series) -> None:
    calls_to_product_fail(series)
    calls_are_slow(series, "order")


def product_refuses_the_credential(series: Series) -> None:
    calls_to_product_fail(series, "UNAUTHENTICATED")


def get_order_fails(series: Series) -> None:
    for pod in ("order-0", "order-1"):
        target = {"pod": pod, "container": "order", **ORDER}
        series.begin(SERVER_COUNT, 1, rpc_method=GET_ORDER, rpc_response_status_code="INTERNAL", **target)
    edge_5xx(series)


def all_of_order_fails(series: Series) -> None:
    for pod in ("order-0", "order-1"):
        target = {"pod": pod, "container": "order", **ORDER}
        series.begin(SERVER_COUNT, 8, rpc_method=GET_ORDER, rpc_response_status_code="INTERNAL", **target)
    edge_5xx(series, 2)


def get_order_fails_once(series: Series) -> None:
    target = {"pod": "order-0", "container": "order", **ORDER}
    series.begin(SERVER_COUNT, 1 / 600, rpc_method=GET_ORDER, rpc_response_status_code="INTERNAL", **target)
    series.set(SERVER_COUNT, 1, rpc_method=GET_ORDER, rpc_response_status_code="INTERNAL")


def product_is_slow(series: Series) -> None:
    calls_are_slow(series, "product")
    calls_are_slow(series, "order")


def order_is_slow(series: Series) -> None:
    calls_are_slow(series, "order")


def loop_is_blocked(series: Series) -> None:
    series.set("shop_event_loop_max_lag_seconds", 2, pod="product-0")
    calls_are_slow(series, "product")
    calls_are_slow(series, "order")


def loop_is_blocked_and_calls_fail(series: Series) -> None:
    loop_is_blocked(series)
    series.count("db_client_connection_timeouts_total", 2, pod="product-0", db_client_connection_pool_name="product")


def loop_of_order_is_blocked(series: Series) -> None:
    series.set("shop_event_loop_max_lag_seconds", 2, container="order")
    calls_to_product_fail(series, "DEADLINE_EXCEEDED")
    calls_are_slow(series, "order")


def relay_hangs(series: Series) -> None:
    series.grow("shop_outbox_age_seconds")
    series.grow("shop_jobs_age_seconds", job_name="relay")


def reaper_hangs(series: Series) -> None:
    series.grow("shop_reservations_overdue_age_seconds")
    series.grow("shop_jobs_age_seconds", job_name="expired-hold reaper")


def tailer_hangs(series: Series) -> None:
    series.grow("shop_tailer_age_seconds")
    series.set("shop_server_ready", 0, container="order")
    series.set("shop_feed_up", 0)
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="order")
    edge_5xx(series, 3)


def tailer_of_one_hangs(series: Series) -> None:
    series.grow("shop_tailer_age_seconds", pod="order-0")
    series.set("shop_server_ready", 0, pod="order-0")


def purger_hangs(series: Series) -> None:
    series.set("shop_carts_purge_lag_seconds", 10_000)


def purger_fails(series: Series) -> None:
    series.set("shop_carts_purge_lag_seconds", 10_000, after=13 * 60)  # two hours in truth
    series.count("shop_jobs_failures_total", 1 / 300, job_name="cart purger")
    series.grow("shop_jobs_age_seconds", job_name="cart purger")


def relay_fails(series: Series) -> None:
    relay_hangs(series)
    series.count("shop_jobs_failures_total", 1, job_name="relay")


def reaper_fails(series: Series) -> None:
    reaper_hangs(series)
    series.count("shop_jobs_failures_total", 0.2, job_name="expired-hold reaper")


def issuer_is_gone(series: Series) -> None:
    """Tokens of known keys are accepted."""
    series.stop("shop_access_key_fetches_total", container="order", outcome="ok")
    series.count("shop_access_key_fetches_total", 1 / 60, container="order", outcome="failed")


def issuer_is_out_of_reach_of_product(series: Series) -> None:
    series.stop("shop_access_key_fetches_total", container="product", outcome="ok")
    series.count("shop_access_key_fetches_total", 1 / 60, container="product", outcome="failed")


def feed_is_lost(series: Series) -> None:
    series.set("shop_feed_up", 0, pod="gateway-1")


def feed_is_lost_without_streams(series: Series) -> None:
    """Order is asked who may follow, too. So there are no streams, and nothing to hear.

    Envoy makes an empty stream of each 503 to a browser.
    """
    series.count("shop_streams_opened_total", 1, pod="gateway-1", outcome="UNAVAILABLE")
    series.stop("shop_streams_opened_total", pod="gateway-1", outcome="opened")


def streams_are_many(series: Series) -> None:
    series.set("shop_streams", 4_800, pod="gateway-1")


def watchers_are_many(series: Series) -> None:
    series.set("shop_watchers", 950, pod="order-0")


def edge_cannot_connect(series: Series) -> None:
    series.count("envoy_cluster_upstream_cx_connect_fail", 2, envoy_cluster_name="order")
    edge_5xx(series, 3)


def edge_cannot_connect_to_the_sidecar(series: Series) -> None:
    series.count("envoy_cluster_upstream_cx_connect_fail", 2, envoy_cluster_name="sse")


def edge_finds_nobody_healthy(series: Series) -> None:
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="order", pod="gateway-0")


def edge_finds_no_order_and_all_fails(series: Series) -> None:
    series.set("envoy_cluster_membership_healthy", 0, envoy_cluster_name="order")
    series.count("envoy_cluster_upstream_cx_none_healthy", 3, envoy_cluster_name="order")
    series.stop("envoy_http_downstream_rq_xx", envoy_response_code_class="2")
    edge_5xx(series, 3)


def edge_fails_by_itself(series: Series) -> None:
    edge_5xx(series)


def edge_has_no_memory(series: Series) -> None:
    series.set("envoy_overload_envoy_resource_monitors_fixed_heap_pressure", 93, pod="gateway-0")
    edge_5xx(series, 3, pod="gateway-0")


def edge_has_no_connections(series: Series) -> None:
    series.set("envoy_overload_envoy_resource_monitors_global_downstream_max_connections_pressure", 97, pod="gateway-1")


def caller_floods(series: Series) -> None:
    series.count("envoy_http_local_rate_limit_rate_limited", 50, pod="gateway-0")
    series.count("envoy_http_downstream_rq_xx", 50, envoy_response_code_class="4", pod="gateway-0")


def certificate_expires(series: Series) -> None:
    series.set("envoy_server_days_until_first_cert_expiring", 5)


FAULTS = (
    Fault("ShopComponentDown", "product", product_is_gone),
    Fault("ShopComponentDown", "product-no-pods", product_has_no_pods),
    Fault("ShopComponentDown", "order", order_is_gone),
    Fault("ShopComponentDown", "envoy", envoy_is_gone),
    Fault("ShopComponentDown", "sidecar", sidecar_is_gone),
    Fault("ShopTargetDown", "order", one_replica_is_gone),
    Fault("ShopTargetDown", "sidecar", one_sidecar_is_gone),
    Fault("ShopRestarting", "order", order_restarts),
    Fault("ShopRestarting", "envoy", envoy_restarts),
    Fault("ShopRestarting", "order-pauses", order_restarts_after_pauses),
    Fault("ShopRestarting", "envoy-pauses", envoy_restarts_after_pauses),
    Fault("ShopNotReady", "product", product_is_not_ready),
    Fault("ShopReplicaNotReady", "order", one_order_is_not_ready),
    Fault("ShopReplicaNotReady", "no-database", one_order_has_no_database),
    Fault("ShopEventLoopBlocked", "slow", loop_is_blocked, severity="warning"),
    Fault("ShopEventLoopBlocked", "product", loop_is_blocked_and_calls_fail, severity="critical"),
    Fault("ShopEventLoopBlocked", "order", loop_of_order_is_blocked, severity="critical"),
    Fault("ShopDatabaseDown", "order", order_database_is_down),
    Fault("ShopDatabaseDown", "order-full", order_database_is_full_and_down),
    Fault("ShopDatabaseDown", "product", product_database_is_down),
    Fault("ShopDatabaseReadOnly", "order", order_database_is_read_only),
    Fault("ShopDatabaseReadOnly", "product-full", product_database_is_full),
    Fault("ShopDatabaseSaturated", "order", order_database_is_slow, severity="critical"),
    Fault("ShopDatabaseSaturated", "batches", batches_are_full, severity="critical"),
    Fault("ShopDatabaseSaturated", "searches", searches_queue, severity="warning"),
    Fault("ShopProductUnreachable", "network", product_is_out_of_reach),
    Fault("ShopProductUnreachable", "credential", product_refuses_the_credential),
    Fault("ShopErrors", "order", get_order_fails, blip="ShopBug"),
    Fault("ShopErrors", "order-all", all_of_order_fails),
    Fault("ShopBug", "order", get_order_fails_once, blip="ShopBug"),
    Fault("ShopSlow", "product", product_is_slow),
    Fault("ShopSlow", "order", order_is_slow),
    Fault("ShopOutboxStuck", "relay", relay_hangs),
    Fault("ShopHoldsOverdue", "reaper", reaper_hangs),
    Fault("ShopTailerStalled", "all", tailer_hangs),
    Fault("ShopTailerStalled", "one", tailer_of_one_hangs),
    Fault("ShopCartsNotPurged", "purger", purger_hangs),
    Fault("ShopJobFailing", "purger", purger_fails),
    Fault("ShopJobFailing", "relay", relay_fails),
    Fault("ShopJobFailing", "reaper", reaper_fails),
    Fault("ShopSigningKeysStale", "order", issuer_is_gone),
    Fault("ShopSigningKeysStale", "product", issuer_is_out_of_reach_of_product),
    Fault("ShopFeedDown", "one", feed_is_lost),
    Fault("ShopFeedDown", "no-streams", feed_is_lost_without_streams),
    Fault("ShopStreamsNearLimit", "sidecar", streams_are_many),
    Fault("ShopStreamsNearLimit", "order", watchers_are_many),
    Fault("ShopEdgeErrors", "connect", edge_cannot_connect, severity="critical"),
    Fault("ShopEdgeErrors", "sidecar", edge_cannot_connect_to_the_sidecar, severity="warning"),
    Fault("ShopEdgeErrors", "health", edge_finds_nobody_healthy, severity="critical"),
    Fault("ShopEdgeErrors", "all", edge_finds_no_order_and_all_fails, severity="critical"),
    Fault("ShopEdgeErrors", "own", edge_fails_by_itself, severity="critical"),
    Fault("ShopEdgeOverloaded", "memory", edge_has_no_memory),
    Fault("ShopEdgeOverloaded", "connections", edge_has_no_connections),
    Fault("ShopRateLimited", "flood", caller_floods),
    Fault("ShopCertificateExpiring", "edge", certificate_expires),
)
