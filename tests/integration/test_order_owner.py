"""Orders belong to the customers who placed them. To everybody but staff, those of others do not exist."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from shop.order.v1 import order_pb2

from bench.data import fill_orders, vacuum
from bench.plans import Planned, Plans, describe
from order.domain import OrderQuery, Status
from order.store import OrderStore
from runtime.migrate import migrate
from tests.support.callers import Caller, GuardedShop, guarded_shop, raw_refusal, refusal
from tests.support.database import REPOSITORY
from tests.support.oidc import Provider, oidc_provider
from tests.support.order import FakeStock, OrderShop, order_shop
from tests.support.product import UNKNOWN
from tests.support.replica import ITEMS, TEXTS, Replica, replica_on

CALLS: dict[str, Callable[[Caller, str], Awaitable[object]]] = {
    "GetOrder": lambda caller, order_id: caller.get(order_id),
    "CancelOrder": lambda caller, order_id: caller.cancel(order_id),
    "CreateOrderTicket": lambda caller, order_id: caller.ticket(order_id),
    "StreamOrderStatus": lambda caller, order_id: caller.first_event(order_id),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def guarded(order_database: str, provider: Provider) -> AsyncIterator[GuardedShop]:
    async with guarded_shop(order_database, provider) as running:
        yield running


async def owners(shop: OrderShop) -> dict[str, str]:
    async with shop.connection() as connection:
        rows = await (await connection.execute("SELECT id::text, owner FROM orders")).fetchall()
    return dict(rows)


async def test_order_belongs_to_subject_of_token(guarded: GuardedShop) -> None:
    ada, sam = guarded.customer("ada"), guarded.staff("sam")
    orders = [await ada.create(), await guarded.guest().create(), await sam.create()]
    assert await owners(guarded.shop) == {
        order.id: owner for order, owner in zip(orders, ["ada", "", "sam"], strict=True)
    }


async def test_order_is_nobodys_without_tokens(order_database: str) -> None:
    async with order_shop(order_database, FakeStock(), CALLER_HEADER="x-user") as shop:
        order = await shop.orders.CreateOrder(
            order_pb2.CreateOrderRequest(items=[order_pb2.CreateOrderItem(product_id=UNKNOWN, quantity=1)]),
            metadata=(("x-user", "ada"),),
        )
        assert await owners(shop) == {order.id: ""}
        assert not order.HasField("ticket")
        async with shop.connection() as connection:
            rows = await connection.execute("SELECT caller FROM orders")
            assert await rows.fetchone() == ("ada",), "keys are still kept apart"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_another_customers_order_looks_missing(
    guarded: GuardedShop, call: Callable[[Caller, str], Awaitable[object]]
) -> None:
    """To the byte: who asks for an id must not learn whether it is an order's."""
    ada, eve = guarded.customer("ada"), guarded.customer("eve")
    hers, guests = await ada.create(), await guarded.guest().create()
    expected = await raw_refusal(call(eve, UNKNOWN))
    for order in (hers, guests):
        found = await raw_refusal(call(eve, order.id))
        assert repr(found).replace(order.id, UNKNOWN) == repr(expected)
    assert (await guarded.staff().get(hers.id)).status == order_pb2.Order.PLACED
    for allowed in (ada, guarded.staff()):
        await call(allowed, hers.id)
    await call(guarded.staff(), guests.id)


