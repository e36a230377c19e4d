"""The dashboard of the shop: what customers do, and what they get."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from helm.dashboards.panels import board, graph, number


def shop() -> Dashboard:
    """Returns the dashboard."""
    return board(
        "shopping-cart-shop",
        "Shopping cart: the shop",
        "Orders, carts, stock and live streams. The dashboard of the shop's health has the machinery behind them.",
        [
            (
                "Now",
                [
                    number(
                        "Orders, last hour",
                        "Orders placed in the last hour.",
                        "short",
                        ('sum(increase(shop_orders_transitions_total{@,status="PLACED"}[1h]))', ""),
                    ),
                    number(
                        "Value, last hour",
                        "Totals of the orders placed in the last hour, by currency. Cancelled orders are included.",
                        "short",
                        ("sum by (currency) (increase(shop_orders_value_total{@}[1h]))", "{{currency}}"),
                    ),
                    number(
                        "Checkouts that failed",
                        "The share of checkouts in the last hour from which no order came.",
                        "percentunit",
                        (
                            '1 - sum(increase(shop_checkouts_total{@,outcome=~"ordered|repeated"}[1h]))'
                            " / sum(increase(shop_checkouts_total{@}[1h]))",
                            "",
                        ),
                        worry=0.2,
                    ),
                    number(
                        "Stock-outs, last hour",
                        "Reservations refused in the last hour, because too little stock was left.",
                        "short",
                        ("sum(increase(shop_stock_outs_total{@}[1h]))", ""),
                    ),
                    number(
                        "Event streams",
                        "Browsers that follow an order now, of all pods of the gateway.",
                        "short",
                        ("sum(shop_streams{@})", ""),
                    ),
                    number(
                        "Watchers",
                        "Native StreamOrderStatus calls that follow an order now, of all pods of order.",
                        "short",
                        ("sum(shop_watchers{@})", ""),
                    ),
                ],
            ),
            (
                "Orders",
                [
                    graph(
                        "Orders a minute, by new status",
                        "How many orders get each status. PLACED are the new ones.",
                        "opm",
                        ("60 * sum by (status) (rate(shop_orders_transitions_total{@}[~]))", "{{status}}"),
                    ),
                    graph(
                        "Value an hour",
                        "Totals of the orders placed, in units of their currency.",
                        "short",
                        ("3600 * sum by (currency) (rate(shop_orders_value_total{@}[~]))", "{{currency}}"),
                    ),
                    graph(
                        "Changes refused a minute",
                        "Changes of an order's status that the shop refused, by reason.",
                        "opm",
                        ("60 * sum by (reason) (rate(shop_orders_refusals_total{@}[~]))", "{{reason}}"),
                    ),
                ],
            ),
            (
                "Carts and checkouts",
                [
                    graph(
                        "Checkouts a minute, by outcome",
                        "Attempts to place an order, from a cart or directly. The reasons are those of docs/api.md.",
                        "opm",
                        ("60 * sum by (outcome) (rate(shop_checkouts_total{@}[~]))", "{{outcome}}"),
                        stacked=True,
                    ),
                    graph(
                        "Changes of carts a minute",
                        "By operation. An addition that a client repeats is counted once.",
                        "opm",
                        ("60 * sum by (operation) (rate(shop_carts_changes_total{@}[~]))", "{{operation}}"),
                        stacked=True,
                    ),
                    graph(
                        "Carts that expired, a minute",
                        "Carts whose time was over and which were deleted.",
                        "opm",
                        ("60 * sum(rate(shop_carts_expired_total{@}[~]))", "deleted"),
                    ),
                ],
            ),
            (
                "Stock",
                [
                    graph(
                        "Reservations a minute, by result",
                        "What became of reservations of stock.",
                        "opm",
                        ("60 * sum by (result) (rate(shop_stock_reservations_total{@}[~]))", "{{result}}"),
                        width=12,
                    ),
                    graph(
                        "Stock-outs a minute",
                        "Reservations that were refused because too little stock is left. Many: a product is sold out.",
                        "opm",
                        ("60 * sum(rate(shop_stock_outs_total{@}[~]))", "refused"),
                        width=12,
                    ),
                ],
            ),
            (
                "Live status",
                [
                    graph(
                        "Event streams and watchers",
                        "Who follows an order: browsers (event streams), and native clients (watchers).",
                        "short",
                        ("sum(shop_streams{@})", "event streams"),
                        ("sum(shop_watchers{@})", "watchers"),
                        width=6,
                    ),
                    graph(
                        "Streams opened a second",
                        "Requests for an event stream, by what became of them.",
                        "ops",
                        ("sum by (outcome) (rate(shop_streams_opened_total{@}[~]))", "{{outcome}}"),
                        width=6,
                    ),
                    graph(
                        "Streams closed a second",
                        "Event streams that ended, by reason.",
                        "ops",
                        ("sum by (reason) (rate(shop_streams_closed_total{@}[~]))", "{{reason}}"),
                        width=6,
                    ),
                    graph(
                        "Events a second",
                        "Statuses that order read from its log, and that the sidecars wrote to browsers.",
                        "ops",
                        ("sum(rate(shop_tailer_events_total{@}[~]))", "read by order"),
                        ("sum(rate(shop_stream_events_total{@}[~]))", "written to browsers"),
                        width=6,
                    ),
                ],
            ),
        ],
    )
