"""One comparison of all orders with all reservations, after one database was restored from a backup.

What differs is told, and repaired. It may run while the shop does. Both halves look at the two databases in the order
in which a sound shop writes them, so that what is only on its way is no finding: a reservation before its order, and a
confirmation after it. And no reservation is released before a tombstone is where its order would be: a create or a
retry that comes late then meets either its order or the tombstone, as everywhere.

    order database restored: CONFIRMED or expired holds without an order → tombstone, released; a live order whose
        stock was given back → it was cancelled after the backup → cancelled again
    product database restored: a live order without a reservation → reserved and confirmed anew, where stock is left;
        held → confirmed; the stock of a cancelled order still taken → released; other goods under its id (its key was
        used again while the reservation was lost) → released, and people have to look after the order
"""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from uuid import UUID

import grpc

from order.domain import EXPIRED, Item, Line, Status, same_items, sources
from order.stock import PAGE, State, Stored
from order.stock_client import StockClient
from order.store import Live, OrderStore, Standing
from runtime.errors import ApiError

CHANGES = ("released", "confirmed", "reserved", "cancelled again")
"""What is done to repair something, as it is counted and told."""

MOST_PRODUCTS = 1_000
"""Products whose freed pieces are counted one by one."""

_DEAD = (EXPIRED, Status.CANCELLED)
"""The statuses of what has no stock."""


class TooManyChanges(Exception):
    """A comparison finds more than was foreseen."""


