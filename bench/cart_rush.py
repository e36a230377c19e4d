"""Ten thousand carts that want the same hundred pieces within a minute, beside customers of other products."""

import asyncio
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import grpc
import psycopg
from google.protobuf.message import Message
from shop.cart.v1 import cart_pb2, cart_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from bench.bench_shop import BenchShop, bench_shop
from bench.cart_data import SECRET, cart_id, etag, fill_carts
from bench.data import HOT, fill_products, product_id
from bench.result import quantile
from bench.table import markdown
from local.settings import LOOPBACK
from runtime.errors import parse_rpc_error

CARTS = 10_000
PIECES = 100
SECONDS = 60
ROUNDS = 3
ALONE_SECONDS = 30
"""How long the other customers are measured without the rush, before each one."""

READS, ORDERS = 50, 20
"""GetProduct and CreateOrder of other products, a second."""

MAX_RATIO = 2.0
"""How many times as long as without the rush the slowest calls of other customers may take."""

Call = Callable[[int], Awaitable[Message]]
Outcome = tuple[str, str, float]
"""The name of a call, the reason of its error (empty if it succeeded), and its seconds."""

CUSTOMER = order_pb2.Customer(name="Ada Lovelace", email="ada@example.com", phone="+44 20 7946 0000")


async def _fire(name: str, call: Call, calls: int, per_second: float) -> list[Outcome]:
    """Makes calls at a steady rate, however long they take. A delay begins when the call was due."""
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def one(number: int) -> Outcome:
        due = start + number / per_second
        await asyncio.sleep(due - loop.time())
        reason = ""
        try:
            await call(number)
        except grpc.aio.AioRpcError as error:
            code, reason, _ = parse_rpc_error(error)
            reason = reason or code.name
        return name, reason, loop.time() - due

    return await asyncio.gather(*(one(number) for number in range(calls)))


async def _buy(address: str, first: int) -> list[Outcome]:
    """Orders all carts of a rush."""
    numbers = random.sample(range(first, first + CARTS), CARTS)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = cart_pb2_grpc.CartServiceStub(channel)

        def checkout(number: int) -> Awaitable[Message]:
            request = cart_pb2.CheckoutCartRequest(
                id=str(cart_id(numbers[number])),
                etag=str(etag(numbers[number])),
                customer=CUSTOMER,
                shipping_address="12 St James's Square, London",
                payment_method="CARD",
            )
            call: Awaitable[Message] = stub.CheckoutCart(request, metadata=(("cart-secret", SECRET),), timeout=10)
            return call

        return await _fire("CheckoutCart", checkout, CARTS, CARTS / SECONDS)


async def _others(address: str, seconds: int) -> list[Outcome]:
    """Reads and orders other products, as many a second as always."""
    async with grpc.aio.insecure_channel(address) as channel:
        products: Any = product_pb2_grpc.ProductServiceStub(channel)
        orders: Any = order_pb2_grpc.OrderServiceStub(channel)

        def read(_: int) -> Awaitable[Message]:
            call: Awaitable[Message] = products.GetProduct(product_pb2.GetProductRequest(id=_other()), timeout=10)
            return call

        def order(_: int) -> Awaitable[Message]:
            item = order_pb2.CreateOrderItem(product_id=_other(), quantity=1)
            call: Awaitable[Message] = orders.CreateOrder(
                order_pb2.CreateOrderRequest(items=[item], customer=CUSTOMER), timeout=10
            )
            return call

        both = await asyncio.gather(
            _fire("GetProduct", read, READS * seconds, READS), _fire("CreateOrder", order, ORDERS * seconds, ORDERS)
        )
        return [outcome for outcomes in both for outcome in outcomes]


def _other() -> str:
    """Returns the id of a product that is not in the rush."""
    return str(product_id(random.randint(ROUNDS + 1, HOT)))


def run_buy(address: str, first: int) -> list[Outcome]:
    """Runs the rush, in a process of its own."""
    return asyncio.run(_buy(address, first))


def run_others(address: str, seconds: int) -> list[Outcome]:
    """Runs the other customers, in a process of their own."""
    return asyncio.run(_others(address, seconds))


@dataclass(frozen=True, kw_only=True)
class Rush:
    """One rush. Delays are in milliseconds."""

    placed: int
    """Checkouts that returned an order."""
    stored: int
    """Orders of the product in the database."""
    left: int
    """Pieces of the product that are left."""
    refused: dict[str, int]
    """Checkouts that were refused, by reason."""
    placed_p99: float
    refused_p50: float
    refused_p99: float
    alone: dict[str, float]
    """The p99 of other customers' calls before the rush, by the name of the call."""
    beside: dict[str, float]
    """The same during the rush."""
    failed: int
    """Calls of other customers that failed."""
    cpu_s_per_1000: float
    """CPU seconds of all processes of the shop for 1,000 checkouts, nearly all of which are refused."""

    @property
    def ok(self) -> bool:
        """Whether all pieces were sold once, the other buyers were told so, and clients outside had no error."""
        told = self.refused == {"INSUFFICIENT_STOCK": CARTS - PIECES}
        return self.placed == self.stored == PIECES and not self.left and told and not self.failed


