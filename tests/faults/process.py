"""A real service with a fault in it: `python -m tests.faults.process SERVICE [SETTING=VALUE…] [FAULT]`.

Production code has no hooks. This process wraps methods of it, so that a fault strikes at a given point, and sets
constants, so that a hold expires after seconds. `crash`, `late`, `broken`, `blocking` and `setting` make these
arguments, and fail if a name in them does not exist.
"""

import argparse
import asyncio
import functools
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from order.cart.merge import Merge
from order.domain import Order
from order.jobs.expired_carts import CartPurger, ExpiredRows
from order.jobs.expired_holds import ExpiredHoldReaper
from order.jobs.relay import Message, Outbox
from order.live.tailer import Tailer
from order.store import OrderStore
from product.stock_store import StockStore
from product.store import ProductStore
from runtime import cli

log = logging.getLogger(__name__)

OVER = "the fault is over"
"""What the log says when no more calls will be late."""

CRASH_TIMEOUT = 2.0
"""Seconds after which a crash comes even if fewer calls have reached its point."""


def _has_release(messages: list[Message]) -> bool:
    """Returns whether a message releases stock. The reconciler repairs holds, but not confirmed reservations."""
    return any(message.action == "RELEASE" for message in messages)


POINTS: dict[str, tuple[type, str, Callable[[Any], bool] | None]] = {
    "order-reserved": (OrderStore, "insert", None),
    "order-inserted": (OrderStore, "insert", bool),
    "cart-reserved": (OrderStore, "insert_from_cart", None),
    "cart-ordered": (OrderStore, "insert_from_cart", lambda outcome: isinstance(outcome, Order)),
    "cart-merged": (Merge, "__call__", bool),
    "order-read": (OrderStore, "get", None),
    "relay-claimed": (Outbox, "claim", _has_release),
    "relay-sent": (Outbox, "delete", None),
    "carts-purged": (ExpiredRows, "delete_batch", bool),
    "carts-purged-next": (CartPurger, "step", None),
    "holds-reaped": (ExpiredHoldReaper, "step", None),
    "log-read": (Tailer, "poll", None),
    "product-reserved": (StockStore, "reserve", bool),
    "products-listed": (ProductStore, "list", None),
}
"""The points by name: a class and its method, and which of its results count. Without the last, a fault strikes before
the method runs, otherwise after it."""


def _check_point(name: str) -> str:
    owner, method, _ = POINTS[name]
    assert callable(getattr(owner, method, None)), f"{owner.__name__} has no method {method}: mend POINTS[{name!r}]"
    return name


def crash(point: str, *, after: int, together: int) -> str:
    """Returns a fault: SIGKILL of the process at a point.

    Args:
        point: One of POINTS.
        after: Calls that pass the point first.
        together: Calls that wait at the point until so many are there.
    """
    return f"crash:{_check_point(point)}:{after}:{together}"


def late(point: str, *, after: int, calls: int, seconds: int) -> str:
    """Returns a fault: some calls are late at a point.

    Args:
        point: One of POINTS.
        after: Calls that pass the point first.
        calls: Calls that are late.
        seconds: How late they are.
    """
    return f"late:{_check_point(point)}:{after}:{calls}:{seconds}"


def broken(point: str, *, one_in: int) -> str:
    """Returns a fault: calls fail at a point, as they do by a bug; one in so many."""
    return f"broken:{_check_point(point)}:{one_in}"


def blocking(point: str, *, milliseconds: int) -> str:
    """Returns a fault: each call blocks the event loop at a point, as a long computation does."""
    return f"blocking:{_check_point(point)}:{milliseconds}"


def setting(path: str, value: float) -> str:
    """Returns a setting: a constant of a module has another value.

    Args:
        path: The module and the constant, as in `order.stock.HOLD_TTL`.
        value: Its value; it is converted to the type of the constant.
    """
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name), f"the module {module} has no constant {name}"
    return f"{path}={value}"


def _crash(after: int, together: int) -> Callable[[], Awaitable[None]]:
    passed = there = 0

    async def point() -> None:
        nonlocal passed, there
        passed += 1
        if passed <= after:
            return
        there += 1
        if there < together:
            await asyncio.sleep(CRASH_TIMEOUT)
        os.kill(os.getpid(), signal.SIGKILL)

    return point


def _late(after: int, calls: int, seconds: float) -> Callable[[], Awaitable[None]]:
    passed = waiting = 0

    async def point() -> None:
        nonlocal passed, waiting
        passed += 1
        if not after < passed <= after + calls:
            return
        waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            waiting -= 1
            if not waiting and passed >= after + calls:
                log.warning(OVER)

    return point


def _broken(one_in: int) -> Callable[[], Awaitable[None]]:
    calls = count(1)

    async def point() -> None:
        if next(calls) % one_in == 0:
            raise RuntimeError("a bug that a test has made")

    return point


def _blocking(milliseconds: int) -> Callable[[], Awaitable[None]]:
    async def point() -> None:
        time.sleep(milliseconds / 1000)

    return point


def inject(fault: str) -> None:
    """Wraps the method of a fault's point."""
    kind, name, *numbers = fault.split(":")
    kinds: dict[str, Callable[..., Callable[[], Awaitable[None]]]] = {
        "crash": _crash,
        "late": _late,
        "broken": _broken,
        "blocking": _blocking,
    }
    point = kinds[kind](*map(int, numbers))
    owner, method, counts = POINTS[name]
    original = getattr(owner, method)

    @functools.wraps(original)
    async def wrapped(*args: Any, **more: Any) -> Any:
        if not counts:
            await point()
        result = await original(*args, **more)
        if counts and counts(result):
            await point()
        return result

    setattr(owner, method, wrapped)


def configure(assignment: str) -> None:
    """Sets a constant, as in `order.stock.HOLD_TTL=5`. Raises AttributeError if it does not exist."""
    path, _, value = assignment.partition("=")
    module, _, name = path.rpartition(".")
    owner = importlib.import_module(module)
    setattr(owner, name, type(getattr(owner, name))(value))


if __name__ == "__main__":
    service, *options = sys.argv[1:]
    for option in options:
        if "=" in option:
            configure(option)
        else:
            inject(option)
    serve = importlib.import_module(f"{service}.__main__").serve
    sys.exit(cli.run(service, lambda: serve(argparse.Namespace())))
