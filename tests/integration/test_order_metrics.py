"""What the order service counts of orders, checkouts and carts, as Prometheus reads it. Each has its real cause."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from shop.cart.v1 import cart_pb2

from local.settings import free_ports
from order import stock as stock_module
from order.domain import Line
from order.outcomes import CHECKOUT_REASONS, MOVE_REASONS
from order.stock import Reservation, ReservationState
from runtime.errors import ApiError, database_full, query_timeout
from runtime.prices import Price
from tests.support.access import bearer
from tests.support.both import both_shops
from tests.support.carts import guest_cart
from tests.support.eventually import eventually
from tests.support.metrics import scrape
from tests.support.oidc import Issuer
from tests.support.order import A, B, FakeStock, OrderShop, create_request, order_shop
from tests.support.product import UNKNOWN, ProductShop, euros, refused
from tests.support.stock_server import Product, serving

CALLS = "rpc_client_call_duration_seconds"
STOCK_SERVICE = "shop.product.v1.StockService"


@dataclass(frozen=True)
class Counted:
    """A running order service whose product service is real, and what it has counted."""

    shop: OrderShop
    products: ProductShop
    port: int

    async def checkouts(self) -> dict[str, int]:
        """Returns the checkouts by outcome, those that never happened left out."""
        return await counts(self.port, "shop_checkouts_total", "outcome")


async def counts(port: int, name: str, label: str) -> dict[str, int]:
    """Returns a counter by the values of a label, without those that are 0."""
    seen = await scrape(port)
    samples = [sample for family in seen.families for sample in family.samples if sample.name == name]
    assert all(set(sample.labels) == {label} for sample in samples)
    return {sample.labels[label]: int(sample.value) for sample in samples if sample.value}


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def counted(order_database: str, product_database: str, port: int) -> AsyncIterator[Counted]:
    async with both_shops(order_database, product_database, METRICS_PORT=str(port)) as both:
        yield Counted(both.shop, both.products, port)


@pytest.fixture
async def shop(order_database: str, port: int) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, FakeStock(), METRICS_PORT=str(port)) as shop:
        yield shop


async def test_known_labels_begin_with_0(shop: OrderShop, port: int) -> None:
    """So an alert sees the first failure as an increase."""
    seen = await scrape(port)
    for name, label, values in (
        ("shop_orders_transitions_total", "status", ("PLACED", "PROCESSED", "DELIVERED", "RECEIVED", "CANCELLED")),
        ("shop_orders_refusals_total", "reason", (*MOVE_REASONS, "other")),
        ("shop_checkouts_total", "outcome", ("ordered", "repeated", *CHECKOUT_REASONS, "unavailable", "other")),
        ("shop_carts_changes_total", "operation", ("CREATE", "ADD", "SET", "CLEAR", "MERGE", "DELETE")),
        ("shop_outbox_sent_total", "action", ("CONFIRM", "RELEASE")),
        ("shop_outbox_failures_total", "action", ("CONFIRM", "RELEASE")),
        ("shop_holds_settled_total", "outcome", ("confirmed", "released")),
    ):
        assert {value: seen.values(name, **{label: value}) for value in values} == {value: [0] for value in values}, (
            name
        )
    assert seen.values("shop_carts_expired_total") == [0]


async def test_transitions_and_value_are_counted(shop: OrderShop, port: int) -> None:
    """The fake product service sells each piece for 1.50 EUR."""
    orders = [await shop.create({A: 2, B: 1}) for _ in range(3)]
    for status in ("PROCESSED", "DELIVERED", "RECEIVED"):
        await shop.move(status, orders[0].id)
    await shop.move("PROCESSED", orders[1].id)
    await shop.move("CANCELLED", orders[1].id)
    await shop.move("CANCELLED", orders[1].id)  # changes nothing
    assert await counts(port, "shop_orders_transitions_total", "status") == {
        "PLACED": 3,
        "PROCESSED": 2,
        "DELIVERED": 1,
        "RECEIVED": 1,
        "CANCELLED": 1,
    }
    assert (await scrape(port)).values("shop_orders_value_total", currency="EUR") == [13.5]


async def test_refused_moves_are_counted_by_reason(shop: OrderShop, port: int) -> None:
    order = await shop.create()
    for status, order_id, etag in (
        ("DELIVERED", order.id, ""),
        ("RECEIVED", order.id, ""),
        ("PROCESSED", order.id, "7"),
        ("PROCESSED", UNKNOWN, ""),
    ):
        with refused():
            await shop.move(status, order_id, etag)
    assert await counts(port, "shop_orders_refusals_total", "reason") == {
        "ILLEGAL_TRANSITION": 2,
        "ETAG_MISMATCH": 1,
        "ORDER_NOT_FOUND": 1,
    }


async def test_new_and_repeated_checkouts_are_counted_apart(counted: Counted) -> None:
    product = await counted.products.create(stock=10)
    key = str(uuid4())
    for _ in range(3):
        await counted.shop.create({product.id: 1}, request_id=key)
    cart = await guest_cart(counted.shop.carts)
    etag = (await cart.add(product.id)).etag
    for _ in range(3):
        await cart.checkout(etag)
    assert await counted.checkouts() == {"ordered": 2, "repeated": 4}


async def test_failed_orders_are_counted_by_reason(counted: Counted) -> None:
    product = await counted.products.create("Watch", stock=2)
    dollars = await counted.products.create("Strap", price={"currency_code": "USD", "units": 1})
    gone = await counted.products.create("Gone")
    await counted.products.delete(gone.id)
    key = str(uuid4())
    await counted.shop.create({product.id: 1}, request_id=key)
    for items, expected in (
        ({product.id: 3}, "INSUFFICIENT_STOCK"),
        ({product.id: 1, dollars.id: 1}, "CURRENCY_MISMATCH"),
        ({gone.id: 1}, "PRODUCT_DELETED"),
        ({UNKNOWN: 1}, "PRODUCT_NOT_FOUND"),
    ):
        with refused() as error:
            await counted.shop.create(items)
        assert error.reason == expected
    with refused() as error:
        await counted.shop.create({product.id: 1}, request_id=key, notes="another request")
    assert await counted.checkouts() == {
        "ordered": 1,
        "INSUFFICIENT_STOCK": 1,
        "CURRENCY_MISMATCH": 1,
        "PRODUCT_DELETED": 1,
        "PRODUCT_NOT_FOUND": 1,
        "IDEMPOTENCY_KEY_REUSED": 1,
    }


async def test_failed_checkouts_of_carts_are_counted_by_reason(counted: Counted) -> None:
    product = await counted.products.create(stock=10)
    cart = await guest_cart(counted.shop.carts)
    empty = (await cart.get()).etag
    filled = await cart.add(product.id)
    deleted = await guest_cart(counted.shop.carts)
    await deleted.delete()
    checkouts: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("CART_CHANGED", lambda: cart.checkout(empty)),
        ("PRICE_CHANGED", lambda: cart.checkout(filled.etag, euros(1))),
        ("CART_NOT_FOUND", lambda: deleted.checkout(empty)),
    ]
    for expected, checkout in checkouts:
        with refused() as error:
            await checkout()
        assert error.reason == expected
    new = (await cart.clear()).etag
    with refused() as error:
        await cart.checkout(new)
    assert error.reason == "CART_EMPTY"
    assert await counted.checkouts() == dict.fromkeys((*(name for name, _ in checkouts), "CART_EMPTY"), 1)


async def test_expired_checkouts_are_counted(shop: OrderShop, port: int, order_database: str) -> None:
    """A tombstone has the id of the order."""
    key = str(uuid4())
    order = await shop.create(request_id=key)
    async with shop.connection() as connection:
        await connection.execute("UPDATE orders SET status = 'EXPIRED', number = NULL WHERE id = %s", (order.id,))
    with refused() as error:
        await shop.create(request_id=key)
    assert error.reason == "ORDER_EXPIRED"
    assert await counts(port, "shop_checkouts_total", "outcome") == {"ordered": 1, "ORDER_EXPIRED": 1}


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (database_full("the product database is full"), "DATABASE_FULL"),
        (query_timeout("the product database timed out"), "QUERY_TIMEOUT"),
        (ApiError(grpc.StatusCode.UNAVAILABLE, "the product service is restarting"), "unavailable"),
        (ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"), "unavailable"),
        (ApiError(grpc.StatusCode.FAILED_PRECONDITION, "a reason of a later release"), "other"),
    ],
)
async def test_faults_of_product_service_are_counted(
    order_database: str, port: int, refusal: ApiError, outcome: str
) -> None:
    async with (
        serving(Product(refusal=refusal)) as address,
        order_shop(order_database, address, METRICS_PORT=str(port)) as shop,
    ):
        with refused():
            await shop.create()
        assert await counts(port, "shop_checkouts_total", "outcome") == {outcome: 1}


async def test_bug_during_checkout_is_counted(order_database: str, port: int) -> None:
    class Broken(FakeStock):
        async def reserve(
            self, order_id: UUID, lines: Sequence[Line], timeout: float | None, expected: Price | None = None
        ) -> Reservation:
            return Reservation(ReservationState.HELD, "EUR", [])

    async with order_shop(order_database, Broken(), METRICS_PORT=str(port)) as shop:
        with refused() as error:
            await shop.create()
        assert error.code == "INTERNAL"
        assert await counts(port, "shop_checkouts_total", "outcome") == {"other": 1}


async def test_read_only_database_is_counted(shop: OrderShop, port: int, order_database: str) -> None:
    name = sql.Identifier(str(conninfo_to_dict(order_database)["dbname"]))
    async with shop.connection() as connection:
        await connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with refused() as error:
        await shop.create()
    assert error.reason == "DATABASE_READ_ONLY"
    assert await counts(port, "shop_checkouts_total", "outcome") == {"DATABASE_READ_ONLY": 1}


async def test_changes_of_carts_are_counted(shop: OrderShop, port: int) -> None:
    """Once each: a repeated addition and a refused change are none."""
    cart = await guest_cart(shop.carts)
    key = str(uuid4())
    etag = (await cart.add(A, request_id=key)).etag
    await cart.add(A, request_id=key)
    await cart.set(A, 5)
    with refused():
        await cart.set(A, 6, etag)
    await cart.clear()
    await cart.delete()
    with refused():
        await cart.delete()
    expected = {"CREATE": 1, "ADD": 1, "SET": 1, "CLEAR": 1, "DELETE": 1}
    assert await counts(port, "shop_carts_changes_total", "operation") == expected


async def test_carts_of_customers_are_counted(order_database: str, port: int, tmp_path: Path) -> None:
    """A customer's cart is created by the first call that needs it."""
    issuer = Issuer("https://login.example")
    access: dict[str, Any] = issuer.in_file(tmp_path / "keys.json")
    async with order_shop(order_database, FakeStock(), METRICS_PORT=str(port), **access) as shop:
        guest = await guest_cart(shop.carts)
        own = bearer(issuer.token("ada"))
        for _ in range(2):
            await shop.carts.GetMyCart(cart_pb2.GetMyCartRequest(), metadata=own)
        request = cart_pb2.MergeCartRequest(cart_id=guest.id, secret=guest.secret)
        await shop.carts.MergeCart(request, metadata=own)
        assert await counts(port, "shop_carts_changes_total", "operation") == {"CREATE": 2, "MERGE": 1}


