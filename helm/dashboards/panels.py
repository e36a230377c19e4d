"""Panels of the dashboards, all in one style."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

SHOP = 'namespace="$namespace",app_kubernetes_io_instance="$release"'
"""The matchers of the release that is shown."""
RATE = "$__rate_interval"
"""The window of a rate: Grafana makes it at least four scrapes long."""
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

WIDTH = 24
HEIGHT = 8
STAT_HEIGHT = 4

Query = tuple[str, str]
"""An expression, and the legend of its series. In the expression, `@` stands for the matchers of the release, and `[~]`
for the window of a rate."""


def expression(text: str) -> str:
    """Returns an expression with the matchers of the release and the windows of rates in it."""
    return text.replace("@", SHOP).replace("[~]", f"[{RATE}]")


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    found: list[prometheus.Dataquery] = []
    for number, (text, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression(text)).legend_format(legend).ref_id(chr(ord("A") + number))
        found.append(query.instant() if instant else query.range())
    return found


def graph(
    title: str, description: str, unit: str, *queries: Query, width: int = 8, stacked: bool = False, top: float = 0
) -> timeseries.Panel:
    """Returns a graph over time.

    Args:
        title: What is shown.
        description: What it means, and when to worry.
        unit: Grafana's name of the unit.
        queries: The lines.
        width: Of 24 columns.
        stacked: Whether the lines add up to something.
        top: The value that the graph shows at least, so that small changes look small.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(HEIGHT)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .targets([*_targets(queries)])
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    return panel.axis_soft_max(top) if top else panel


def number(
    title: str, description: str, unit: str, query: Query, *, width: int = 4, worry: float | None = None
) -> stat.Panel:
    """Returns a panel with the present value.

    Args:
        title: What is shown.
        description: What it means.
        unit: Grafana's name of the unit.
        query: One query. Each of its series is a number.
        width: Of 24 columns.
        worry: The value from which on it is red.
    """
    steps = [models.Threshold(value=None, color="green" if worry is not None else "text")]
    if worry is not None:
        steps.append(models.Threshold(value=worry, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(STAT_HEIGHT)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets([*_targets([query])])
    )


Panel = timeseries.Panel | stat.Panel


def board(uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> models.Dashboard:
    """Returns a dashboard with variables for the data source, the namespace and the release.

    Args:
        uid: Its id, which is part of its address.
        title: Its name.
        description: What it is for.
        rows: Their titles and panels.
    """
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["shopping-cart"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Dashboards of the shop")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["shopping-cart"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("namespace", "Namespace", "label_values(shop_server_ready, namespace)"))
        .with_variable(
            _choice(
                "release",
                "Release",
                'label_values(shop_server_ready{namespace="$namespace"}, app_kubernetes_io_instance)',
            )
        )
    )
    for row, panels in rows:
        made = made.with_row(dashboard.Row(row))
        for panel in panels:
            made = made.with_panel(panel)
    built = made.build()
    for position, panel in enumerate(built.panels or [], 1):
        panel.id_val = position
    return built


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
