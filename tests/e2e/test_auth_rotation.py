"""The keys of an OpenID provider change, and the provider goes away, while customers and staff call: no call fails."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import grpc
import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from shop.product.v1 import product_pb2, product_pb2_grpc

from tests.support.eventually import eventually
from tests.support.oidc import Provider, oidc_provider
from tests.support.rest import Rest
from tests.support.shop import RunningShop, run_shop

ROTATIONS = 5
CALLS = 10
"""Calls that each caller makes in each step."""

USES = 3
"""Calls for which a caller uses one token."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture(scope="module")
def guarded(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    with run_shop(tmp_path_factory.mktemp("rotation"), provider.variables()) as running:
        yield running


class Callers:
    """Call again and again, and write down what fails."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []

    async def run(self, name: str, call: Callable[[str], Awaitable[None]], *, staff: bool = False) -> None:
        """Makes calls until it is cancelled, with a new token each few calls."""
        while True:
            token = f"Bearer {self._provider.token(name, staff=staff)}"
            for _ in range(USES):
                try:
                    await call(token)
                except Exception as error:
                    self.failures.append(f"{name}: {error!r}")
                self.calls[call.__name__] += 1

    async def each_calls(self, times: int) -> None:
        """Waits until each caller has called so often."""
        wanted = {name: count + times for name, count in self.calls.items()}
        await eventually(lambda: self.failures or all(self.calls[name] >= count for name, count in wanted.items()))


def client(shop: RunningShop, token: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=shop.url, timeout=20, headers=headers)


async def test_no_call_fails_while_keys_rotate(guarded: RunningShop, provider: Provider) -> None:
    async with client(guarded, provider.token("grace", staff=True)) as staff:
        product = (await Rest(staff).product())["id"]
    async with client(guarded, provider.token("ada")) as customer:
        order = (await Rest(customer).order(product))["id"]
        (await customer.post(f"/api/v1/orders/{order}:cancel", json={})).raise_for_status()

    async with client(guarded) as http, grpc.aio.insecure_channel(guarded.target) as channel:
        products = product_pb2_grpc.ProductServiceStub(channel)

        async def get_order(token: str) -> None:
            (await http.get(f"/api/v1/orders/{order}", headers={"Authorization": token})).raise_for_status()

        async def get_product(token: str) -> None:
            (await http.get(f"/api/v1/products/{product}", headers={"Authorization": token})).raise_for_status()

        async def follow_order(token: str) -> None:
            path = f"/api/v1/orders/{order}/status/stream"
            answer = await http.get(path, headers={"Authorization": token})
            assert answer.text.endswith("event: completed\ndata: stream closed\n\n"), answer.text

        async def update_product(token: str) -> None:
            request = product_pb2.UpdateProductRequest(
                product=product_pb2.Product(id=product, variant=token[-8:]),
                update_mask=FieldMask(paths=["variant"]),
            )
            await products.UpdateProduct(request, metadata=(("authorization", token),), timeout=20)

        callers = Callers(provider)
        running = [
            asyncio.create_task(callers.run("ada", get_order)),
            asyncio.create_task(callers.run("ada", follow_order)),
            asyncio.create_task(callers.run("bob", get_product)),
            asyncio.create_task(callers.run("grace", update_product, staff=True)),
        ]
        try:
            await eventually(lambda: len(callers.calls) == len(running))
            for number in range(ROTATIONS):
                provider.rotate()
                await callers.each_calls(CALLS)
                provider.keys = provider.keys[-1:]
                await callers.each_calls(CALLS)
                if number == ROTATIONS // 2:
                    provider.go_away()
                    await callers.each_calls(2 * CALLS)
                    provider.come_back()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    assert callers.failures == []


async def test_token_of_a_removed_key_is_refused(guarded: RunningShop, provider: Provider) -> None:
    """A token of the next key makes the services fetch the keys."""
    async with client(guarded, provider.token("ada")) as old:
        (await old.get("/api/v1/orders")).raise_for_status()
        provider.rotate(keep=False)
        async with client(guarded, provider.token("ada")) as new:
            (await new.get("/api/v1/orders")).raise_for_status()
        await eventually(lambda: _refuses(old))


async def _refuses(http: httpx.AsyncClient) -> bool:
    return (await http.get("/api/v1/orders")).status_code == 401
