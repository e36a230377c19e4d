"""A value that is read now and then, and that says nothing once it is old."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
Part = TypeVar("Part")


class Recent(Generic[Value]):
    """The last value that was read. Any thread may get it."""

    def __init__(self, max_age: float) -> None:
        """`max_age` is the number of seconds after which a value is too old."""
        self._max_age = max_age
        self._last: tuple[float, Value] | None = None
        """When it was set, by `time.monotonic`, and the value."""

    def set(self, value: Value) -> None:
        """Replaces the value."""
        self._last = time.monotonic(), value

    def get(self) -> Value | None:
        """Returns the value; None if there is none, or it is too old."""
        last = self._last
        return last[1] if last and time.monotonic() - last[0] <= self._max_age else None

    def reader(self, part: Callable[[Value], Part]) -> Callable[[], Part | None]:
        """Returns a function that returns a part of the value; None if there is none, or it is too old."""

        def read() -> Part | None:
            value = self.get()
            return None if value is None else part(value)

        return read
