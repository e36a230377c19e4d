"""What a cart costs does not depend on how many carts and orders there are, by PostgreSQL's own count of buffers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bench.cart_data import SECRET, cart_id, etag, fill_carts
from bench.data import fill_orders, vacuum
from bench.plans import Cost, Planned, Plans, describe
from order.cart.domain import Action, Change, Holder, hash_secret
from order.cart.store import CartStore
from order.domain import Draft, Item, Line, Offer
from order.jobs.ordered_carts import OrderedCarts
from order.store import OrderStore
from order.writes import CartVersion
from runtime.prices import Price

CARTS = 30_000
GUEST = Holder("", hash_secret(SECRET))
PRODUCT = uuid4()

DRAFT = Draft(
    lines=(Line(product_id=PRODUCT, quantity=1),),
    customer_name="Ada",
    customer_email="ada@example.com",
    customer_phone="",
    shipping_address="London",
    payment_method="CARD",
    notes="",
)
ITEM = Item(product_id=str(PRODUCT), quantity=1, name="oak chair", price_micros=1)


@pytest.fixture(scope="module")
def filled(postgres: Any) -> Iterator[str]:
    """A database with carts of guests and customers, and two orders of each third cart."""
    with postgres.database("order") as conninfo:
        fill_carts(conninfo, 1, CARTS, products=1_000)
        fill_orders(conninfo, 1_000, CARTS, ours=True)
        with psycopg.connect(conninfo) as connection:
            connection.execute(
                "INSERT INTO cart (owner, expire_time)"
                " SELECT 'customer ' || n, now() + interval '1 day' FROM generate_series(1, %s) AS n",
                (CARTS,),
            )
            connection.execute(
                "UPDATE orders SET cart_id = cart.id FROM cart WHERE secret_hash IS NOT NULL"
                " AND right(cart.id::text, 12) = right(orders.id::text, 12)"
            )
            connection.execute(
                "INSERT INTO cart_add (cart_id, request_id, product_id, quantity)"
                " SELECT id, gen_random_uuid(), gen_random_uuid(), 1 FROM cart"
            )
        vacuum(conninfo, "cart", "orders", "cart_add")
        yield conninfo


@pytest.fixture
def plans(filled: str) -> Iterator[Any]:
    with closing(Plans(filled)) as plans:
        yield plans


async def cost(call: Callable[[], Awaitable[object]]) -> Cost:
    with pytest.raises(Planned) as planned:
        await call()
    return planned.value.cost


def addition(request_id: UUID | None = None, number: int = CARTS // 2) -> Change:
    """Returns an add to a cart that lacks the product."""
    return Change(
        cart_id=cart_id(number),
        holder=GUEST,
        action=Action.ADD,
        product_id=PRODUCT,
        quantity=1,
        request_id=request_id,
        offer=Offer("oak chair", Price("EUR", 1), 5, deleted=False),
    )


async def test_cart_is_read_by_its_index(plans: Any) -> None:
    found = await cost(lambda: CartStore(plans).get(cart_id(CARTS // 2), GUEST))
    assert found.buffers <= 4, describe(found.plan)


async def test_customers_cart_is_read_by_its_index(plans: Any) -> None:
    found = await cost(lambda: CartStore(plans).get_owned("customer 77"))
    assert found.buffers <= 4, describe(found.plan)


async def test_change_reads_its_own_cart_only(plans: Any) -> None:
    """The statement finds it, locks it and writes it, each by the index."""
    found = await cost(lambda: CartStore(plans).change(addition()))
    assert found.buffers <= 20, describe(found.plan)
    found = await cost(lambda: CartStore(plans).change(addition(uuid4())))
    assert found.buffers <= 30, describe(found.plan)


async def test_batch_of_changes_reads_its_own_carts_only(plans: Any) -> None:
    found: list[Cost] = []
    measure = plans.cost

    def remember(*given: Any, **options: Any) -> Cost:
        found.append(measure(*given, **options))
        return found[-1]

    plans.cost = remember
    many = [addition(uuid4(), number) for number in range(1, CARTS, CARTS // 60)]
    outcomes = await asyncio.gather(*map(CartStore(plans).change, many), return_exceptions=True)
    assert {type(each) for each in outcomes} == {Planned}
    batch = max(found, key=lambda each: each.buffers)  # after a failure, each change runs alone
    assert 10 * len(many) <= batch.buffers <= 30 * len(many), describe(batch.plan)


async def test_checkout_reads_its_own_cart_only(plans: Any) -> None:
    version = CartVersion(cart_id(CARTS // 2), etag(CARTS // 2))
    found = await cost(
        lambda: OrderStore(plans).insert_from_cart(uuid4(), version, "caller", DRAFT, "EUR", [ITEM], "owner")
    )
    assert found.buffers <= 60, describe(found.plan)


async def test_carts_for_reconcile_are_read_in_pages(plans: Any) -> None:
    """Each cart costs a look into the index of its orders."""
    carts = OrderedCarts(plans)
    for after in (None, cart_id(CARTS - 600), cart_id(CARTS)):  # the last ones are carts of customers, without items
        found = await cost(lambda after=after: carts.list(after, 500))  # type: ignore[misc]  # bound in the loop
        assert found.buffers <= 5 * 500, describe(found.plan)
    found = await cost(lambda: carts.empty(cart_id(CARTS // 2)))
    assert found.buffers <= 20, describe(found.plan)
