"""Carts in the model of the public API.

Each example has guests with secrets and two customers of its own. Every response that has a cart is compared as a
whole: items in their sequence, prices now and then, what is left, problems, total, and whether the etag changed.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from google.protobuf import empty_pb2
from google.type import money_pb2
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2

from tests.support.access import Metadata, bearer
from tests.support.model import Order, Shop, refused
from tests.support.product import euros

CART_ETAGS = st.sampled_from(["", "", "right", "old"])
TOTALS = {"none": None, "equal": 0, "higher": 1, "lower": -1}


@dataclass
class Item:
    """A product in a cart."""

    quantity: int
    added_price: int


@dataclass(eq=False)
class Cart:
    """What the model knows of a cart."""

    id: str
    metadata: Metadata
    etag: str
    subject: str = ""
    """Whose cart it is; empty for a guest's."""
    items: dict[str, Item] = field(default_factory=dict)
    old_etag: str = ""
    """The etag that it had before the last change."""
    gone: bool = False
    """Whether it was deleted, or merged into another one."""
    merged_into: "Cart | None" = None

    @property
    def is_deleted(self) -> bool:
        """Whether nothing is known of it any more. Orders that were made of a merged cart are still returned."""
        return self.gone and self.merged_into is None


@dataclass
class CartOrder(Order):
    """What the model knows of an order that was made of a cart."""

    cart: Cart | None = None
    etag: str = ""
    """The version of the cart that was ordered."""


