"""What a process exported in the last minute, and the rates that follow from it."""

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LENGTH = 61
"""Readings that are kept: a minute has 60 seconds between them."""

RATE_WINDOW = 10
"""Seconds over which a rate is taken."""

Labels = Mapping[str, str]
Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Reading:
    """What a process exported at a moment."""

    time: float
    """In seconds, by a clock that never goes back."""
    samples: Mapping[str, Mapping[Key, float]]
    """The values of each name."""

    def select(self, name: str, labels: Labels) -> Mapping[Key, float]:
        """Returns the values of a name that have these labels."""
        values = self.samples.get(name, {})
        if not labels:
            return values
        wanted = set(labels.items())
        return {key: value for key, value in values.items() if wanted <= set(key[1])}

    def total(self, name: str, labels: Labels) -> float:
        """Returns the sum of those values."""
        return sum(self.select(name, labels).values())


class History:
    """The readings of one process, the newest last."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        """`prefixes` are the beginnings of the names that are kept."""
        self._prefixes = tuple(prefixes)
        self._keys: dict[str, Key] = {}
        """The keys by their text, since most lines are the same each time."""
        self._readings: deque[Reading] = deque(maxlen=LENGTH)
        self.is_up = False
        """Whether the process has responded to the last request."""

    def add(self, time: float, text: str) -> None:
        """Adds a reading in Prometheus' text format."""
        samples: dict[str, dict[Key, float]] = {}
        for line in text.splitlines():
            if line.startswith(self._prefixes):
                source, _, value = line.rpartition(" ")
                key = self._keys.get(source) or self._keys.setdefault(source, _key(source))
                samples.setdefault(key[0], {})[key] = float(value)
        self._readings.append(Reading(time, samples))
        self.is_up = True

    def last(self, name: str, **labels: str) -> float | None:
        """Returns the newest value, the sum if there are several; None if there is none."""
        if not self.is_up:
            return None
        values = self._readings[-1].select(name, labels)
        return sum(values.values()) if values else None

    def label_values(self, name: str, label: str, **labels: str) -> list[str]:
        """Returns the values that a label has, in the order of their first appearance."""
        if not self._readings:
            return []
        found = self._readings[-1].select(name, labels)
        return list(dict.fromkeys(dict(key[1]).get(label, "") for key in found))

    def increase(self, name: str, **labels: str) -> float:
        """Returns by how much a counter grew within the last minute."""
        return self._increase(name, LENGTH, labels)[0]

    def rate(self, name: str, **labels: str) -> float:
        """Returns by how much a counter grows in a second, over RATE_WINDOW."""
        grown, seconds = self._increase(name, RATE_WINDOW, labels)
        return grown / seconds if seconds else 0.0

    def _increase(self, name: str, seconds: float, labels: Labels) -> tuple[float, float]:
        """Returns by how much a counter grew, and in how many seconds."""
        first, last = self._ends(seconds)
        return max(0.0, last.total(name, labels) - first.total(name, labels)), last.time - first.time

    def values(self, name: str, **labels: str) -> list[float]:
        """Returns the values of the last minute."""
        return [each.total(name, labels) for each in self._readings]

    def rates(self, name: str, **labels: str) -> list[float]:
        """Returns the rates of the last minute, one for each second."""
        readings = list(self._readings)
        totals = [each.total(name, labels) for each in readings]
        return [
            max(0.0, totals[n] - totals[n - 1]) / (readings[n].time - readings[n - 1].time)
            for n in range(1, len(readings))
        ]

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Returns a quantile of a histogram over RATE_WINDOW, as PromQL's histogram_quantile does.

        Args:
            share: As in 0.99.
            name: The histogram's name.
            labels: The labels that its samples must have.

        Returns:
            The value, or None if nothing was measured meanwhile.
        """
        first, last = self._ends(RATE_WINDOW)
        counts: dict[float, float] = {}
        for sign, reading in ((1, last), (-1, first)):
            for (_, pairs), value in reading.select(f"{name}_bucket", labels).items():
                bound = float(dict(pairs)["le"])
                counts[bound] = counts.get(bound, 0) + sign * value
        return _quantile(share, sorted(counts.items()))

    def _ends(self, seconds: float) -> tuple[Reading, Reading]:
        """Returns the newest reading, and before it the one that is so many seconds older, or the oldest."""
        if not self._readings:
            empty = Reading(0, {})
            return empty, empty
        last = self._readings[-1]
        return next(each for each in self._readings if last.time - each.time <= seconds + 0.5), last


def _key(source: str) -> Key:
    name, _, rest = source.partition("{")
    return name, tuple(_LABEL.findall(rest))


def _quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Returns a quantile of cumulative buckets, given by their upper bounds."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    lower, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            # Beyond the last bound all that is known is that bound.
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - before) / (count - before or 1)
        lower, before = bound, count
    return lower
