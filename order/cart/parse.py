"""Checks requests for carts and converts them to what the domain and the store take."""

from uuid import UUID

from shop.cart.v1 import cart_pb2

from order.cart.checkout import Purchase
from order.cart.domain import Action, Change, Holder
from order.parse import check_email, details
from runtime.constraints import Constraints
from runtime.money import total_micros
from runtime.prices import Price
from runtime.validate import Violations

CONSTRAINTS = Constraints(cart_pb2.DESCRIPTOR, multiline={"shipping_address", "notes"})

ForCart = cart_pb2.GetCartRequest | cart_pb2.DeleteCartRequest
"""A request for a cart as a whole."""

NO_ETAG = UUID(int=0)
"""The etag that no cart has. It stands for every text that is none of ours."""


def cart_id(request: ForCart) -> UUID:
    """Returns the id of the cart that a request is for. Raises INVALID_ARGUMENT if the request is malformed."""
    CONSTRAINTS.enforce(request)
    return UUID(request.id)


def etag(text: str) -> UUID | None:
    """Returns the etag of a condition; None if there is no condition."""
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        return NO_ETAG


def added(request: cart_pb2.AddCartItemRequest, holder: Holder, key: UUID | None, expected: UUID | None) -> Change:
    """Returns the change that adds pieces. `request` has passed the constraints."""
    return Change(
        cart_id=UUID(request.id),
        holder=holder,
        action=Action.ADD,
        product_id=UUID(request.product_id),
        quantity=request.quantity,
        request_id=key,
        expected_etag=expected,
    )


def set_to(request: cart_pb2.SetCartItemRequest, holder: Holder, expected: UUID | None) -> Change:
    """Returns the change that sets a quantity. `request` has passed the constraints."""
    return Change(
        cart_id=UUID(request.id),
        holder=holder,
        action=Action.SET,
        product_id=UUID(request.product_id),
        quantity=request.quantity,
        expected_etag=expected,
    )


def cleared(request: cart_pb2.ClearCartRequest, holder: Holder, expected: UUID | None) -> Change:
    """Returns the change that removes everything. `request` has passed the constraints."""
    return Change(cart_id=UUID(request.id), holder=holder, action=Action.CLEAR, expected_etag=expected)


def merged(request: cart_pb2.MergeCartRequest) -> tuple[UUID, str]:
    """Returns the id and the secret of the cart to merge. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        if not request.secret:
            violations.add("secret", "is required")
    return UUID(request.cart_id), request.secret


def purchase(request: cart_pb2.CheckoutCartRequest, expected: str) -> Purchase:
    """Returns what is ordered. Raises INVALID_ARGUMENT if the request is malformed.

    Args:
        request: The request.
        expected: The etag of the request or of its header; empty without one.
    """
    total: Price | None = None
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        check_email(violations, "customer.email", request.customer.email)
        version = etag(expected)
        if version is None:
            violations.add("etag", "is required: the etag of the cart that the customer saw")
        if request.HasField("expected_total"):
            micros = total_micros(violations, "expected_total", request.expected_total)
            total = Price(request.expected_total.currency_code, micros)
    return Purchase(cart_id=UUID(request.id), etag=version or NO_ETAG, details=details(request), expected=total)
