"""Compares all orders with all reservations, and repairs what differs after one database was restored from a backup.

It may run while the shop does. Both comparisons look at the two databases in the sequence in which a sound shop writes
them, so that what is only on its way is no finding: a reservation before its order, a confirmation after it. And no
reservation is released before a tombstone is where its order would be: a create or a retry that comes late then meets
either its order or the tombstone, as everywhere.

    order database restored: CONFIRMED or expired holds without an order → tombstone, released; a live order whose
        stock was given back → it was cancelled after the backup → cancelled again
    product database restored: a live order without a reservation → reserved and confirmed anew, where stock is left;
        held → confirmed; the stock of a cancelled order still taken → released
"""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from uuid import UUID

from order.catalog import PAGE, ProductStock, State, Stored
from order.domain import EXPIRED, Item, Line, Order, Status, sources
from order.store import OrderStore, Standing
from runtime.errors import ApiError
from runtime.process import CommandError

_DEAD = (EXPIRED, Status.CANCELLED)
"""The statuses of what has no stock."""


class Repair:
    def __init__(self, orders: OrderStore, stock: ProductStock, say: Callable[[str], None], *, dry_run: bool) -> None:
        """`say` gets one line for each finding, and a summary; with `dry_run` nothing is changed."""
        self._orders = orders
        self._stock = stock
        self._say = say
        self._dry_run = dry_run
        self._found: Counter[str] = Counter()
        self._freed: Counter[tuple[str, str]] = Counter()
        self._left = 0

    async def run(self) -> None:
        """Raises CommandError where something is left to be done, by people or by a run that is not dry."""
        async for reservations in self._stock.taken():
            await self._compare_reservations(reservations)
        after: UUID | None = None
        while orders := await self._orders.live(after, PAGE):
            await self._compare_orders(orders)
            after = orders[-1].id
        if not self._dry_run:
            await self._orders.retell()
        self._summarise()

    async def _compare_reservations(self, reservations: list[Stored]) -> None:
        """Whether those that have stock belong to live orders. The orders are read after the reservations."""
        self._found["reservations with stock"] += len(reservations)
        standing = await self._orders.standing([each.id for each in reservations])
        odd = []
        for each in reservations:
            order = standing.get(each.id)
            if order is None:
                if each.state is State.HELD and each.expire_time > datetime.now(UTC):
                    self._found["holds whose time is not over, left to the service"] += 1
                else:
                    await self._bury(each)
            elif each.state is State.HELD or order.status in _DEAD:
                if order.pending:
                    self._found["left to the relay, which is about to tell"] += 1
                else:
                    odd.append(each)
        # What had nothing pending was told before that; so a second look sees what it was told.
        again = await self._stock.find([each.id for each in odd]) if odd else {}
        for each in odd:
            await self._see(again[each.id], standing[each.id])

    async def _see(self, reservation: Stored, order: Standing) -> None:
        """A reservation that its order has nothing more to say of."""
        if order.status in _DEAD:
            if reservation.state is not State.RELEASED:
                await self._release(reservation, f"is {order.status}, but its stock was still taken")
        elif reservation.state is State.HELD:
            if not self._dry_run:
                await self._stock.confirm(reservation.id)
            self._finding(reservation.id, "its stock was only held", "confirmed")

    async def _bury(self, reservation: Stored) -> None:
        if not self._dry_run:
            await self._orders.bury([reservation.id])
            if (await self._orders.statuses([reservation.id]))[reservation.id] != EXPIRED:
                return  # a retry of its client brought it back
        self._found["orders gone"] += 1
        await self._release(reservation, "is gone")

    async def _release(self, reservation: Stored, why: str) -> None:
        if not self._dry_run:
            await self._stock.release(reservation.id)
        for item in reservation.items:
            self._freed[item["product_id"], item["name"]] += item["quantity"]
        self._finding(reservation.id, f"{why}: {_pieces(reservation.items)}", "released")

    async def _compare_orders(self, orders: list[Order]) -> None:
        """Whether live orders have stock. The reservations are read after the orders."""
        self._found["live orders"] += len(orders)
        reservations = await self._stock.find([order.id for order in orders])
        for order in orders:
            reservation = reservations.get(order.id)
            if reservation is None:
                await self._reserve(order)
            elif reservation.state is State.RELEASED:
                await self._cancel(order)

    async def _reserve(self, order: Order) -> None:
        lost = f"({order.number}) has lost its reservation: {_pieces(order.items)}"
        if self._dry_run:
            self._finding(order.id, lost, "reserved")
            return
        lines = [Line(product_id=UUID(item["product_id"]), quantity=item["quantity"]) for item in order.items]
        try:
            await self._stock.reserve(order.id, lines, None)
        except ApiError as refusal:
            if refusal.passes:
                raise
            self._left += 1
            self._found["orders without stock"] += 1
            self._say(f"order {order.id} {lost}; CANNOT BE HAD: {refusal.text}")
            return
        # If it was cancelled meanwhile, the reservation is RELEASED, which a confirmation leaves alone.
        if await self._stock.confirm(order.id) is State.CONFIRMED:
            self._finding(order.id, lost, "reserved")

    async def _cancel(self, order: Order) -> None:
        """A reservation is released after its order was cancelled; an order that is live then has lost that."""
        while (now := (await self._orders.statuses([order.id])).get(order.id)) in sources(Status.CANCELLED):
            if self._dry_run or await self._orders.move(order.id, Status.CANCELLED, None):
                self._finding(order.id, f"({order.number}) was cancelled after the backup", "cancelled again")
                return
        if now != Status.CANCELLED:
            self._left += 1
            self._say(f"order {order.id} ({order.number}) is {now}, but its stock was given back; LOOK AFTER IT")

    def _finding(self, order_id: UUID, what: str, done: str) -> None:
        self._found[done] += 1
        self._say(f"order {order_id} {what}; {'to be ' if self._dry_run else ''}{done}")

    def _summarise(self) -> None:
        for (product_id, name), pieces in sorted(self._freed.items()):
            self._say(f'stock of product {product_id} "{name}": {pieces} {"to be freed" if self._dry_run else "freed"}')
        self._say("compared: " + ", ".join(f"{number} {what}" for what, number in self._found.items()))
        if self._left:
            raise CommandError(f"people have to look after {self._left} orders; see above")
        if self._dry_run and any(
            self._found[done] for done in ("released", "confirmed", "reserved", "cancelled again")
        ):
            raise CommandError("this was a dry run; without --dry-run it is repaired")


def _pieces(items: Iterable[Item]) -> str:
    return ", ".join(f'{item["quantity"]} × "{item["name"]}"' for item in items)
