"""Loads the demo catalogue. What is there already is left as it is, so it can run again and again."""

import asyncio
import json
import logging
import time
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import grpc
from google.protobuf import json_format
from shop.product.v1 import product_pb2, product_pb2_grpc

from runtime.cli import CommandError

log = logging.getLogger(__name__)

CATALOGUE = Path(__file__).parent / "catalogue.json"

AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""What passes if one waits."""

CALL_TIMEOUT = 5.0
"""Seconds for one call."""


def catalogue() -> list[product_pb2.Product]:
    """The products of the demo."""
    return [json_format.ParseDict(row, product_pb2.Product()) for row in json.loads(CATALOGUE.read_text())]


async def load(channel: grpc.aio.Channel, patience: float = 60) -> tuple[int, int]:
    """Creates what is missing; answers how many were created and how many there are in all.

    Waits up to `patience` seconds for the product service, and then raises CommandError.
    """
    stub = product_pb2_grpc.ProductServiceStub(channel)
    give_up = time.monotonic() + patience
    products = catalogue()
    there = await _skus(stub, give_up)
    created = 0
    for product in products:
        if product.sku not in there:
            created += await _create(stub, product, give_up)
    return created, len(products)


async def _skus(stub: "product_pb2_grpc.ProductServiceAsyncStub", give_up: float) -> set[str]:
    skus: set[str] = set()
    token = ""
    while True:
        request = product_pb2.ListProductsRequest(page_size=100, page_token=token)
        while True:
            try:
                page = await stub.ListProducts(request, timeout=CALL_TIMEOUT)
                break
            except grpc.aio.AioRpcError as error:
                await _wait(error, give_up)
        skus.update(product.sku for product in page.products)
        token = page.next_page_token
        if not token:
            return skus


async def _create(
    stub: "product_pb2_grpc.ProductServiceAsyncStub", product: product_pb2.Product, give_up: float
) -> bool:
    # With a key of its own, a product that somebody has deleted or renamed since does not come again.
    key = str(uuid5(NAMESPACE_URL, f"shop/demo/{product.sku}"))
    request = product_pb2.CreateProductRequest(product=product, request_id=key)
    while True:
        try:
            answer = await stub.CreateProduct(request, timeout=CALL_TIMEOUT)
            return answer.sku == product.sku and not answer.HasField("delete_time")
        except grpc.aio.AioRpcError as error:
            # Its sku or slug is somebody else's by now, or the catalogue it came from was an older one.
            if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                return False
            await _wait(error, give_up)


async def _wait(error: grpc.aio.AioRpcError, give_up: float) -> None:
    if error.code() not in AWAY or time.monotonic() > give_up:
        raise CommandError(f"the product service answers {error.code().name}: {error.details()}") from None
    await asyncio.sleep(0.5)
