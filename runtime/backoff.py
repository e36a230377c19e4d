"""How long to wait before another attempt."""

import random


class Backoff:
    """Pauses that double from one attempt to the next; half of each is chance, so that replicas do not act in step."""

    def __init__(self, initial: float, maximum: float) -> None:
        """Both are in seconds."""
        self._initial = initial
        self._maximum = maximum
        self._pause = initial

    def next(self) -> float:
        """Returns the seconds to wait before the next attempt."""
        pause = self._pause
        self._pause = min(2 * pause, self._maximum)
        return pause * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Starts again with the shortest pause: an attempt succeeded."""
        self._pause = self._initial
