"""The issuer's keys are rotated while a service is busy, and no call fails."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from shop.product.v1 import product_pb2

from tests.support.eventually import eventually
from tests.support.oidc import JWKS, Provider, oidc_provider
from tests.support.product import ProductShop, product_shop


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


class Load:
    """Calls with tokens, one after the other, and how they ended."""

    def __init__(self, shop: ProductShop, provider: Provider) -> None:
        self.count = 0
        self.by_key: dict[str | None, int] = {}
        self._shop = shop
        self._provider = provider

    async def run(self, product_id: str, worker: int) -> None:
        while True:
            key = self._provider.keys[-1]
            staff = self._provider.token("eve", staff=True, key=key, n=self.count)
            customer = self._provider.token(f"user {worker}", key=key)
            request = product_pb2.UpdateProductRequest(product=product_pb2.Product(id=product_id, name=f"{worker}"))
            request.update_mask.paths.append("name")
            await self._shop.products.UpdateProduct(request, metadata=bearer(staff))
            await self._shop.products.GetProduct(
                product_pb2.GetProductRequest(id=product_id), metadata=bearer(customer)
            )
            self.count += 1
            self.by_key[key.kid] = self.by_key.get(key.kid, 0) + 1


async def test_rotation_under_load_fails_no_call(provider: Provider, product_database: str) -> None:
    """A new key signs at once, the old one goes once its tokens are out of use, and the provider is away at times."""
    async with product_shop(product_database, **provider.variables(AUTH_JWKS_REFRESH="1")) as shop:
        request = product_pb2.CreateProductRequest(product=product_pb2.Product(name="Oak table"))
        request.product.price.currency_code, request.product.price.units = "EUR", 5
        product = await shop.products.CreateProduct(request, metadata=bearer(provider.token(staff=True)))
        load = Load(shop, provider)
        workers = [asyncio.ensure_future(load.run(product.id, worker)) for worker in range(8)]

        async def busy(kid: str | None, calls: int) -> None:
            def enough() -> bool:
                ended = [worker for worker in workers if worker.done()]
                assert not ended, ended[0].exception()
                return load.by_key.get(kid, 0) >= calls

            await eventually(enough)

        for algorithm in ("RS256", "EdDSA", "ES256"):
            key = provider.rotate(algorithm=algorithm)
            await busy(key.kid, 50)
            provider.keys = [key]
            before = provider.fetches[JWKS]
            await eventually(lambda seen=before: provider.fetches[JWKS] > seen + 1)  # type: ignore[misc]
            provider.go_away()
            await busy(key.kid, load.by_key[key.kid] + 50)
            provider.come_back()
        for worker in workers:
            worker.cancel()
        ended: list[Any] = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def test_bad_token_is_unauthenticated_with_a_challenge(
    provider: Provider, product_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On a public method too; and no part of the token is in the log."""
    caplog.set_level(logging.DEBUG)
    async with product_shop(product_database, **provider.variables()) as shop:
        token = provider.foreign_token()
        call = shop.products.GetProduct(product_pb2.GetProductRequest(id="x"), metadata=bearer(token))
        assert (await call.code()).name == "UNAUTHENTICATED"
        trailers = {str(key): value for key, value in (await call.trailing_metadata()) or ()}
        assert trailers["www-authenticate"] == 'Bearer realm="shop", error="invalid_token"'
    assert "UNAUTHENTICATED" in caplog.text
    assert not any(part in f"{caplog.text} {[vars(record) for record in caplog.records]}" for part in token.split("."))
