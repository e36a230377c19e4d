"""ProductService: the catalogue as gRPC."""

import logging
from functools import partial
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from shop.product.v1 import product_pb2, product_pb2_grpc

from product import domain, parse
from product.convert import product_message
from product.domain import Product
from product.listing import Listing
from product.store import Category, Conflict, ProductStore, Replayed
from runtime import pages
from runtime.access.caller import current
from runtime.batch import SharedLookup
from runtime.errors import ApiError, unavailable
from runtime.headers import Context, expected_version, request_key, send_etag
from runtime.pages import Position

log = logging.getLogger(__name__)

NAME = product_pb2.DESCRIPTOR.services_by_name["ProductService"].full_name

_ADJUSTMENTS = uuid5(NAMESPACE_URL, "shop/product/AdjustStock")
_CREATES = uuid5(NAMESPACE_URL, "shop/product/CreateProduct")

MAX_ATTEMPTS = 5
"""How many slugs and SKUs are tried where they are generated from the name."""

BUSY_RETRY_AFTER = 0.1
"""Seconds after which a client may retry a call that failed because of concurrent requests."""


class ProductService(product_pb2_grpc.ProductServiceServicer):
    """Reads requests, calls the store, and makes responses. Its methods are documented in product.proto."""

    def __init__(self, store: ProductStore, copy: ProductStore) -> None:
        """Takes the store, and the one that customers read, which may be a few seconds behind."""
        self._store = store
        self._copy = copy
        self._lists = {each: SharedLookup("product.list", partial(self._list, each)) for each in (store, copy)}

    @property
    def _catalogue(self) -> ProductStore:
        """What the caller of the running RPC reads. Staff see at once what they have written."""
        caller = current()
        return self._store if caller.is_staff and caller.subject else self._copy

    async def CreateProduct(self, request: product_pb2.CreateProductRequest, context: Context) -> product_pb2.Product:
        content, stock = parse.new_product(request.product)
        key = request_key(context, request.request_id)
        product_id = _scoped_id(_CREATES, key) if key else uuid4()
        fingerprint = content.fingerprint(stock)
        for _ in range(MAX_ATTEMPTS):
            outcome = await self._store.create(product_id, content, stock, fingerprint)
            if isinstance(outcome, Conflict):
                content = content.with_alternative(outcome.field, product_id)
                continue
            product = outcome.product
            if isinstance(outcome, Replayed):
                if outcome.fingerprint != fingerprint:
                    raise domain.key_reused(key)
            else:
                log.info("product created", extra={"product_id": product.id, "sku": product.sku, "stock": stock})
            return await _respond(product, context)
        raise _no_free_code()

    async def GetProduct(self, request: product_pb2.GetProductRequest, context: Context) -> product_pb2.Product:
        product_id = parse.product_id(request)
        product = domain.check_exists(await self._catalogue.get(product_id), product_id)
        return await _respond(product, context)

    async def BatchGetProducts(
        self, request: product_pb2.BatchGetProductsRequest, context: Context
    ) -> product_pb2.BatchGetProductsResponse:
        ids = parse.batch_ids(request)
        found = await self._catalogue.batch_get(ids)
        products = [product_message(domain.check_exists(found.get(each), each)) for each in ids]
        pages.check_batch_fits("ids", products)
        return product_pb2.BatchGetProductsResponse(products=products)

    async def ListProducts(
        self, request: product_pb2.ListProductsRequest, context: Context
    ) -> product_pb2.ListProductsResponse:
        return await self._lists[self._catalogue](parse.listing(request))

    async def _list(self, store: ProductStore, listing: Listing) -> product_pb2.ListProductsResponse:
        query = listing.query
        cursor = query.cursor(listing.page_token)
        found = await store.list(query, cursor.after, listing.size + 1)
        products, token = cursor.page(found, listing.size, product_message, query.sort.position)
        return product_pb2.ListProductsResponse(products=products, next_page_token=token)

    async def UpdateProduct(self, request: product_pb2.UpdateProductRequest, context: Context) -> product_pb2.Product:
        product_id, content, fields = parse.changes(request)
        version = expected_version(context, request.product.etag)
        if not fields:
            product = domain.check_update(await self._store.get(product_id), product_id, version)
            return await _respond(product, context)
        for _ in range(MAX_ATTEMPTS):
            updated = await self._store.update(product_id, content, fields, version)
            if isinstance(updated, Conflict):
                content = content.with_alternative(updated.field, product_id)
                continue
            if updated is None:
                domain.check_update(await self._store.get(product_id), product_id, version)
                # Between the two statements it was undeleted, or got this version.
                raise unavailable("other requests are changing the product; try again", BUSY_RETRY_AFTER)
            log.info("product updated", extra={"product_id": updated.id, "fields": sorted(fields)})
            return await _respond(updated, context)
        raise _no_free_code()

    async def DeleteProduct(self, request: product_pb2.DeleteProductRequest, context: Context) -> product_pb2.Product:
        product_id = parse.product_id(request)
        version = expected_version(context, request.etag)
        product = await self._store.delete(product_id, version)
        if product:
            log.info("product deleted", extra={"product_id": product.id})
        else:
            product = domain.check_delete(await self._store.get_replicated(product_id), product_id, version)
        return await _respond(product, context)

    async def UndeleteProduct(
        self, request: product_pb2.UndeleteProductRequest, context: Context
    ) -> product_pb2.Product:
        product_id = parse.product_id(request)
        version = expected_version(context, request.etag)
        product = await self._store.undelete(product_id, version)
        if isinstance(product, Conflict):
            deleted = domain.check_exists(await self._store.get(product_id), product_id)
            raise domain.already_taken(product.field, deleted.slug if product.field == "slug" else deleted.sku)
        if product:
            log.info("product undeleted", extra={"product_id": product.id})
        else:
            product = domain.check_undelete(await self._store.get_replicated(product_id), product_id, version)
        return await _respond(product, context)

    async def ListCategories(
        self, request: product_pb2.ListCategoriesRequest, context: Context
    ) -> product_pb2.ListCategoriesResponse:
        cursor, size = parse.categories(request)
        found = await self._catalogue.list_categories(cursor.after, size + 1)
        categories, token = cursor.page(found, size, _category_message, _category_position)
        return product_pb2.ListCategoriesResponse(categories=categories, next_page_token=token)

    async def AdjustStock(self, request: product_pb2.AdjustStockRequest, context: Context) -> product_pb2.Product:
        product_id = parse.product_id(request)
        version = expected_version(context, request.etag)
        key = request_key(context, request.request_id) or uuid4()
        request_id = _scoped_id(_ADJUSTMENTS, key)
        product = await self._store.adjust(product_id, request.delta, request_id, version)
        if product and product.adjusted:
            log.info(
                "stock adjusted",
                extra={"product_id": product.id, "delta": request.delta, "stock": product.stock, "request_id": key},
            )
            return await _respond(product, context)
        earlier = await self._store.get_adjustment(request_id)
        if earlier is None:
            domain.check_adjustment(product, product_id, request.delta, version)
            # Between the two statements other requests changed the stock.
            raise unavailable("other requests are changing the stock; try again", BUSY_RETRY_AFTER)
        if (earlier.product_id, earlier.delta) != (product_id, request.delta):
            raise domain.key_reused(key)
        return await _respond(domain.check_exists(await self._store.get(product_id), product_id), context)


def _scoped_id(kind: UUID, key: UUID) -> UUID:
    """Returns the id that stands for the caller's idempotency key in one kind of request."""
    return uuid5(kind, f"{current().scope}\n{key}")


def _category_message(category: Category) -> product_pb2.Category:
    return product_pb2.Category(name=category.name)


def _category_position(category: Category) -> Position:
    return (category.name,)


def _no_free_code() -> ApiError:
    return unavailable("every generated slug or SKU was taken by other requests; try again", BUSY_RETRY_AFTER)


async def _respond(product: Product, context: Context) -> product_pb2.Product:
    # Weak: the stock is in the response, but the etag does not depend on it.
    await send_etag(context, product.etag, weak=True)
    return product_message(product)
