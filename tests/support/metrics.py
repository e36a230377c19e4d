"""What a process says on its port for Prometheus."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
from opentelemetry.sdk.resources import Resource
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.config import Env
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Scrape:
    """One reading of `/metrics`."""

    families: list[Metric]

    @classmethod
    def of(cls, text: str) -> "Scrape":
        # The parser would give all counters OpenMetrics' suffix. Prometheus leaves Envoy's names as they are.
        counters = set(re.findall("^# TYPE (.*) counter$", text, re.MULTILINE))
        families = list(text_string_to_metric_families(re.sub("(?m)^(# TYPE .*) counter$", r"\1 untyped", text)))
        for family in families:
            if family.name in counters:
                family.type = "counter"
        return cls(families)

    @property
    def names(self) -> set[str]:
        """The names of all samples, as in a PromQL query."""
        return {sample.name for family in self.families for sample in family.samples}

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of the samples of this name that have these labels."""
        wanted = labels.items()
        samples: Iterable[object] = (sample for family in self.families for sample in family.samples)
        return [each.value for each in samples if each.name == name and wanted <= each.labels.items()]  # type: ignore[attr-defined]  # Metric.samples has no type

    def value(self, name: str, **labels: str) -> float:
        """The sum of those values; 0 if there are none."""
        return sum(self.values(name, **labels))


def measuring() -> Metrics:
    """Metrics that a test reads itself, without a port."""
    return Metrics(TelemetryConfig.from_env(Env({"METRICS_PORT": "1"})), Resource.get_empty())


def read(metrics: Metrics) -> Scrape:
    """What Prometheus would read."""
    return Scrape.of(generate_latest(metrics.registry).decode())


async def scrape(port: int) -> Scrape:
    """Reads the metrics of the process that has this METRICS_PORT."""
    async with httpx.AsyncClient(timeout=10) as http:
        return Scrape.of((await http.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text)


async def scrape_envoy(port: int) -> Scrape:
    """Reads Envoy's statistics from its port for metrics."""
    async with httpx.AsyncClient(timeout=10) as http:
        return Scrape.of((await http.get(f"http://127.0.0.1:{port}/stats/prometheus")).raise_for_status().text)
