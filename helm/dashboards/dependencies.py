"""The parts of the dashboard of health that are about what calls depend on."""

from collections.abc import Sequence

from helm.dashboards.panels import Panel, graph


def databases() -> Sequence[Panel]:
    """Returns the panels of pools and statements."""
    return [
        graph(
            "Connections in use",
            "The share of each pool that is in use. At 100 % calls wait.",
            "percentunit",
            (
                "sum by (db_client_connection_pool_name)"
                ' (db_client_connection_count{@,db_client_connection_state="used"})'
                " / sum by (db_client_connection_pool_name) (db_client_connection_max{@})",
                "{{db_client_connection_pool_name}}",
            ),
            top=1,
        ),
        graph(
            "Calls that wait for a connection",
            "A queue that never ends means that statements take too long, or that there are too few connections.",
            "short",
            (
                "sum by (db_client_connection_pool_name) (db_client_connection_pending_requests{@})",
                "{{db_client_connection_pool_name}}",
            ),
        ),
        graph(
            "Wait for a connection",
            "The 99th percentile, of those calls that had to wait.",
            "s",
            (
                "histogram_quantile(0.99, sum by (db_client_connection_pool_name, le)"
                " (rate(db_client_connection_wait_time_seconds_bucket{@}[~])))",
                "{{db_client_connection_pool_name}}",
            ),
        ),
        graph(
            "Calls that wait in batches",
            "Order joins statements of calls that arrive together. Beyond a batch's limit, calls are refused.",
            "short",
            ("sum by (batch) (shop_batch_waiting{@})", "{{batch}}"),
            ("sum by (batch) (increase(shop_batch_refusals_total{@}[~])) > 0", "{{batch}} refused"),
            width=24,
        ),
        graph(
            "Statements that take the time",
            "Seconds of a connection in each second, by statement. The sum is the number of connections in use.",
            "short",
            (
                "topk(10, sum by (pool, statement) (rate(shop_database_statement_time_seconds_total{@}[~])))",
                "{{pool}}: {{statement}}",
            ),
            stacked=True,
        ),
        graph(
            "Mean time of a statement",
            "By statement. The slowest ten.",
            "s",
            (
                "topk(10, sum by (pool, statement) (rate(shop_database_statement_time_seconds_total{@}[~]))"
                " / sum by (pool, statement) (rate(shop_database_statements_total{@}[~])))",
                "{{pool}}: {{statement}}",
            ),
        ),
        graph(
            "Errors of databases",
            "Statements that failed by kind, and calls that got no connection in time.",
            "ops",
            ("sum by (pool, error) (rate(shop_database_errors_total{@}[~])) > 0", "{{pool}}: {{error}}"),
            (
                "sum by (db_client_connection_pool_name) (rate(db_client_connection_timeouts_total{@}[~])) > 0",
                "{{db_client_connection_pool_name}}: no connection",
            ),
        ),
        graph(
            "Databases that work",
            "1: at least one replica can use it, and it accepts writes. 0: none can.",
            "short",
            ("max by (app_kubernetes_io_component, pool) (shop_database_up{@})", "{{pool}} responds"),
            ("min by (app_kubernetes_io_component, pool) (shop_database_writable{@})", "{{pool}} accepts writes"),
            width=24,
            top=1,
        ),
    ]


def background() -> Sequence[Panel]:
    """Returns the panels of background work."""
    return [
        graph(
            "Outbox",
            "Messages to product that wait. They leave within seconds; each replica reports the same number.",
            "short",
            ("max(shop_outbox_messages{@})", "messages"),
            ("max(shop_reservations_overdue{@})", "overdue holds"),
        ),
        graph(
            "Lag of background work",
            "How far behind each part is.",
            "s",
            ("max(shop_outbox_age_seconds{@})", "oldest message in the outbox"),
            ("max(shop_reservations_overdue_age_seconds{@})", "most overdue hold"),
            ("max by (pod) (shop_tailer_age_seconds{@})", "tailer of {{pod}}"),
        ),
        graph(
            "Lag of the cart purger",
            "How long the oldest expired cart has waited for its deletion. Minutes are normal.",
            "s",
            ("max(shop_carts_purge_lag_seconds{@})", "oldest expired cart"),
        ),
        graph(
            "Messages sent",
            "What the relay tells product, and what fails.",
            "ops",
            ("sum by (action) (rate(shop_outbox_sent_total{@}[~]))", "{{action}}"),
            ("sum by (action) (rate(shop_outbox_failures_total{@}[~]))", "{{action}} failed"),
        ),
        graph(
            "Expired holds settled",
            "Holds whose order was never written, because its process crashed.",
            "ops",
            ("sum by (outcome) (rate(shop_holds_settled_total{@}[~]))", "{{outcome}}"),
        ),
        graph(
            "Failures of jobs",
            "Steps of background work that failed.",
            "ops",
            ("sum by (job_name) (rate(shop_jobs_failures_total{@}[~]))", "{{job_name}}"),
        ),
    ]


def edge() -> Sequence[Panel]:
    """Returns the panels of Envoy."""
    public = '{@,envoy_http_conn_manager_prefix="edge"}'
    return [
        graph(
            "Requests by class",
            "Responses of the edge by class of their status. gRPC errors of native clients count as 2xx.",
            "reqps",
            (
                f"sum by (envoy_response_code_class) (rate(envoy_http_downstream_rq_xx{public}[~]))",
                "{{envoy_response_code_class}}xx",
            ),
            ("sum(rate(envoy_http_local_rate_limit_rate_limited{@}[~]))", "429, over the limit"),
        ),
        graph(
            "Duration at the edge",
            "With all that is behind it. Streams count when they end.",
            "ms",
            *(
                (
                    f"histogram_quantile({share}, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{public}[~])))",
                    name,
                )
                for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
        ),
        graph(
            "Failures between Envoy and the services",
            "Connections that failed, no healthy replica, too many waiting requests, timeouts.",
            "ops",
            *(
                (
                    f"sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_{name}{{@}}[~])) > 0",
                    f"{{{{envoy_cluster_name}}}}: {legend}",
                )
                for name, legend in (
                    ("cx_connect_fail", "cannot connect"),
                    ("cx_none_healthy", "none healthy"),
                    ("rq_pending_overflow", "too many wait"),
                    ("rq_timeout", "timeout"),
                )
            ),
        ),
        graph(
            "Connections and requests",
            "Open at the edge. A live stream is one request that lasts.",
            "short",
            ("sum(envoy_http_downstream_cx_active" + public + ")", "connections"),
            ("sum(envoy_http_downstream_rq_active" + public + ")", "requests"),
        ),
        graph(
            "Healthy replicas, as Envoy sees them",
            "The fewest of all pods of the gateway.",
            "short",
            (
                'min by (envoy_cluster_name) (envoy_cluster_membership_healthy{@,envoy_cluster_name=~"product|order"})',
                "{{envoy_cluster_name}}",
            ),
        ),
        graph(
            "Use of Envoy's limits",
            "In percent. From 60 % of the heap on, Envoy resets the largest streams.",
            "percent",
            ("max by (pod) (envoy_overload_envoy_resource_monitors_fixed_heap_pressure{@})", "heap of {{pod}}"),
            (
                "max by (pod) (envoy_overload_envoy_resource_monitors_global_downstream_max_connections_pressure{@})",
                "connections of {{pod}}",
            ),
            top=100,
        ),
    ]
