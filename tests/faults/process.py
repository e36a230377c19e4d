"""A real service with a fault in it: `python -m tests.faults.process SERVICE [SETTING=VALUE…] [FAULT]`.

The code is that of production, which has no hooks: this wraps methods of it, so that a fault strikes exactly where it
is named, and sets constants, so that a hold's time is over in seconds. A FAULT is one of

    crash:POINT:AFTER:TOGETHER       SIGKILL of the process at a point, once so many calls have passed it; as many as
                                     TOGETHER are kept there until then
    late:POINT:AFTER:CALLS:SECONDS   so many calls are late there, once others have passed it
"""

import argparse
import asyncio
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from order.jobs.relay import Message, Outbox
from order.store import OrderStore
from product.stock_store import StockStore
from runtime import cli

log = logging.getLogger(__name__)

OVER = "the fault is over"
"""What the log says when no call will be late any more."""


def _has_release(messages: list[Message]) -> bool:
    """What is lost of these would stay lost: the reconciler sees to holds, not to what is confirmed."""
    return any(message.action == "RELEASE" for message in messages)


POINTS: dict[str, tuple[type, str, Callable[[Any], bool] | None]] = {
    "order-reserved": (OrderStore, "insert", None),
    "order-inserted": (OrderStore, "insert", bool),
    "relay-claimed": (Outbox, "claim", _has_release),
    "relay-sent": (Outbox, "delete", None),
    "product-reserved": (StockStore, "reserve", bool),
}
"""The points by name: before a method runs, or after it has given an answer of this kind."""

TOGETHER_WITHIN = 2.0
"""Seconds after which a crash comes even if fewer calls have come to its point."""


def crash(after: int, together: int) -> Callable[[], Awaitable[None]]:
    passed = there = 0

    async def point() -> None:
        nonlocal passed, there
        passed += 1
        if passed <= after:
            return
        there += 1
        if there < together:
            await asyncio.sleep(TOGETHER_WITHIN)
        os.kill(os.getpid(), signal.SIGKILL)

    return point


def late(after: int, calls: int, seconds: float) -> Callable[[], Awaitable[None]]:
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


def inject(fault: str) -> None:
    kind, name, *numbers = fault.split(":")
    kinds: dict[str, Callable[..., Callable[[], Awaitable[None]]]] = {"crash": crash, "late": late}
    point = kinds[kind](*map(int, numbers))
    owner, method, answered = POINTS[name]
    original = getattr(owner, method)

    @functools.wraps(original)
    async def wrapped(*args: Any, **more: Any) -> Any:
        if not answered:
            await point()
        answer = await original(*args, **more)
        if answered and answered(answer):
            await point()
        return answer

    setattr(owner, method, wrapped)


def configure(setting: str) -> None:
    """Sets a constant, as in `order.stock.HOLD_TTL=5`."""
    path, _, value = setting.partition("=")
    module, _, name = path.rpartition(".")
    try:
        owner = importlib.import_module(module)
        kind = type(getattr(owner, name))
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"there is no constant {path}: was it renamed? ({error})") from None
    setattr(owner, name, kind(value))


if __name__ == "__main__":
    service, *options = sys.argv[1:]
    for option in options:
        if "=" in option:
            configure(option)
        else:
            inject(option)
    serve = importlib.import_module(f"{service}.__main__").serve
    sys.exit(cli.run(service, lambda: serve(argparse.Namespace())))
