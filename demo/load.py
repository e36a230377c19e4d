"""Loads the demo catalogue. It leaves existing products as they are, so it can run again and again."""

import json
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import grpc
from google.protobuf import json_format
from shop.product.v1 import product_pb2, product_pb2_grpc

from demo.calls import CALL_TIMEOUT, Retries

CATALOGUE = Path(__file__).parent / "catalogue.json"

LOAD_TIMEOUT = 60.0
"""Seconds to wait for the product service."""

PAGE_SIZE = 100
"""Products on a page, when the existing ones are listed."""


def catalogue() -> list[product_pb2.Product]:
    """Returns the products of the demo."""
    return [json_format.ParseDict(row, product_pb2.Product()) for row in json.loads(CATALOGUE.read_text())]


async def load(channel: grpc.aio.Channel, timeout: float = LOAD_TIMEOUT) -> tuple[int, int]:
    """Creates the products that are missing.

    Args:
        channel: A channel to the product service.
        timeout: Seconds to wait while the product service is unavailable.

    Returns:
        How many products were created, and how many the catalogue has.

    Raises:
        CommandError: The service stayed unavailable, or refused a call.
    """
    stub = product_pb2_grpc.ProductServiceStub(channel)
    retries = Retries("product", timeout)
    products = catalogue()
    existing = await _list_skus(stub, retries)
    created = 0
    for product in products:
        if product.sku not in existing:
            created += await _create(stub, product, retries)
    return created, len(products)


async def _list_skus(stub: "product_pb2_grpc.ProductServiceAsyncStub", retries: Retries) -> set[str]:
    skus: set[str] = set()
    token = ""
    while True:
        request = product_pb2.ListProductsRequest(page_size=PAGE_SIZE, page_token=token)
        try:
            page = await stub.ListProducts(request, timeout=CALL_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            await retries.wait(error)
            continue
        skus.update(product.sku for product in page.products)
        token = page.next_page_token
        if not token:
            return skus


async def _create(
    stub: "product_pb2_grpc.ProductServiceAsyncStub", product: product_pb2.Product, retries: Retries
) -> bool:
    """Creates a product. Returns whether it exists now, under its own SKU."""
    # The key depends on the SKU only: a product that was deleted or renamed since is not created a second time.
    key = str(uuid5(NAMESPACE_URL, f"shop/demo/{product.sku}"))
    request = product_pb2.CreateProductRequest(product=product, request_id=key)
    while True:
        try:
            created = await stub.CreateProduct(request, timeout=CALL_TIMEOUT)
            return created.sku == product.sku and not created.HasField("delete_time")
        except grpc.aio.AioRpcError as error:
            # Another product has its SKU or slug, or an older catalogue created it with other fields.
            if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                return False
            await retries.wait(error)
