"""Traffic for a release from a pod of its own in the cluster, where a Service spreads new connections over all pods."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chart import tools
from tests.support.kube import eventually
from tests.support.release import Release

PODS = Path(__file__).parents[1] / "cluster" / "pods"
CHECKS = tools.CHART / "files" / "tests"


@dataclass
class Outcome:
    """What tests/cluster/pods/traffic.py prints at its end."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    watched: int = 0
    wrong: list[str] = field(default_factory=list)
    connections: int = 0

    def summary(self) -> str:
        return (
            f"{self.calls} calls, {len(self.failures)} failed; {self.watched} orders watched over {self.connections}"
            f" streams, {len(self.wrong)} wrongly"
            + "".join(f"\n  {each}" for each in (self.failures[:5] + self.failures[-5:] + self.wrong[:5]))
        )


@contextmanager
def traffic(
    release: Release, *, readers: int = 2, writers: int = 2, watchers: int = 10, pause: float = 0.1
) -> Iterator[Outcome]:
    """Runs traffic during the block. Before it, every kind of call has succeeded once; after it, the outcome is set."""
    namespace, name = release.namespace, f"{release.name}-traffic"
    files = {each.name: each.read_text() for each in (PODS / "traffic.py", CHECKS / "edge.py", CHECKS / "watch.py")}
    command = ["python", "/files/traffic.py", *(str(each) for each in (readers, writers, watchers, pause))]
    outcome = Outcome()
    namespace.pod(name, release.image, command, files=files, env={"EDGE": release.edge, "TIMEOUT": "30"})
    try:
        eventually(lambda: "ready" in namespace.logs(name), 90, "the traffic flows")
        yield outcome
        namespace.execute(name, "touch", "/tmp/stop")
        output = namespace.ended(name, 120)
        vars(outcome).update(json.loads(output.splitlines()[-1]))
    finally:
        namespace.remove(name)
