"""Orders to watch, and changes of their status."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import grpc
import psycopg
from shop.order.v1 import order_pb2, order_pb2_grpc

from runtime.client import channel

Step = tuple[str, Callable[..., Any]]

STEPS: Sequence[Step] = (
    ("ProcessOrder", order_pb2.ProcessOrderRequest),
    ("DeliverOrder", order_pb2.DeliverOrderRequest),
    ("ReceiveOrder", order_pb2.ReceiveOrderRequest),
)
"""The RPCs that take an order from PLACED to RECEIVED, and their requests."""

RETRY_INTERVAL = 0.2
"""Seconds between two tries of a transition."""

RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""The codes after which a transition is tried again. If the database stalls for a second, hundreds get one of them."""


def place(conninfo: str, number: int) -> list[str]:
    """Writes new orders with their first events, as CreateOrder does, but without stock and outbox.

    Args:
        conninfo: The order database.
        number: How many orders to write.

    Returns:
        Their ids.
    """
    ids = [uuid4() for _ in range(number)]
    with psycopg.connect(conninfo) as connection:
        connection.execute(
            """
            WITH placed AS (
                INSERT INTO orders (id, number, status, items, currency, total_micros, customer_name, customer_email)
                SELECT id, next_order_number(), 'PLACED',
                    '[{"product_id": "00000000-0000-4000-8000-000000000001", "quantity": 1, "name": "Mug",
                       "price_micros": 9500000}]',
                    'EUR', 9500000, 'Ada', 'ada@example.com'
                FROM unnest(%s::uuid[]) AS given (id)
                RETURNING id, version, status, create_time
            )
            INSERT INTO order_event (order_id, version, status, create_time) SELECT * FROM placed
            """,
            (ids,),
        )
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE orders, order_event")
    return [str(each) for each in ids]


def versions(conninfo: str, order_ids: Sequence[str]) -> dict[str, list[int]]:
    """Returns the versions in the event log of each order, by its id."""
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(
            "SELECT order_id, array_agg(version ORDER BY version) FROM order_event"
            " WHERE order_id = ANY (%s::uuid[]) GROUP BY 1",
            (list(order_ids),),
        )
        return {str(order_id): found for order_id, found in rows}


class Driver:
    """Moves orders on at a steady rate through the public RPCs. Each order waits for its own earlier move only."""

    def __init__(self, target: str, order_ids: Sequence[str]) -> None:
        self._target = target
        self._steps = dict.fromkeys(order_ids, 0)
        self._before: dict[str, asyncio.Task[None]] = {}

    async def run(self, per_second: float, changes: int, last_step: int = len(STEPS)) -> float:
        """Makes changes at a steady rate.

        Args:
            per_second: The rate.
            changes: How many changes to make, or fewer if all orders reach `last_step`.
            last_step: How many steps an order may take.

        Returns:
            The rate that was reached, in changes a second.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        made = 0
        async with channel(self._target) as to_orders, asyncio.TaskGroup() as group:
            stub: Any = order_pb2_grpc.OrderServiceStub(to_orders)
            for order_id, (method, request) in self._plan(changes, last_step):
                early = started + made / per_second - loop.time()
                if early > 0:
                    await asyncio.sleep(early)
                before = self._before.get(order_id)
                move = self._move(getattr(stub, method), request(id=order_id), before)
                self._before[order_id] = group.create_task(move)
                made += 1
        return made / (loop.time() - started)

    def _plan(self, changes: int, last_step: int) -> list[tuple[str, Step]]:
        """Returns the changes in turn: every order takes a step before any takes its next one."""
        plan: list[tuple[str, Step]] = []
        while len(plan) < changes:
            turn = [order_id for order_id, step in self._steps.items() if step < last_step]
            if not turn:
                break
            random.shuffle(turn)
            for order_id in turn[: changes - len(plan)]:
                plan.append((order_id, STEPS[self._steps[order_id]]))
                self._steps[order_id] += 1
        return plan

    async def _move(self, call: Callable[..., Any], request: object, before: "asyncio.Task[None] | None") -> None:
        """Repeats a transition until it succeeds, which is safe: a repeated one changes nothing."""
        if before:
            await before
        while True:
            try:
                await call(request, timeout=5)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRYABLE:
                    raise
                await asyncio.sleep(RETRY_INTERVAL)