async def test_calls_of_product_service_are_measured(order_database: str, port: int) -> None:
    async with (
        serving(Product()) as address,
        order_shop(order_database, address, METRICS_PORT=str(port)) as shop,
    ):
        await shop.create()
        seen = await scrape(port)
    labels = {"rpc_system_name": "grpc", "rpc_method": f"{STOCK_SERVICE}/BatchReserveStock"}
    assert seen.value(f"{CALLS}_count", **labels, rpc_response_status_code="OK") == 1
    assert 0 < seen.value(f"{CALLS}_sum", **labels) < 5


async def test_calls_without_response_are_late(order_database: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client, the batch and the call have the same time limit. Whichever ends first, the call was late."""
    monkeypatch.setattr(stock_module, "RESERVE_TIMEOUT", 1.5)
    async with (
        serving(Product(delay=5)) as address,
        order_shop(order_database, address, METRICS_PORT=str(port)) as shop,
    ):
        for timeout in (None, 1.0):
            with refused():
                await shop.orders.CreateOrder(create_request(), timeout=timeout)

        async def late() -> bool:
            seen = await scrape(port)
            labels = {"rpc_method": f"{STOCK_SERVICE}/BatchReserveStock"}
            codes = {
                code: seen.value(f"{CALLS}_count", **labels, rpc_response_status_code=code)
                for code in ("DEADLINE_EXCEEDED", "CANCELLED")
            }
            return codes == {"DEADLINE_EXCEEDED": 2, "CANCELLED": 0}

        await eventually(late, 5)


async def test_failed_calls_of_product_service_have_their_code(order_database: str, port: int) -> None:
    (nobody,) = free_ports(1)
    async with order_shop(order_database, f"127.0.0.1:{nobody}", METRICS_PORT=str(port)) as shop:
        with refused() as error:
            await shop.create()
        assert error.code == "UNAVAILABLE"
        seen = await scrape(port)
        method = f"{STOCK_SERVICE}/BatchReserveStock"
        assert seen.value(f"{CALLS}_count", rpc_method=method, rpc_response_status_code="UNAVAILABLE") == 1
        assert await counts(port, "shop_checkouts_total", "outcome") == {"unavailable": 1}
