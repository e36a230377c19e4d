"""The demo against the real shop."""

import asyncio

import grpc
import httpx
import pytest
from shop.order.v1 import order_pb2

from demo.buy import Buyer
from demo.load import catalogue, load
from demo.simulate import Pace, Simulator
from runtime.cli import CommandError
from tests.support.rest import Rest
from tests.support.shop import RunningShop


async def test_catalogue_is_loaded_once(shop: RunningShop, rest: Rest) -> None:
    async with grpc.aio.insecure_channel(shop.product_target) as channel:
        # Another test may have loaded some of it before.
        _, found_or_created = await load(channel)
        assert found_or_created == len(catalogue())
        assert await load(channel) == (0, len(catalogue()))
    found = await rest.http.get("/api/v1/products", params={"search": "walnut brass"})
    assert found.status_code == 200
    categories = {each["name"] for each in (await rest.http.get("/api/v1/categories")).json()["categories"]}
    assert categories >= {each.category for each in catalogue()}


async def test_loader_reports_an_unavailable_service() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(CommandError, match="UNAVAILABLE"):
            await load(channel, timeout=0.1)


async def buy(shop: RunningShop) -> order_pb2.Order:
    async with (
        grpc.aio.insecure_channel(shop.product_target) as to_product,
        grpc.aio.insecure_channel(shop.order_target) as to_order,
    ):
        return await Buyer(to_product, to_order, timeout=0.1).buy()


async def test_buyer_orders_a_cart(shop: RunningShop, rest: Rest) -> None:
    await rest.product()
    order = await buy(shop)
    found = (await rest.http.get(f"/api/v1/orders/{order.id}")).json()
    assert found["number"] == order.number
    assert [each["productId"] for each in found["items"]] == [each.product_id for each in order.items]
    assert found["total"]["currencyCode"] == order.total.currency_code


async def test_buyer_is_a_guest_in_a_shop_with_tokens(shop_with_tokens: RunningShop) -> None:
    headers = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=headers) as http:
        await Rest(http).product()
        order = await buy(shop_with_tokens)
        assert order.ticket
        assert (await http.get(f"/api/v1/orders/{order.id}")).json()["number"] == order.number


async def test_buyer_reports_an_unavailable_service() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(CommandError, match="product service returned UNAVAILABLE"):
            await Buyer(channel, channel, timeout=0.1).buy()


async def test_simulator_moves_open_orders_only(shop: RunningShop, rest: Rest) -> None:
    product = await rest.product()
    order, cancelled = await rest.order(product["id"]), await rest.order(product["id"])
    await rest.http.post(f"/api/v1/orders/{cancelled['id']}:cancel", json={})
    async with grpc.aio.insecure_channel(shop.order_target) as channel:
        simulator = Simulator(channel, Pace(0, 0))
        for _ in range(3):
            await simulator.poll()

    async def status(order_id: str) -> str:
        found: str = (await rest.http.get(f"/api/v1/orders/{order_id}")).json()["status"]
        return found

    assert await status(order["id"]) == "RECEIVED"
    assert await status(cancelled["id"]) == "CANCELLED"


async def test_simulator_waits_for_the_order_service() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        running = asyncio.create_task(Simulator(channel, Pace(0, 0)).run())
        await asyncio.sleep(1)
        assert not running.done()
        running.cancel()
