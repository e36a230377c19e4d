"""Who may see an order: its owner, staff, and whoever has a ticket of it."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from order.domain import not_found
from order.tickets import Kind, Tickets, ticket_invalid
from runtime.access.caller import Caller
from runtime.errors import ApiError

SentTicket = tuple[str, Collection[Kind]]
"""A ticket that a client sent, and the kinds that are accepted where it sent it."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks for orders, and what they have shown."""

    caller: Caller
    orders: frozenset[UUID] = frozenset()
    """The orders of the tickets that were shown."""
    refusal: ApiError | None = None
    """Why a ticket was not accepted."""

    def may_see(self, order_id: UUID) -> bool:
        """Returns whether they may see an order whoever owns it, and whether or not it exists."""
        return self.caller.is_staff or order_id in self.orders

    def check(self, order_id: UUID, owner: str | None) -> None:
        """Checks that they may see an order.

        Args:
            order_id: The order.
            owner: Its owner; None if it does not exist.

        Raises:
            ApiError: UNAUTHENTICATED if that needed a ticket, and the one that was shown is not accepted.
            DomainError: NOT_FOUND if there is no such order, or they may not see it. Both look the same.
        """
        if owner is not None and (self.may_see(order_id) or self.caller.owns(owner)):
            return
        if self.refusal and not self.may_see(order_id):
            raise self.refusal
        raise not_found(order_id)

    async def find_and_check(self, order_id: UUID, get_owner: Callable[[UUID], Awaitable[str | None]]) -> None:
        """Checks the same, and looks for the owner only if that matters. An order that is missing may pass."""
        if not self.may_see(order_id):
            self.check(order_id, await get_owner(order_id))


def viewer_of(caller: Caller, tickets: Tickets, sent: Sequence[SentTicket]) -> Viewer:
    """Returns who asks for orders.

    Args:
        caller: Who calls.
        tickets: Reads tickets.
        sent: The tickets of the request. They are ignored if the caller sees everything.
    """
    if caller.is_staff:
        return Viewer(caller)
    orders: set[UUID] = set()
    refusal: ApiError | None = None
    for ticket, kinds in sent:
        try:
            orders.add(tickets.read(ticket, kinds))
        except ApiError as error:
            # Without its traceback, which has this frame, and so the error again.
            refusal = refusal or error.with_traceback(None)
    return Viewer(caller, frozenset(orders), refusal)


def in_header(values: Sequence[str], *kinds: Kind) -> list[SentTicket]:
    """Returns the ticket in the values of the header `order-ticket`.

    Raises:
        ApiError: UNAUTHENTICATED if the header was sent more than once: one of them is not the client's.
    """
    if len(values) > 1:
        raise ticket_invalid("the header order-ticket must be sent once")
    return [(value, kinds) for value in values]
