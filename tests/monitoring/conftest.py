"""What the tests of alerts need before the first of them begins."""

from tests.chart.tools import build_promtool


def pytest_configure() -> None:
    build_promtool()
