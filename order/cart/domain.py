"""The rules of carts. Knows neither gRPC nor PostgreSQL."""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from uuid import UUID, uuid5

from order.domain import Details, Line, Offer, Order, Tombstone, draft_of
from runtime.prices import Price
from runtime.refusals import DomainError, ErrorKind

MAX_ITEMS = 50
"""Items of a cart: as many as an order may have."""

MAX_QUANTITY = 100_000_000
"""Pieces of one item: as many as an order may have."""

EMPTY_TTL, GUEST_TTL, OWNED_TTL = timedelta(days=2), timedelta(days=30), timedelta(days=90)
"""How long an empty cart, a guest's and a customer's are kept after the last change."""


def new_secret() -> str:
    """Returns a new secret of a guest's cart: 256 random bits, for a header."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """Returns what is stored of a secret. A plain hash is enough, since nobody can guess 256 random bits."""
    return sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a cart, and what they have shown."""

    owner: str = ""
    """The subject of the caller's token; empty without one."""
    secret_hash: bytes | None = None
    """The hash of the secret that was sent, if any."""


@dataclass(frozen=True, kw_only=True)
class CartItem:
    """A product in a cart, with its name and price when it was put in."""

    product_id: str
    quantity: int
    name: str
    currency: str
    price_micros: int
    """The price of one piece, in millionths of the currency's unit."""


@dataclass(frozen=True, kw_only=True)
class Cart:
    """A cart as it is stored."""

    id: UUID
    owner: str
    secret_hash: bytes | None
    etag: UUID
    """The version of the items."""
    items: list[CartItem]
    create_time: datetime
    update_time: datetime
    expire_time: datetime

    def is_held_by(self, holder: Holder) -> bool:
        """Returns whether the cart is the holder's: a customer's own one, or a guest's whose secret they have."""
        if self.owner:
            return self.owner == holder.owner
        return bool(
            self.secret_hash and holder.secret_hash and hmac.compare_digest(self.secret_hash, holder.secret_hash)
        )

    @property
    def lines(self) -> tuple[Line, ...]:
        """What an order of this cart orders."""
        return tuple([Line(product_id=UUID(each.product_id), quantity=each.quantity) for each in self.items])


class Action(StrEnum):
    """What a change does to a cart."""

    ADD = "ADD"
    SET = "SET"
    CLEAR = "CLEAR"


class Refusal(StrEnum):
    """Why a change was not made."""

    CART_CHANGED = "CART_CHANGED"
    PRODUCT_DELETED = "PRODUCT_DELETED"
    NO_OFFER = "NO_OFFER"
    """The cart does not have the product, and the catalogue says nothing about it."""
    CART_FULL = "CART_FULL"
    QUANTITY_LIMIT = "QUANTITY_LIMIT"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a cart's items."""

    cart_id: UUID
    holder: Holder
    action: Action
    product_id: UUID | None = None
    """The product that is added or set."""
    quantity: int = 0
    """The pieces to add, or the pieces that the cart then has."""
    expected_etag: UUID | None = None
    """The only version of the cart that is changed; None for any."""
    request_id: UUID | None = None
    """Makes a retry safe."""
    offer: Offer | None = None
    """What the catalogue says about the product, if it says anything."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the change can be made once more without another effect or result."""
        if self.action is Action.ADD:
            return self.request_id is not None
        return self.expected_etag is None


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a change."""

    cart: Cart
    """The cart as it is afterwards."""
    refusal: Refusal | None = None
    is_repeat: bool = False
    """Whether nothing was changed because the request's id was used before."""