class Comparison:
    """One pass over both databases, page by page."""

    def __init__(
        self,
        orders: OrderStore,
        stock: StockClient,
        say: Callable[[str], None],
        *,
        dry_run: bool,
        most_changes: int | None = None,
    ) -> None:
        """`say` gets one line for each finding. With `dry_run` nothing is changed. Beyond `most_changes` it stops."""
        self._orders = orders
        self._stock = stock
        self._say = say
        self._dry_run = dry_run
        self._most_changes = most_changes
        self._freed: Counter[tuple[str, str]] = Counter()
        self.found: Counter[str] = Counter()
        """How many of what."""
        self.left = 0
        """Orders that people have to look after."""

    @property
    def changes(self) -> int:
        return sum(self.found[each] for each in CHANGES)

    @property
    def compared(self) -> int:
        """The reservations with stock or the live orders, whichever are more."""
        return max(self.found["reservations with stock"], self.found["live orders"])

    async def run(self) -> None:
        """Raises TooManyChanges; what was changed until then stays so."""
        async for reservations in self._stock.taken():
            await self._compare_reservations(reservations)
        after: UUID | None = None
        while orders := await self._orders.live(after, PAGE):
            await self._compare_orders(orders)
            after = orders[-1].id

    def summarise(self) -> None:
        done = "to be freed" if self._dry_run else "freed"
        for (product_id, name), pieces in sorted(self._freed.items()):
            what = f'stock of product {product_id} "{name}"' if product_id else "stock of other products"
            self._say(f"{what}: {pieces} {done}")
        self._say("compared: " + ", ".join(f"{number} {what}" for what, number in self.found.items()))

    async def _compare_reservations(self, reservations: list[Stored]) -> None:
        """Whether those that have stock belong to live orders. The orders are read after the reservations."""
        self.found["reservations with stock"] += len(reservations)
        standing = await self._orders.standing([each.id for each in reservations])
        odd = []
        for each in reservations:
            order = standing.get(each.id)
            if order is None:
                if each.state is State.HELD and each.expire_time > datetime.now(UTC):
                    self.found["holds whose time is not over, left to the service"] += 1
                else:
                    await self._bury(each)
            elif order.status not in _DEAD and not same_items(each.items, order.items):
                odd.append(each)
            elif each.state is State.HELD or order.status in _DEAD:
                if order.pending:
                    self.found["left to the relay, which is about to tell"] += 1
                else:
                    odd.append(each)
        # What had nothing pending was told before that; so a second look sees what it was told.
        again = await self._stock.find([each.id for each in odd]) if odd else {}
        for each in odd:
            if each.id in again:
                await self._see(again[each.id], standing[each.id])

    async def _see(self, reservation: Stored, order: Standing) -> None:
        """A reservation that its order has nothing more to say of."""
        if reservation.state is State.RELEASED:
            return
        if order.status in _DEAD:
            await self._release(reservation, f"is {order.status}, but its stock was still taken")
        elif not same_items(reservation.items, order.items):
            await self._release(reservation, "has the stock of other goods")
        elif reservation.state is State.HELD:
            self._finding(reservation.id, "its stock was only held", "confirmed")
            if not self._dry_run:
                await self._stock.confirm(reservation.id)

    async def _bury(self, reservation: Stored) -> None:
        self._foresee()
        if not self._dry_run:
            await self._orders.bury([reservation.id])
            if (await self._orders.statuses([reservation.id]))[reservation.id] != EXPIRED:
                return  # a retry of its client brought it back
        self.found["orders gone"] += 1
        await self._release(reservation, "is gone")

    async def _release(self, reservation: Stored, why: str) -> None:
        self._foresee()
        if not self._dry_run:
            await self._stock.release(reservation.id)
        for item in reservation.items:
            product = (item["product_id"], item["name"])
            if product not in self._freed and len(self._freed) >= MOST_PRODUCTS:
                product = ("", "")
            self._freed[product] += item["quantity"]
        self._finding(reservation.id, f"{why}: {_pieces(reservation.items)}", "released")

    async def _compare_orders(self, orders: list[Live]) -> None:
        """Whether live orders have stock. The reservations are read after the orders."""
        self.found["live orders"] += len(orders)
        reservations = await self._stock.find([order.id for order in orders])
        for order in orders:
            reservation = reservations.get(order.id)
            if reservation is None:
                await self._reserve(order)
            elif reservation.items and not same_items(reservation.items, order.items):
                self._look_after(order, "has no stock: its idempotency key was used for other goods")
            elif reservation.state is State.RELEASED:
                await self._cancel(order)

    async def _reserve(self, order: Live) -> None:
        lost = f"({order.number}) has lost its reservation: {_pieces(order.items)}"
        self._foresee()
        if self._dry_run:
            self._finding(order.id, lost, "reserved")
            return
        lines = [Line(product_id=UUID(item["product_id"]), quantity=item["quantity"]) for item in order.items]
        try:
            await self._stock.reserve(order.id, lines, None)
        except ApiError as refusal:
            if refusal.is_transient or refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            self.left += 1
            self.found["orders without stock"] += 1
            self._say(f"order {order.id} {lost}; CANNOT BE HAD: {refusal.text}")
            return
        # If it was cancelled meanwhile, the reservation is RELEASED, which a confirmation leaves alone.
        reservation = await self._stock.confirm(order.id)
        if reservation and reservation.state is State.CONFIRMED:
            self._finding(order.id, lost, "reserved")

    async def _cancel(self, order: Live) -> None:
        """A reservation is released after its order was cancelled; an order that is live then has lost that."""
        self._foresee()
        while (now := (await self._orders.statuses([order.id])).get(order.id)) in sources(Status.CANCELLED):
            if self._dry_run or (await self._orders.move(order.id, Status.CANCELLED, None))[1]:
                self._finding(order.id, f"({order.number}) was cancelled after the backup", "cancelled again")
                return
        if now != Status.CANCELLED:
            self._look_after(order, f"is {now}, but its stock was given back")

    def _look_after(self, order: Live, why: str) -> None:
        self.left += 1
        self._say(f"order {order.id} ({order.number}) {why}; LOOK AFTER IT")

    def _foresee(self) -> None:
        """Before a change."""
        if self._most_changes is not None and self.changes >= self._most_changes:
            raise TooManyChanges

    def _finding(self, order_id: UUID, what: str, done: str) -> None:
        self.found[done] += 1
        self._say(f"order {order_id} {what}; {'to be ' if self._dry_run else ''}{done}")


def _pieces(items: Iterable[Item]) -> str:
    return ", ".join(f'{item["quantity"]} × "{item["name"]}"' for item in items)
