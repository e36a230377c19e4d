"""The dashboard of the shop's health: rates, errors and durations, and how much room is left."""

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from helm.dashboards import dependencies
from helm.dashboards.panels import Panel, board, graph, number

_OWN = 'rpc_method!~"grpc[.].*"'
CALLS = f"rate(rpc_server_call_duration_seconds_count{{@,{_OWN}}}[~])"
BUCKETS = f"rate(rpc_server_call_duration_seconds_bucket{{@,{_OWN}}}[~])"
ERRORS = f'rate(rpc_server_call_duration_seconds_count{{@,{_OWN},rpc_response_status_code!="OK"}}[~])'
_OUR_FAULT = "INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"
FAULTS = f'rate(rpc_server_call_duration_seconds_count{{@,{_OWN},rpc_response_status_code=~"{_OUR_FAULT}"}}[~])'


def health() -> Dashboard:
    """Returns the dashboard."""
    return board(
        "shopping-cart-health",
        "Shopping cart: health",
        "What people look at when an alert fires. docs/runbook.md says what to do.",
        [
            ("Now", _now()),
            ("Calls", _calls()),
            ("Databases", dependencies.databases()),
            ("Background work", dependencies.background()),
            ("Edge", dependencies.edge()),
            ("Processes", _processes()),
            ("Access", _access()),
        ],
    )


def _now() -> Sequence[Panel]:
    return [
        number(
            "Causes",
            "Faults that the alerts know and that are present now, also those that have not lasted long enough.",
            "short",
            ("count(shop:cause{@}) or vector(0)", ""),
            worry=1,
        ),
        number(
            "Ready",
            "Processes that are ready.",
            "short",
            ("sum by (app_kubernetes_io_component) (shop_server_ready{@})", "{{app_kubernetes_io_component}}"),
        ),
        number(
            "Calls a second",
            "RPCs that product and order serve.",
            "ops",
            (f"sum({CALLS})", ""),
        ),
        number(
            "Errors",
            "The share of calls that end with an error that is the shop's own fault.",
            "percentunit",
            (f"sum({FAULTS}) / sum({CALLS})", ""),
            worry=0.01,
        ),
        number(
            "Slowest in a hundred",
            "The 99th percentile of the duration of calls.",
            "s",
            (f"histogram_quantile(0.99, sum by (le) ({BUCKETS}))", ""),
            worry=1,
        ),
        number(
            "Requests a second",
            "Requests at the edge, pages and files included.",
            "reqps",
            ('sum(rate(envoy_http_downstream_rq_total{@,envoy_http_conn_manager_prefix="edge"}[~]))', ""),
        ),
        graph(
            "Causes over time",
            "The series of the rule shop:cause. An alert fires when one lasts. Empty without the chart's rules.",
            "short",
            (
                "count by (app_kubernetes_io_component, cause) (shop:cause{@})",
                "{{app_kubernetes_io_component}}: {{cause}}",
            ),
            width=24,
            stacked=True,
        ),
    ]


