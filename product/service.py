"""ProductService: the catalogue as gRPC."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from shop.product.v1 import product_pb2, product_pb2_grpc

from product import domain, parse
from product.convert import product_message
from product.domain import Content, Product, Taken
from product.store import ProductStore
from runtime import pages
from runtime.batch import Shared
from runtime.errors import unavailable
from runtime.headers import Context, caller, expected_version, request_key, send_etag

log = logging.getLogger(__name__)

Written = TypeVar("Written")

NAME = product_pb2.DESCRIPTOR.services_by_name["ProductService"].full_name

_ADJUSTMENTS = uuid5(NAMESPACE_URL, "shop/product/AdjustStock")
_CREATES = uuid5(NAMESPACE_URL, "shop/product/CreateProduct")

ATTEMPTS = 5
"""How many slugs and skus are tried where they are made from the name."""


class ProductService(product_pb2_grpc.ProductServiceServicer):
    """Validates, asks the store, and says in the API's words what came of it."""

    def __init__(self, store: ProductStore, caller_header: str) -> None:
        self._store = store
        self._caller_header = caller_header
        self._listed = Shared("product.list", self._list)

    async def CreateProduct(self, request: product_pb2.CreateProductRequest, context: Context) -> product_pb2.Product:
        content, stock = parse.new_product(request.product)
        key = request_key(context, request.request_id)
        product_id = self._scoped(_CREATES, context, key) if key else uuid4()
        fingerprint = content.fingerprint(stock)

        async def create(content: Content) -> Product | None:
            try:
                return await self._store.create(product_id, content, stock, fingerprint)
            except Taken:
                # Maybe by the same request, which came twice at the same time.
                if key and await self._store.get(product_id):
                    return None
                raise

        product = await _until_free(product_id, content, create)
        if product:
            log.info("product created", extra={"product_id": product.id, "sku": product.sku, "stock": stock})
        else:
            product, before = await self._store.created(product_id)
            if before != fingerprint:
                raise domain.key_reused("another product", key)
        return await _answer(product, context)

    async def GetProduct(self, request: product_pb2.GetProductRequest, context: Context) -> product_pb2.Product:
        return await _answer(await self._get(parse.product_id(request)), context)

    async def BatchGetProducts(
        self, request: product_pb2.BatchGetProductsRequest, context: Context
    ) -> product_pb2.BatchGetProductsResponse:
        ids = parse.batch_ids(request)
        found = await self._store.batch_get(ids)
        for each in ids:
            if each not in found:
                raise domain.product_not_found(each)
        products = [product_message(found[each]) for each in ids]
        pages.whole("ids", products)
        return product_pb2.BatchGetProductsResponse(products=products)

    async def ListProducts(
        self, request: product_pb2.ListProductsRequest, context: Context
    ) -> product_pb2.ListProductsResponse:
        search, category = parse.filters(request)
        size = pages.page_size(request.page_size)
        order = domain.order_of(request.order_by)
        return await self._listed(_Listing(search, category, order, request.page_token, size))

    async def _list(self, listing: "_Listing") -> product_pb2.ListProductsResponse:
        search, category, order = listing.search, listing.category, listing.order
        query = (search, category, order.text)
        after = pages.decode(query, listing.page_token, order.key_types) if listing.page_token else None
        products = await self._store.list(search, category, order, after, listing.size + 1)
        page, token = pages.page(
            products, listing.size, product_message, lambda last: pages.encode(query, order.keys_of(last))
        )
        return product_pb2.ListProductsResponse(products=page, next_page_token=token)

    async def UpdateProduct(self, request: product_pb2.UpdateProductRequest, context: Context) -> product_pb2.Product:
        product_id, content, fields = parse.changes(request)
        revision = expected_version(context, request.product.etag)
        if fields:
            product = await _until_free(
                product_id, content, lambda content: self._store.update(product_id, content, fields, revision)
            )
            if product:
                log.info("product updated", extra={"product_id": product.id, "fields": sorted(fields)})
                return await _answer(product, context)
        product = domain.check_update(await self._store.get(product_id), product_id, revision)
        if fields:
            # It was undeleted, or came to have this revision, between the two statements.
            raise unavailable("the product is being changed", 0.1)
        return await _answer(product, context)

    async def DeleteProduct(self, request: product_pb2.DeleteProductRequest, context: Context) -> product_pb2.Product:
        product_id = parse.product_id(request)
        revision = expected_version(context, request.etag)
        product = await self._store.delete(product_id, revision)
        if product:
            log.info("product deleted", extra={"product_id": product.id})
        else:
            product = domain.check_delete(await self._store.get(product_id), product_id, revision)
        return await _answer(product, context)

    async def UndeleteProduct(
        self, request: product_pb2.UndeleteProductRequest, context: Context
    ) -> product_pb2.Product:
        product_id = parse.product_id(request)
        revision = expected_version(context, request.etag)
        try:
            product = await self._store.undelete(product_id, revision)
        except Taken as taken:
            deleted = await self._get(product_id)
            raise domain.already_taken(taken.field, deleted.slug if taken.field == "slug" else deleted.sku) from None
        if product:
            log.info("product undeleted", extra={"product_id": product.id})
        else:
            product = domain.check_undelete(await self._store.get(product_id), product_id, revision)
        return await _answer(product, context)

    async def ListCategories(
        self, request: product_pb2.ListCategoriesRequest, context: Context
    ) -> product_pb2.ListCategoriesResponse:
        after, size = parse.categories(request)
        found = await self._store.categories(after, size + 1)
        page, token = pages.page(
            found,
            size,
            lambda category: product_pb2.Category(name=category.name),
            lambda last: parse.categories_token(last.name),
        )
        return product_pb2.ListCategoriesResponse(categories=page, next_page_token=token)

    async def AdjustStock(self, request: product_pb2.AdjustStockRequest, context: Context) -> product_pb2.Product:
        product_id = parse.product_id(request)
        revision = expected_version(context, request.etag)
        key = request_key(context, request.request_id) or uuid4()
        scoped = self._scoped(_ADJUSTMENTS, context, key)
        product, done = await self._store.adjust(product_id, request.delta, scoped, revision)
        if done and product:
            log.info(
                "stock adjusted",
                extra={"product_id": product.id, "delta": request.delta, "stock": product.stock, "request_id": key},
            )
            return await _answer(product, context)
        before = await self._store.adjustment(scoped)
        if before is None:
            domain.check_adjustment(product, product_id, request.delta, revision)
            raise unavailable("the stock is being changed", 0.1)
        if (before.product_id, before.delta) != (product_id, request.delta):
            raise domain.key_reused("another product or delta", key)
        return await _answer(await self._get(product_id), context)

    def _scoped(self, kind: UUID, context: Context, key: UUID) -> UUID:
        """What a caller's idempotency key stands for in one kind of request."""
        return uuid5(kind, f"{caller(context, self._caller_header)}\n{key}")

    async def _get(self, product_id: UUID) -> Product:
        product = await self._store.get(product_id)
        if product is None:
            raise domain.product_not_found(product_id)
        return product


@dataclass(frozen=True)
class _Listing:
    """What a list asks for."""

    search: str
    category: str
    order: domain.Order
    page_token: str
    size: int


async def _until_free(product_id: UUID, content: Content, write: Callable[[Content], Awaitable[Written]]) -> Written:
    """Writes content; where a slug or sku that was made from the name is taken, with another one."""
    for _ in range(ATTEMPTS):
        try:
            return await write(content)
        except Taken as taken:
            content = content.instead(taken.field, product_id)
    raise unavailable("the catalogue is being changed", 0.1)


async def _answer(product: Product, context: Context) -> product_pb2.Product:
    # Weak: the stock is in the answer, and not in the etag.
    await send_etag(context, product.etag, weak=True)
    return product_message(product)