class Reason(StrEnum):
    """What may be wrong with an item. The names are those of the API."""

    PRICE_CHANGED = "PRICE_CHANGED"
    INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
    PRODUCT_DELETED = "PRODUCT_DELETED"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    QUANTITY_CAPPED = "QUANTITY_CAPPED"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a customer should know about an item."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item beside what the catalogue says about it."""

    item: CartItem
    name: str
    price: Price
    available: int | None
    """Pieces that can be ordered now; None if that is unknown."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CartView:
    """A cart beside what the catalogue says about its items."""

    cart: Cart
    items: list[ItemView]
    total: Price | None
    """None if the items have prices in several currencies, or if nothing can be bought."""
    stale: bool
    """Whether the catalogue did not respond."""


def view(cart: Cart, offers: Mapping[UUID, Offer] | None, capped: Sequence[str] = ()) -> CartView:
    """Returns a cart with what the catalogue says.

    Args:
        cart: The cart.
        offers: The offers of its products. A product without one does not exist any more. None if the catalogue did not
            respond.
        capped: The products of which a merge has left out pieces.
    """
    if offers is None:
        items = [ItemView(each, each.name, Price(each.currency, each.price_micros), None) for each in cart.items]
    else:
        items = [_item_view(each, offers.get(UUID(each.product_id))) for each in cart.items]
    sold = [each for each in items if not any(one.reason is Reason.PRODUCT_DELETED for one in each.problems)]
    currency = sold[0].price.currency if sold else ""
    mixed = [each for each in sold if each.price.currency != currency]
    for each in mixed:
        text = f'"{each.name}" has a price in {each.price.currency}, others in {currency}; an order has one currency'
        each.problems.append(Problem(Reason.CURRENCY_MISMATCH, text))
    for each in items:
        if each.item.product_id in capped:
            text = f'an order can have at most {MAX_QUANTITY:,} pieces of "{each.name}"'
            each.problems.append(Problem(Reason.QUANTITY_CAPPED, text))
    total = None
    if sold and not mixed:
        total = Price(currency, sum(each.price.micros * each.item.quantity for each in sold))
    return CartView(cart, items, total, stale=offers is None)


def _item_view(item: CartItem, offer: Offer | None) -> ItemView:
    if offer is None or offer.deleted:
        name = offer.name if offer else item.name
        price = offer.price if offer else Price(item.currency, item.price_micros)
        return ItemView(item, name, price, 0, [Problem(Reason.PRODUCT_DELETED, f'"{name}" is no longer sold')])
    problems: list[Problem] = []
    added = Price(item.currency, item.price_micros)
    if offer.price != added:
        text = f'the price of "{offer.name}" has changed from {added} to {offer.price}'
        problems.append(Problem(Reason.PRICE_CHANGED, text))
    if offer.available < item.quantity:
        text = f'only {offer.available:,} of "{offer.name}" left' if offer.available else f'"{offer.name}" is sold out'
        problems.append(Problem(Reason.INSUFFICIENT_STOCK, text))
    return ItemView(item, offer.name, offer.price, offer.available, problems)


_NAMESPACE = UUID("1f4f6f0c-53a5-5d43-9a0e-6f6a3c1c2d9b")


def derive_order_id(cart_id: UUID, etag: UUID) -> UUID:
    """Returns the id of the order that a version of a cart becomes, and of its reservation.

    So a double click, a retry, and a second tab are one order.
    """
    return uuid5(_NAMESPACE, f"{cart_id}\0{etag}")


def replayed(order: Order | Tombstone, details: Details) -> Order:
    """Returns the order that an earlier checkout of the same version has placed.

    Raises:
        DomainError: ABORTED if the earlier attempt expired, ALREADY_EXISTS if it had another address and so on.
    """
    if isinstance(order, Tombstone):
        raise order_expired()
    lines = tuple([Line(product_id=UUID(each.product_id), quantity=each.quantity) for each in order.items])
    if order.fingerprint != draft_of(lines, details).fingerprint():
        raise DomainError(
            ErrorKind.ALREADY_EXISTS,
            "this version of the cart was already ordered with another customer, address, payment method or notes",
            reason="IDEMPOTENCY_KEY_REUSED",
        )
    return order


def cart_not_found(cart_id: UUID) -> DomainError:
    """Returns the error for a cart that does not exist, or is not the holder's."""
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"cart {cart_id} not found; a guest's cart also needs its secret in the header cart-secret",
        reason="CART_NOT_FOUND",
        metadata={"cart_id": str(cart_id)},
    )


def cart_changed() -> DomainError:
    """Returns the error for a version of a cart that is not the present one."""
    return DomainError(
        ErrorKind.ABORTED, "the cart has changed; read it again before you order it", reason="CART_CHANGED"
    )


def cart_empty() -> DomainError:
    """Returns the error for a checkout of nothing."""
    return DomainError(ErrorKind.FAILED_PRECONDITION, "the cart is empty", reason="CART_EMPTY")


def cart_full() -> DomainError:
    """Returns the error for more items than a cart may have."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION, f"a cart can have at most {MAX_ITEMS} different products", reason="CART_FULL"
    )


def quantity_limit(product_id: UUID | None) -> DomainError:
    """Returns the error for more pieces than an item may have."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        f"a cart can have at most {MAX_QUANTITY:,} pieces of a product",
        reason="QUANTITY_LIMIT",
        metadata={"product_id": str(product_id)},
    )


def product_deleted(product_id: UUID | None, name: str) -> DomainError:
    """Returns the error for more pieces of a product that is no longer sold."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        f'"{name}" is no longer sold',
        reason="PRODUCT_DELETED",
        metadata={"product_id": str(product_id)},
    )


def product_not_found(product_id: UUID | None) -> DomainError:
    """Returns the error for a product that does not exist."""
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"product {product_id} not found",
        reason="PRODUCT_NOT_FOUND",
        metadata={"product_id": str(product_id)},
    )


def not_signed_in() -> DomainError:
    """Returns the error for a caller who has no cart of their own, in a shop that verifies no tokens."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        "only a signed-in caller has a cart of their own; create a cart and send its secret",
        reason="NOT_SIGNED_IN",
    )


def order_expired() -> DomainError:
    """Returns the error for a version whose first checkout expired. The cart has a new version then."""
    return DomainError(
        ErrorKind.ABORTED,
        "the previous attempt expired without placing an order; read the cart and check out again",
        reason="ORDER_EXPIRED",
    )