def _calls() -> Sequence[Panel]:
    return [
        graph(
            "Calls by method",
            "RPCs that have ended, by method. Streams that last are not among them.",
            "ops",
            (f"topk(10, sum by (rpc_method) ({CALLS}))", "{{rpc_method}}"),
            width=12,
        ),
        graph(
            "Duration by method",
            "The 99th percentile by method.",
            "s",
            (
                f"topk(10, histogram_quantile(0.99, sum by (rpc_method, le) ({BUCKETS})))",
                "{{rpc_method}}",
            ),
            width=12,
        ),
        graph(
            "Errors by code",
            "Calls that did not end with OK. INTERNAL is a bug. NOT_FOUND and the like are the clients' own.",
            "ops",
            (
                f"sum by (app_kubernetes_io_component, rpc_response_status_code) ({ERRORS})",
                "{{app_kubernetes_io_component}} {{rpc_response_status_code}}",
            ),
        ),
        graph(
            "Durations",
            "The median, and the 95th and 99th percentile.",
            "s",
            *(
                (
                    f"histogram_quantile({share}, sum by (app_kubernetes_io_component, le) ({BUCKETS}))",
                    f"{{{{app_kubernetes_io_component}}}} {name}",
                )
                for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
        ),
        graph(
            "Order's calls to product",
            "Calls that order makes, by code. If they fail, no order is accepted.",
            "ops",
            (
                "sum by (rpc_response_status_code) (rate(rpc_client_call_duration_seconds_count{@}[~]))",
                "{{rpc_response_status_code}}",
            ),
        ),
        graph(
            "Duration of order's calls to product",
            "The 99th percentile by method, as order sees it.",
            "s",
            (
                "histogram_quantile(0.99, sum by (rpc_method, le)"
                " (rate(rpc_client_call_duration_seconds_bucket{@}[~])))",
                "{{rpc_method}}",
            ),
            width=12,
        ),
        graph(
            "Calls being served",
            "Streams included.",
            "short",
            (
                "sum by (app_kubernetes_io_component) (shop_rpc_server_active_calls{@})",
                "{{app_kubernetes_io_component}}",
            ),
            width=12,
        ),
    ]


def _processes() -> Sequence[Panel]:
    return [
        graph(
            "Event loop: longest block",
            "How long a process could serve no call, at the most. Above 0.5 s an alert fires.",
            "s",
            ("max by (pod) (shop_event_loop_max_lag_seconds{@})", "{{pod}}"),
        ),
        graph(
            "Event loop: lag",
            "The 99th percentile of how late the event loop wakes.",
            "s",
            (
                "histogram_quantile(0.99, sum by (pod, le) (rate(shop_event_loop_lag_seconds_bucket{@}[~])))",
                "{{pod}}",
            ),
        ),
        graph(
            "CPU",
            "Processors in use. A process of product, order or the sidecar can use one.",
            "short",
            ("sum by (pod, container) (rate(process_cpu_time_seconds_total{@}[~]))", "{{pod}} {{container}}"),
            top=1,
        ),
        graph(
            "Memory",
            "Resident memory; for Envoy, its heap.",
            "bytes",
            ("process_memory_usage_bytes{@}", "{{pod}} {{container}}"),
            ("envoy_server_memory_heap_size{@}", "{{pod}} envoy"),
        ),
        graph(
            "Open files",
            "Each connection is one.",
            "short",
            ("process_open_file_descriptor_count{@}", "{{pod}} {{container}}"),
        ),
        graph(
            "Age",
            "Time since each process started. It falls to 0 when one restarts.",
            "s",
            ("process_uptime_seconds{@}", "{{pod}} {{container}}"),
            ("envoy_server_uptime{@}", "{{pod}} envoy"),
        ),
        graph(
            "Streams, of their limit",
            "Beyond 100 % new streams are refused.",
            "percentunit",
            ("shop_streams{@} / (shop_streams_max{@} > 0)", "event streams of {{pod}}"),
            ("shop_watchers{@} / (shop_watchers_max{@} > 0)", "watchers of {{pod}}"),
            width=12,
            top=1,
        ),
        graph(
            "Feeds",
            "Connections from the sidecars to order, and sidecars whose feed works.",
            "short",
            ("sum(shop_feed_connections{@})", "connections at order"),
            ("sum(shop_feed_up{@})", "sidecars with a feed"),
            width=12,
        ),
    ]


def _access() -> Sequence[Panel]:
    return [
        graph(
            "Calls that were not admitted",
            "By reason.",
            "ops",
            ("sum by (reason) (rate(shop_access_refusals_total{@}[~]))", "{{reason}}"),
        ),
        graph(
            "Age of the issuer's keys",
            "Time since they were fetched last. Absent if no keys are fetched.",
            "s",
            (
                "max by (app_kubernetes_io_component) (shop_access_keys_age_seconds{@})",
                "{{app_kubernetes_io_component}}",
            ),
        ),
        graph(
            "Fetches of keys",
            "By outcome.",
            "ops",
            ("sum by (outcome) (rate(shop_access_key_fetches_total{@}[~]))", "{{outcome}}"),
        ),
    ]