async def test_conditional_cancel_tells_others_nothing(guarded: GuardedShop) -> None:
    order = await guarded.customer("ada").create()
    for etag in ("1", "7", "x"):
        error = await refusal(guarded.customer("eve").cancel(order.id, etag))
        assert (error.code, error.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
    await guarded.staff().process(order.id)
    await guarded.staff().cancel(order.id)
    error = await refusal(guarded.customer("eve").cancel(order.id))
    assert error.reason == "ORDER_NOT_FOUND"


async def test_customers_list_their_own_orders(guarded: GuardedShop) -> None:
    ada, bob = guarded.customer("ada"), guarded.customer("bob")
    customer = {"email": "shared@example.com"}
    first, second = [(await ada.create(customer=customer)).id for _ in range(2)]
    his = await bob.create(customer=customer)
    guests = await guarded.guest().create(customer=customer)
    await guarded.staff().process(first)
    assert await ada.ids() == [second, first]
    assert await ada.ids(customer_email="shared@example.com") == [second, first]
    assert await ada.ids(status=order_pb2.Order.PROCESSED) == [first]
    assert await ada.ids(status=order_pb2.Order.PLACED, customer_email="shared@example.com") == [second]
    assert await ada.ids(number=his.number) == []
    assert await bob.ids(number=his.number) == [his.id]
    assert await guarded.customer("eve").ids() == []
    assert await guarded.staff().ids() == [guests.id, his.id, second, first]


async def test_concurrent_lists_of_customers_are_not_shared(guarded: GuardedShop) -> None:
    people = [guarded.customer(f"customer {n}") for n in range(8)]
    made = [(await each.create()).id for each in people]
    for _ in range(3):
        assert await asyncio.gather(*(each.ids() for each in people)) == [[each] for each in made]


async def test_page_token_of_another_customer_is_refused(guarded: GuardedShop) -> None:
    ada, eve = guarded.customer("ada"), guarded.customer("eve")
    for each in (ada, ada, eve, eve):
        await each.create()
    token = (await ada.page(page_size=1)).next_page_token
    assert len((await ada.page(page_size=1, page_token=token)).orders) == 1
    for other in (eve, guarded.staff()):
        assert set((await refusal(other.page(page_size=1, page_token=token))).fields) == {"page_token"}


async def test_idempotency_keys_of_customers_are_independent(guarded: GuardedShop) -> None:
    key = str(uuid4())
    callers = [guarded.customer("ada"), guarded.customer("bob"), guarded.staff(), guarded.guest()]
    made = [(await each.create(key)).id for each in callers]
    assert len(set(made)) == 4
    assert [(await each.create(key)).id for each in callers] == made


async def test_messages_do_not_show_the_owner(guarded: GuardedShop) -> None:
    order = await guarded.customer("subject-of-ada").create()
    for message in (order, await guarded.staff().get(order.id), await guarded.staff().process(order.id)):
        assert b"subject-of-ada" not in message.SerializeToString()


async def test_everybody_sees_all_orders_without_tokens(order_database: str, provider: Provider) -> None:
    async with guarded_shop(order_database, provider) as guarded:
        hers = await guarded.customer("ada").create()
    async with order_shop(order_database, FakeStock()) as shop:
        assert (await shop.get(hers.id)).id == hers.id
        assert [each.id for each in (await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders] == [hers.id]
        assert (await shop.move("CANCELLED", hers.id)).id == hers.id
        assert (await anext(aiter(shop.stream(hers.id)))).version == 1


async def test_own_cancel_runs_one_statement(order_database: str) -> None:
    async with replica_on(order_database) as replica:
        ids = [uuid4() for _ in range(3)]
        await _insert(replica, dict(zip(ids, ("ada", "bob", ""), strict=True)))
        replica.ran.clear()
        order, moved = await replica.store.move(ids[0], Status.CANCELLED, None, "ada")
        assert (order and order.owner, moved, replica.ran) == ("ada", True, ["order.move"])
        assert await replica.store.move(ids[1], Status.CANCELLED, None, "ada") == (None, False)
        assert await replica.store.move(ids[2], Status.CANCELLED, None, "") == (None, False), "nobody's is no guest's"


async def test_mixed_batch_moves_only_own_orders(order_database: str) -> None:
    """One statement moves the orders of several customers, and of staff."""
    async with replica_on(order_database) as replica:
        ids = [uuid4() for _ in range(6)]
        await _insert(replica, dict(zip(ids, ("ada", "ada", "bob", "bob", "", ""), strict=True)))
        callers = ("ada", "bob", "bob", None, None, "ada")
        results = await asyncio.gather(
            *(
                replica.store.move(each, Status.CANCELLED, None, caller)
                for each, caller in zip(ids, callers, strict=True)
            )
        )
        assert [moved for _, moved in results] == [True, False, True, True, True, False]
        assert [order is None for order, _ in results] == [False, True, False, False, False, True]
        assert [await replica.store.get_owner(each) for each in ids] == ["ada", "ada", "bob", "bob", "", ""]
        assert await replica.store.get_owner(uuid4()) is None
        listed = {owner: await replica.store.list(OrderQuery(owner=owner), None, 10) for owner in ("ada", "", None)}
        assert [len(each) for each in listed.values()] == [2, 0, 6], "what is nobody's is not a guest's"


async def test_cancel_does_not_wait_for_orders_of_others(order_database: str) -> None:
    """What a customer may not see, it does not lock, and does not wait for."""
    async with replica_on(order_database) as replica:
        order_id = uuid4()
        await _insert(replica, {order_id: "ada"})
        async with await psycopg.AsyncConnection.connect(order_database) as connection:
            await connection.execute("SELECT FROM orders WHERE id = %s FOR UPDATE", (order_id,))
            async with asyncio.timeout(5):
                assert await replica.store.move(order_id, Status.CANCELLED, None, "eve") == (None, False)


async def test_migration_keeps_orders_as_nobodys(empty_database: str, tmp_path: Path, provider: Provider) -> None:
    for path in sorted((REPOSITORY / "order" / "migrations").glob("*.sql")):
        if path.name < "0008":
            (tmp_path / path.name).write_text(path.read_text())
    await migrate(empty_database, tmp_path)
    key = str(uuid4())
    insert = "INSERT INTO orders (id, number, status, caller) VALUES (%s, next_order_number(), 'PLACED', 'ada')"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(insert, (key,))
    assert (await migrate(empty_database, REPOSITORY / "order" / "migrations"))[0] == 8
    later = str(uuid4())
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(insert, (later,))  # a pod of the release before, during the rollout
    async with guarded_shop(empty_database, provider) as guarded:
        assert (await refusal(guarded.customer("ada").get(key))).code == "NOT_FOUND"
        assert (await guarded.staff().get(key)).id == key
        assert set(await guarded.staff().ids()) == {key, later}
        assert await guarded.customer("ada").ids() == []


SCAN = 40
"""Buffers of a page of 20 whose rows are all on pages of their own, and some of an index."""


async def test_customers_page_reads_own_rows_only(order_database: str) -> None:
    fill_orders(order_database, 1, 60_000, ours=True, open_orders=5_000)
    with psycopg.connect(order_database) as connection:
        # Some customers have many orders, most have a few, and a third of all orders are nobody's.
        connection.execute(
            "UPDATE orders"
            " SET owner = CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN 'big ' || n % 5 ELSE 'small ' || n % 9973 END"
            " FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM orders) AS numbered"
            " WHERE orders.id = numbered.id"
        )
    vacuum(order_database, "orders")
    with closing(Plans(order_database)) as plans:
        store = OrderStore(plans)  # type: ignore[arg-type]  # in the place of a Database
        for owner in ("big 1", "big 3", "small 17", "unknown"):
            for query in (
                OrderQuery(owner=owner),
                OrderQuery(owner=owner, status=Status.PLACED),
                OrderQuery(owner=owner, customer_email="nobody@example.com", status=Status.PLACED),
                OrderQuery(owner=owner, number="INV-20260101-00000001"),
            ):
                with pytest.raises(Planned) as planned:
                    await store.list(query, None, 21)
                assert planned.value.cost.buffers <= SCAN, (query, describe(planned.value.cost.plan))
        with pytest.raises(Planned) as planned:
            await store.list(OrderQuery(owner="big 1"), None, 21)
        assert "orders_by_owner" in describe(planned.value.cost.plan)


async def _insert(replica: Replica, wanted: dict[UUID, str]) -> None:
    for order_id, owner in wanted.items():
        await replica.store.insert(order_id, owner, TEXTS, "EUR", ITEMS, owner)
