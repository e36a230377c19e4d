"""Who reads the catalogue from replicas."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from shop.product.v1 import product_pb2

from product.service import ProductService
from product.store import ProductStore
from runtime.access.caller import ANYBODY, CALLER, NOBODY, Caller
from runtime.refusals import DomainError


class Recording(ProductStore):
    """A store without products, which counts its reads."""

    def __init__(self) -> None:
        self.reads = 0

    async def get(self, product_id: UUID) -> None:
        self.reads += 1

    async def batch_get(self, ids: Any) -> dict[UUID, Any]:
        self.reads += 1
        return {}

    async def list_categories(self, after: Any, limit: int) -> Sequence[Any]:
        self.reads += 1
        return []

    async def list(self, query: Any, after: Any, limit: int) -> Sequence[Any]:
        self.reads += 1
        return []


@pytest.mark.parametrize(
    ("caller", "reads_primary"),
    [
        (NOBODY, False),
        (Caller(subject="ada"), False),
        (Caller(subject="grace", is_staff=True), True),
        # Without tokens, staff cannot be told from customers.
        (ANYBODY, False),
    ],
)
async def test_staff_with_token_read_primary(caller: Caller, reads_primary: bool) -> None:
    """So they see at once what they have written."""
    token = CALLER.set(caller)
    context: Any = None  # none of these methods uses it here
    primary, copy = Recording(), Recording()
    service, product_id = ProductService(primary, copy), str(uuid4())
    with pytest.raises(DomainError, match="not found"):
        await service.GetProduct(product_pb2.GetProductRequest(id=product_id), context)
    with pytest.raises(DomainError, match="not found"):
        await service.BatchGetProducts(product_pb2.BatchGetProductsRequest(ids=[product_id]), context)
    await service.ListProducts(product_pb2.ListProductsRequest(), context)
    await service.ListCategories(product_pb2.ListCategoriesRequest(), context)
    assert (primary.reads, copy.reads) == ((4, 0) if reads_primary else (0, 4))
    CALLER.reset(token)