def _delays(outcomes: Sequence[Outcome], name: str, *, refused: bool = False) -> list[float]:
    return sorted(delay for called, reason, delay in outcomes if called == name and bool(reason) == refused)


def _rush(shop: BenchShop, pool: ProcessPoolExecutor, number: int) -> Rush:
    product, order = shop.postgres.service("product"), shop.postgres.service("order")
    wanted, first = product_id(number), 1 + (number - 1) * CARTS
    with psycopg.connect(product) as connection:
        connection.execute("UPDATE product SET stock = %s WHERE id = %s", (PIECES, wanted))
    fill_carts(order, first, CARTS, product=number, products=1)
    address = f"{LOOPBACK}:{shop.edge_ports[0]}"
    spent = [_spent(shop)]
    before = pool.submit(run_others, address, ALONE_SECONDS).result()
    spent.append(_spent(shop))
    others, buyers = pool.submit(run_others, address, SECONDS), pool.submit(run_buy, address, first)
    beside, bought = others.result(), buyers.result()
    shop.settle()
    spent.append(_spent(shop))
    without = (spent[1] - spent[0]) * SECONDS / ALONE_SECONDS
    with psycopg.connect(order) as connection:
        (stored,) = connection.execute(
            "SELECT count(*) FROM orders WHERE status = 'PLACED' AND items->0->>'product_id' = %s", (str(wanted),)
        ).fetchall()
    with psycopg.connect(product) as connection:
        (left,) = connection.execute("SELECT stock FROM product WHERE id = %s", (wanted,)).fetchall()
    placed = _delays(bought, "CheckoutCart")
    refused = _delays(bought, "CheckoutCart", refused=True)
    names = ("GetProduct", "CreateOrder")
    return Rush(
        placed=len(placed),
        stored=stored[0],
        left=left[0],
        refused=dict(Counter(reason for _, reason, _ in bought if reason)),
        placed_p99=quantile(placed, 0.99),
        refused_p50=quantile(refused, 0.5),
        refused_p99=quantile(refused, 0.99),
        alone={name: quantile(_delays(before, name), 0.99) for name in names},
        beside={name: quantile(_delays(beside, name), 0.99) for name in names},
        failed=sum(bool(reason) for _, reason, _ in (*before, *beside)),
        cpu_s_per_1000=round(1000 * (spent[2] - spent[1] - without) / CARTS, 2),
    )


def _spent(shop: BenchShop) -> float:
    return sum(map(shop.cpu, ("envoy", "product", "order"))) + shop.postgres_cpu()


def rush() -> tuple[bool, object, str]:
    """Measures some rushes, each for a product of its own."""
    with (
        bench_shop() as shop,
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        fill_products(shop.postgres.service("product"), HOT)
        shop.wait()
        rushes: list[Rush] = []
        for number in range(1, ROUNDS + 1):
            rushes.append(_rush(shop, pool, number))
            print(f"{rushes[-1]}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
            shop.check()
    ratios = {
        name: round(median(each.beside[name] / each.alone[name] for each in rushes), 2) for name in rushes[0].alone
    }
    rows = [
        (
            *(str(number), str(each.placed), str(each.stored), f"{sum(each.refused.values()):,}"),
            *(f"{each.refused_p50:.1f}", f"{each.refused_p99:.1f}", f"{each.cpu_s_per_1000:.2f}"),
            *(f"{each.alone[name]:.1f} → {each.beside[name]:.1f}" for name in ratios),
        )
        for number, each in enumerate(rushes, 1)
    ]
    head = (
        *("rush", "placed", "orders", "refused", "refused: p50 ms", "p99 ms", "CPU s per 1,000"),
        *(f"{name}: p99 ms" for name in ratios),
    )
    compared = " and ".join(f"{ratio:.2f} (`{name}`)" for name, ratio in ratios.items())
    text = (
        f"Rush: {CARTS:,} carts want the same {PIECES} pieces within {SECONDS} seconds, beside {READS} reads and"
        f" {ORDERS} orders of other products a second, over gRPC. The p99 of these is {compared} times that before the"
        f" rush (median of {ROUNDS}).\n\n" + markdown(head, rows)
    )
    held = all(each.ok for each in rushes) and max(ratios.values()) <= MAX_RATIO
    return held, {"ratios": ratios, "rushes": [asdict(each) for each in rushes]}, text