class ShopWithCarts(Shop):
    """Clients that buy through carts too."""

    carts = Bundle("carts")

    def __init__(self) -> None:
        super().__init__()
        self.subjects = [f"{name}-{uuid4().hex}" for name in ("ada", "bob")]
        self.tokens = {each: bearer(self.both.issuer.token(each)) for each in self.subjects}
        self.owned: dict[str, Cart] = {}
        """The cart of each customer who has one."""
        self.made: list[Cart] = []
        self.adds: list[tuple[Cart, cart_pb2.AddCartItemRequest]] = []
        """The adds that had a key."""
        self.of_version: dict[tuple[str, str], CartOrder] = {}
        """The order that was made of a version of a cart, by the cart's id and the etag."""

    def _call(self, method: str, request: Any, metadata: Metadata) -> Any:
        return self.both.call_or_refusal(lambda: getattr(self.both.carts, method)(request, metadata=metadata))

    # --- carts come and go

    @initialize(target=carts)
    def begin_with_a_cart(self) -> Cart:
        return self._new_guests_cart()

    @rule(target=carts)
    def create_cart(self) -> Cart:
        return self._new_guests_cart()

    def _new_guests_cart(self) -> Cart:
        created = self._call("CreateCart", cart_pb2.CreateCartRequest(), ())
        cart = Cart(created.cart.id, (("cart-secret", created.secret),), created.cart.etag)
        self._compare(cart, created.cart)
        self.made.append(cart)
        return cart

    @rule(target=carts, customer=st.integers(0, 1), create=st.booleans())
    def get_own_cart(self, customer: int, create: bool) -> Any:
        """A customer has one cart, however it is asked for."""
        subject = self.subjects[customer]
        if create:
            created = self._call("CreateCart", cart_pb2.CreateCartRequest(), self.tokens[subject])
            assert not created.HasField("secret")
            answer = created.cart
        else:
            answer = self._call("GetMyCart", cart_pb2.GetMyCartRequest(), self.tokens[subject])
        return self._own(subject, answer)

    def _own(self, subject: str, answer: cart_pb2.Cart) -> Any:
        """Compares a customer's cart. Returns it if it is a new one."""
        is_new = subject not in self.owned
        if is_new:
            cart = Cart(answer.id, self.tokens[subject], answer.etag, subject)
            self.owned[subject] = cart
            self.made.append(cart)
        self._compare(self.owned[subject], answer)
        return self.owned[subject] if is_new else multiple()

    @rule(cart=carts, etag=CART_ETAGS)
    def delete_cart(self, cart: Cart, etag: str) -> None:
        request = cart_pb2.DeleteCartRequest(id=cart.id, etag=_etag(cart, etag))
        answer = self._call("DeleteCart", request, cart.metadata)
        if cart.gone:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        if _is_stale(cart, etag):
            return refused(answer, "ABORTED", "CART_CHANGED")
        assert isinstance(answer, empty_pb2.Empty)
        cart.gone = True
        self.owned.pop(cart.subject, None)
        return None

    @rule(cart=carts)
    def get_cart(self, cart: Cart) -> None:
        self._get(cart)

    def _get(self, cart: Cart) -> None:
        answer = self._call("GetCart", cart_pb2.GetCartRequest(id=cart.id), cart.metadata)
        if cart.gone:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        return self._compare(cart, answer)

    @rule(cart=carts, who=st.sampled_from(["staff", "another customer", "another guest"]))
    def get_a_cart_of_somebody_else(self, cart: Cart, who: str) -> None:
        metadata = {
            "staff": self.both.staff,
            "another customer": self.tokens[self.subjects[cart.subject == self.subjects[0]]],
            "another guest": (("cart-secret", "guessed"),),
        }[who]
        answer = self._call("GetCart", cart_pb2.GetCartRequest(id=cart.id), metadata)
        refused(answer, "NOT_FOUND", "CART_NOT_FOUND")

    # --- items

    @rule(cart=carts, product=Shop.products, quantity=st.integers(1, 3), key=st.booleans())
    def add_item(self, cart: Cart, product: str, quantity: int, key: bool) -> None:
        request_id = str(uuid4()) if key else ""
        request = cart_pb2.AddCartItemRequest(id=cart.id, product_id=product, quantity=quantity, request_id=request_id)
        answer = self._call("AddCartItem", request, cart.metadata)
        if cart.gone:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        if self.known[product].deleted:
            return refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
        before = cart.items[product].quantity if product in cart.items else 0
        if key:
            self.adds.append((cart, request))
        return self._changed(cart, {**cart.items, product: self._item(product, before + quantity)}, answer)

    @rule(data=st.data(), change=st.booleans())
    def repeat_an_add(self, data: st.DataObject, change: bool) -> None:
        """A repeated add adds nothing, whatever became of the cart since."""
        if not self.adds:
            return
        cart, first = data.draw(st.sampled_from(self.adds))
        request = cart_pb2.AddCartItemRequest()
        request.CopyFrom(first)
        request.quantity += change
        answer = self._call("AddCartItem", request, cart.metadata)
        if cart.gone:
            refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        elif change:
            refused(answer, "ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
        else:
            self._compare(cart, answer)

    @rule(cart=carts, product=Shop.products, quantity=st.integers(0, 4), etag=CART_ETAGS)
    def set_item(self, cart: Cart, product: str, quantity: int, etag: str) -> None:
        """To set what is so already accepts the present price, and changes nothing if that is the same."""
        given = _etag(cart, etag)
        request = cart_pb2.SetCartItemRequest(id=cart.id, product_id=product, quantity=quantity, etag=given)
        answer = self._call("SetCartItem", request, cart.metadata)
        if cart.gone:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        if _is_stale(cart, etag):
            return refused(answer, "ABORTED", "CART_CHANGED")
        before = cart.items[product].quantity if product in cart.items else 0
        if self.known[product].deleted and quantity > before:
            return refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
        items = {**cart.items, product: self._item(product, quantity)}
        return self._changed(cart, {key: each for key, each in items.items() if each.quantity}, answer)

    @rule(cart=carts, etag=CART_ETAGS)
    def clear_cart(self, cart: Cart, etag: str) -> None:
        answer = self._call("ClearCart", cart_pb2.ClearCartRequest(id=cart.id, etag=_etag(cart, etag)), cart.metadata)
        if cart.gone:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        if _is_stale(cart, etag):
            return refused(answer, "ABORTED", "CART_CHANGED")
        return self._changed(cart, {}, answer)

    @rule(target=carts, cart=carts, customer=st.integers(0, 1))
    def merge_cart(self, cart: Cart, customer: int) -> Any:
        """A merge that is repeated changes nothing."""
        if cart.subject:
            return multiple()
        subject = self.subjects[customer]
        request = cart_pb2.MergeCartRequest(cart_id=cart.id, secret=dict(cart.metadata)["cart-secret"])
        answer = self._call("MergeCart", request, self.tokens[subject])
        if cart.gone and (cart.merged_into is None or cart.merged_into is not self.owned.get(subject)):
            refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
            return multiple()
        is_new = subject not in self.owned
        own = self.owned.setdefault(subject, Cart(answer.id, self.tokens[subject], "", subject))
        if not cart.gone:
            both = {product: Item(each.quantity, each.added_price) for product, each in own.items.items()}
            for product, each in cart.items.items():
                both.setdefault(product, Item(0, each.added_price)).quantity += each.quantity
            cart.gone, cart.merged_into, cart.items = True, own, {}
            if is_new and not both:
                own.etag = answer.etag
            self._changed(own, both, answer)
        else:
            self._compare(own, answer)
        if not is_new:
            return multiple()
        self.made.append(own)
        return own

    def _item(self, product: str, quantity: int) -> Item:
        return Item(quantity, self.known[product].price)

    # --- orders

    @rule(
        target=Shop.orders,
        cart=carts,
        etag=st.sampled_from(["right", "right", "old"]),
        expected=st.sampled_from(list(TOTALS)),
    )
    def check_out(self, cart: Cart, etag: str, expected: str) -> Any:
        order = CartOrder(str(uuid4()), {}, f"From cart {cart.id}", cart=cart, etag=_etag(cart, etag) or cart.etag)
        wanted = {key: self.known[key] for key in cart.items}
        price = sum(each.price * cart.items[key].quantity for key, each in wanted.items())
        difference = TOTALS[expected]
        answer = self._check_out(order, expected=None if difference is None else euros(max(price + difference, 0)))
        if not cart.is_deleted and (before := self.of_version.get((cart.id, order.etag))):
            self._check(before, answer)  # whatever the customer expects now, this version was ordered
            return multiple()
        if cart.gone:
            refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        elif order.etag != cart.etag:
            refused(answer, "ABORTED", "CART_CHANGED")
        elif not cart.items:
            refused(answer, "FAILED_PRECONDITION", "CART_EMPTY")
        elif any(each.deleted for each in wanted.values()):
            refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
        elif any(each.stock < cart.items[key].quantity for key, each in wanted.items()):
            refused(answer, "FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        elif expected == "lower":
            refused(answer, "FAILED_PRECONDITION", "PRICE_CHANGED")
            amounts = {"expected_total": f"{price - 1}.00", "total": f"{price}.00"}
            assert answer.metadata == amounts | {"expected_currency": "EUR", "currency": "EUR"}
        else:
            self._ordered(order, cart, answer)
            return order
        if not cart.gone:
            self._get(cart)  # nothing has changed
        return multiple()

    def _ordered(self, order: CartOrder, cart: Cart, answer: order_pb2.Order) -> None:
        assert isinstance(answer, order_pb2.Order), answer
        order.items = {key: each.quantity for key, each in cart.items.items()}
        assert answer.HasField("ticket") == (not cart.subject)
        self._place(order, answer)
        self._check(order, answer)
        self.of_version[cart.id, cart.etag] = order
        emptied = self._call("GetCart", cart_pb2.GetCartRequest(id=cart.id), cart.metadata)
        self._changed(cart, {}, emptied)

    def _check_out(self, order: CartOrder, change: str = "", expected: money_pb2.Money | None = None) -> Any:
        assert order.cart
        request = cart_pb2.CheckoutCartRequest(
            id=order.cart.id,
            etag=order.etag,
            expected_total=expected,
            notes=order.notes,
            customer=order_pb2.Customer(email=self.email),
        )
        if change == "email":
            request.customer.email = f"x{self.email}"
        elif change:
            request.notes += "!"
        return self._call("CheckoutCart", request, order.cart.metadata)

    def _create(self, order: Order) -> None:
        if not isinstance(order, CartOrder):
            return super()._create(order)
        answer = self._check_out(order)
        assert order.cart
        if order.cart.is_deleted:
            return refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
        return self._check(order, answer)

    def _reuse(self, order: Order, change: str) -> Any:
        if not isinstance(order, CartOrder):
            return super()._reuse(order, change)
        answer = self._check_out(order, change)
        assert order.cart
        if order.cart.is_deleted:
            refused(answer, "NOT_FOUND", "CART_NOT_FOUND")
            return None
        return answer

    # --- what must be so

    def _changed(self, cart: Cart, items: dict[str, Item], answer: Any) -> None:
        """Compares a cart that a call has given these items. Its etag is another one if they are not what it had."""
        assert isinstance(answer, cart_pb2.Cart), answer
        if list(items.items()) != list(cart.items.items()):
            assert answer.etag not in (cart.etag, cart.old_etag)
            cart.items, cart.old_etag, cart.etag = items, cart.etag, answer.etag
        self._compare(cart, answer)

    def _compare(self, cart: Cart, answer: Any) -> None:
        """Compares a cart that a client got with the model's."""
        assert isinstance(answer, cart_pb2.Cart), answer
        assert (answer.id, answer.etag, answer.stale) == (cart.id, cart.etag, False)
        assert [(each.product_id, each.quantity) for each in answer.items] == [
            (product, each.quantity) for product, each in cart.items.items()
        ]
        sold = 0
        for found in answer.items:
            item, product = cart.items[found.product_id], self.known[found.product_id]
            problems: list[str] = []
            if product.deleted:
                problems.append("PRODUCT_DELETED")
            else:
                sold += product.price * item.quantity
                problems += ["PRICE_CHANGED"] if item.added_price != product.price else []
                problems += ["INSUFFICIENT_STOCK"] if product.stock < item.quantity else []
            assert [each.reason for each in found.problems] == problems
            assert found.available == (0 if product.deleted else product.stock)
            assert (found.name, found.unit_price) == (product.name, euros(product.price))
            assert found.added_unit_price == euros(item.added_price)
        assert answer.total == (euros(sold) if sold else money_pb2.Money())

    def teardown(self) -> None:
        """At the end, every cart is as the model says: no call has changed a cart that it was not for."""
        for each in self.made:
            self._get(each)


def _etag(cart: Cart, which: str) -> str:
    return {"": "", "right": cart.etag, "old": cart.old_etag}[which]


def _is_stale(cart: Cart, which: str) -> bool:
    return which == "old" and bool(cart.old_etag)
