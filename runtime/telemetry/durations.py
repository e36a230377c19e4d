"""How long RPCs take, by method and code: those that a process serves, and those that it makes."""

from runtime.telemetry.histogram import Description, Histogram
from runtime.telemetry.metrics import BOUNDS, Metrics
from runtime.telemetry.spans import SYSTEM


def call_durations(metrics: Metrics | None, name: str, description: str) -> Histogram:
    """Returns the histogram of the durations of RPCs. Its labels are the full name of a method and the name of a code.

    Args:
        metrics: Where it is registered; None: nowhere.
        name: The metric's name.
        description: What is measured.
    """
    labels = ("rpc.method", "rpc.response.status_code")
    if metrics is None:
        return Histogram(Description(name, description, labels, SYSTEM), BOUNDS)
    return metrics.histogram(name, description, BOUNDS, labels=labels, constant=SYSTEM)
