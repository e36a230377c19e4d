"""Applies the findings of a comparison.

A reservation is only released after a tombstone was written where its order would be. A late CreateOrder or a retry
then finds either its order or the tombstone, as everywhere.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import grpc

from order.domain import Line, Status
from order.jobs.comparison import Change, Finding
from order.jobs.ordered_carts import OrderedCarts
from order.jobs.report import Report
from order.stock import ReservationState, Stock
from order.store import OrderStore
from runtime.errors import ApiError
from runtime.refusals import DomainError


class TooManyChanges(Exception):
    """There are more findings than expected."""


class Repair:
    """Applies findings one by one."""

    def __init__(
        self, orders: OrderStore, stock: Stock, carts: OrderedCarts, report: Report, *, max_changes: int
    ) -> None:
        """Initializes the repair, which stops after `max_changes` changes."""
        self._orders = orders
        self._stock = stock
        self._carts = carts
        self._report = report
        self._max_changes = max_changes

    async def apply_all(self, findings: AsyncGenerator[Finding, None]) -> None:
        """Applies findings, as `apply` does, until the last one or an error."""
        async with aclosing(findings):
            async for finding in findings:
                await self.apply(finding)

    async def apply(self, finding: Finding) -> None:
        """Makes the change that repairs a finding, if it is still needed, and reports it.

        Raises:
            TooManyChanges: As many changes as allowed were made. They stay.
            ApiError: One of the databases or the product service is unavailable.
        """
        if finding.change is None:
            self._report.add(finding)
            return
        if self._report.changes >= self._max_changes:
            raise TooManyChanges
        match finding.change:
            case Change.RELEASE:
                await self._release(finding)
            case Change.CONFIRM:
                await self._stock.confirm(finding.order_id)
                self._report.add(finding)
            case Change.RESERVE:
                await self._reserve(finding)
            case Change.CANCEL:
                await self._cancel(finding)
            case Change.EMPTY:
                if finding.cart_id and await self._carts.empty(finding.cart_id):
                    self._report.add(finding)

    async def _release(self, finding: Finding) -> None:
        if finding.lost_order:
            await self._orders.insert_tombstones([finding.order_id])
            if await self._orders.get_statuses([finding.order_id]):
                return  # A retry of the client has placed the order again.
        await self._stock.release(finding.order_id)
        self._report.add(finding)

    async def _reserve(self, finding: Finding) -> None:
        lines = [Line(product_id=UUID(item.product_id), quantity=item.quantity) for item in finding.items]
        try:
            await self._stock.reserve(finding.order_id, lines, None)
        except ApiError as error:
            if error.is_transient or error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            self._report.add_unreserved(finding, error.text)
            return
        except DomainError as error:
            self._report.add_unreserved(finding, error.message)
            return
        # If the order was cancelled meanwhile, the reservation is RELEASED, and a confirmation does not change that.
        reservation = await self._stock.confirm(finding.order_id)
        if reservation and reservation.state is ReservationState.CONFIRMED:
            self._report.add(finding)

    async def _cancel(self, finding: Finding) -> None:
        order, moved = await self._orders.move(finding.order_id, Status.CANCELLED, None)
        if moved:
            self._report.add(finding)
        elif order and order.status is not Status.CANCELLED:
            problem = f"({order.number}) is {order.status}, but its stock was released"
            self._report.add(Finding(order_id=order.id, problem=problem, change=None))
