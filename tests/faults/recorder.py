"""Reads the metrics of every process of a shop again and again, as Prometheus does."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

SCRAPE_TIMEOUT = 3.0
"""Seconds that a scrape may take. It counts for the time of its start."""

NAMESPACE, RELEASE = "NAMESPACE", "RELEASE"
"""The words that the chart replaces in its rules."""

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
"""The name of a metric, and its labels."""


@dataclass(frozen=True)
class Target:
    """A process that is scraped."""

    component: str
    """Its component in the chart, as in `order`."""
    pod: str
    port: int
    path: str = "/metrics"
    container: str = ""
    """Its container in the pod, if that has another name than the component."""

    def labels(self) -> dict[str, str]:
        """The labels that Prometheus adds on a cluster, by the chart's PodMonitor."""
        return {
            "namespace": NAMESPACE,
            "job": "shop/shop",
            "pod": self.pod,
            "container": self.container or self.component,
            "instance": f"127.0.0.1:{self.port}",
            "app_kubernetes_io_instance": RELEASE,
            "app_kubernetes_io_component": self.component,
        }


@dataclass(frozen=True)
class Pace:
    """How time passes for the rules."""

    interval: float
    """Seconds between two scrapes."""
    stretch: int
    """How many seconds of the rules' time each second is."""
    tailer: int
    """The same for the age of the tailer's last read. It reads all the time, and a read takes as long as it takes."""

    @property
    def step(self) -> int:
        """Seconds of the rules' time between two scrapes."""
        return round(self.interval * self.stretch)


@dataclass
class Recording:
    """What the scrapes saw."""

    pace: Pace
    scrapes: dict[Target, dict[int, str]] = field(default_factory=dict)
    """The text of each scrape that succeeded, by its number. Numbers begin with 0, one for each interval."""
    ticks: int = 0
    """How many scrapes there were of each target."""

    def series(self, names: Iterable[str]) -> dict[Series, dict[int, float]]:
        """Returns the samples of metrics with these names, and `up`, by the number of the scrape."""
        wanted = set(names)
        found: dict[Series, dict[int, float]] = {}
        for target, texts in self.scrapes.items():
            own = target.labels()
            for tick in range(self.ticks):
                found.setdefault(_series("up", own), {})[tick] = float(tick in texts)
                for name, labels, value in _samples(texts.get(tick, ""), wanted):
                    found.setdefault(_series(name, {**labels, **own}), {})[tick] = value
        return found


class Recorder:
    """Scrapes targets until the end of a block. Some may be down."""

    def __init__(self, targets: Iterable[Target], pace: Pace) -> None:
        self.recording = Recording(pace, {target: {} for target in targets})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Recorder"]:
        async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT) as http:
            done = asyncio.Event()
            task = asyncio.create_task(self._run(http, done))
            try:
                yield self
            finally:
                done.set()
                await task

    async def _run(self, http: httpx.AsyncClient, done: asyncio.Event) -> None:
        start, interval = asyncio.get_running_loop().time(), self.recording.pace.interval
        async with asyncio.TaskGroup() as scrapes:
            while not done.is_set():
                for target in self.recording.scrapes:
                    scrapes.create_task(self._scrape(http, target, self.recording.ticks))
                self.recording.ticks += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(start + self.recording.ticks * interval):
                        await done.wait()

    async def _scrape(self, http: httpx.AsyncClient, target: Target, tick: int) -> None:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(SCRAPE_TIMEOUT):
                response = await http.get(f"http://127.0.0.1:{target.port}{target.path}")
                self.recording.scrapes[target][tick] = response.raise_for_status().text


def _samples(text: str, wanted: set[str]) -> Iterator[tuple[str, Mapping[str, str], float]]:
    # To parse everything would take minutes: Envoy has thousands of lines.
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in wanted]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _series(name: str, labels: Mapping[str, str]) -> Series:
    return name, tuple(sorted(labels.items()))
