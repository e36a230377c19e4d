"""Many clients search a large catalogue for what is nowhere: each search reads every product. Orders go on."""

import asyncio
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.type import money_pb2
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.faults.alert_table import CheckAlerts
from tests.faults.recorder import Recorder
from tests.faults.shop import PACE, FaultShop, Servers
from tests.support.catalogue import fill, searching, slowest

PRODUCTS = 100_000
SEARCHERS = (30, 210)
ORDERS = 25

FAULT = f"{SEARCHERS[-1]} clients search for what is nowhere"
ALERTS: tuple[str, ...] = ()
"""The alerts that fire."""

SLOWEST = 1.0
"""Seconds that an order may take."""


@pytest.mark.timeout(300)
async def test_expensive_searches_do_not_delay_orders(
    servers: Servers, tmp_path: Path, check_alerts: CheckAlerts, subtests: pytest.Subtests
) -> None:
    with servers.of["product"].database("product") as products, servers.of["order"].database("order") as orders:
        await fill(products, PRODUCTS)
        shop = FaultShop(tmp_path / "shop", servers, {"product": products, "order": orders}, {}, ())
        async with (
            shop.running(),
            Recorder(shop.targets.values(), PACE).running() as recorder,
            grpc.aio.insecure_channel(shop.product) as to_product,
            grpc.aio.insecure_channel(f"127.0.0.1:{shop.orders[0]}") as first,
            grpc.aio.insecure_channel(f"127.0.0.1:{shop.orders[1]}") as second,
        ):
            product = await product_pb2_grpc.ProductServiceStub(to_product).CreateProduct(
                product_pb2.CreateProductRequest(
                    product=product_pb2.Product(
                        name="Mug", stock=1_000, price=money_pb2.Money(currency_code="EUR", units=5)
                    )
                )
            )
            replicas = cycle([order_pb2_grpc.OrderServiceStub(first), order_pb2_grpc.OrderServiceStub(second)])
            item = order_pb2.CreateOrderItem(product_id=product.id, quantity=1)

            async def place() -> None:
                request = order_pb2.CreateOrderRequest(items=[item], request_id=str(uuid4()))
                await next(replicas).CreateOrder(request, timeout=5)

            alone = await slowest(place, ORDERS)
            for number in SEARCHERS:
                with subtests.test(f"{number} searchers"):
                    async with searching(shop.product, number) as told:
                        while not told:
                            await asyncio.sleep(0.05)
                        took = await slowest(place, ORDERS)
                        print(f"{number} searchers: the slowest order took {took:.3f} s, {alone:.3f} s alone; {told}")
                    assert took < SLOWEST
                    assert set(told) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    check_alerts(FAULT, recorder.recording, ALERTS)
