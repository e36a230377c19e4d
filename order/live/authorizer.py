"""Decides for the sidecar which client may follow which order."""

from shop.order.v1 import status_feed_pb2

from order.store import OrderStore
from order.tickets import Kind, Tickets
from order.viewers import in_header, viewer_of
from runtime.access.gate import ORDER_TICKET, TOKEN_REQUIRED, Gate
from runtime.errors import unauthenticated
from runtime.validate import Violations


class StreamAuthorizer:
    """Checks what clients of event streams have sent."""

    def __init__(self, gate: Gate, tickets: Tickets, orders: OrderStore, *, guests: bool) -> None:
        """Initializes the checks.

        Args:
            gate: Verifies tokens.
            tickets: Reads tickets.
            orders: The orders.
            guests: Whether a client without a token can send the ticket of an order.
        """
        self._gate = gate
        self._tickets = tickets
        self._orders = orders
        self._guests = guests

    async def authorize(self, request: status_feed_pb2.AuthorizeStreamRequest) -> str:
        """Returns the subject of a client that may follow an order. It is empty for a client without a token.

        Raises:
            ApiError: UNAUTHENTICATED, or UNAVAILABLE if that cannot be checked now.
            DomainError: NOT_FOUND: the order does not exist, or the client may not see it.
        """
        with Violations() as violations:
            order_id = violations.uuid("order_id", request.order_id)
        caller = await self._gate.identify(list(request.authorization))
        sent = [] if caller.is_staff else in_header(request.order_ticket, Kind.ORDER, Kind.STREAM)
        if request.stream_ticket:
            sent.append((request.stream_ticket, (Kind.STREAM,)))
        elif caller.is_guest and not (sent and self._guests):
            raise unauthenticated(
                TOKEN_REQUIRED,
                f"an event stream needs a bearer token in the authorization header, an order's ticket in the header"
                f" {ORDER_TICKET}, or a stream's ticket as the query parameter `ticket`",
            )
        await viewer_of(caller, self._tickets, sent).find_and_check(order_id, self._orders.get_owner)
        return caller.subject
