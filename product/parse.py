"""What clients send, checked and turned into what the domain works with."""

import json
import re
from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf import field_mask_pb2
from shop.product.v1 import product_pb2, stock_pb2

from product.convert import seconds_of
from product.domain import MAX_SKU_LENGTH, MAX_SLUG_LENGTH, MAX_STOCK, WRITABLE, Content
from product.listing import Listing, ProductQuery, parse_order_by
from product.reservation import MAX_ITEMS, Hold, RequestedItem, ReservationState
from product.search import MAX_WORDS, split_words
from runtime import pages
from runtime.errors import invalid_argument
from runtime.money import price_micros
from runtime.pages import Cursor
from runtime.validate import NIL, Violations

LARGEST_BATCH = 100
LARGEST_STOCK_BATCH = 64
"""Reservations in one batch of changes. All of them with the most items fit into one message; a test says so."""
LARGEST_MASK = 50
"""Paths of one update mask. The fields of a product are fewer."""
SHOWN_PATH = 50
"""Characters of a path that a violation shows."""
MAX_CATEGORIES = 1_000
"""Categories of a page. It is more than a shop has: clients that know no page tokens read the first page only."""
LONGEST_TTL = 3600
"""Seconds that a hold may ask for."""
DEFAULT_EXPIRED = 100
LARGEST_EXPIRED = 1_000
LARGEST_RESERVATIONS = 100
"""Reservations in one answer, at most; fewer where they are very large."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SKU = re.compile(r"[A-Za-z0-9._-]+")
_URI = re.compile(r"(https?://[^\s/]|/(?!/))\S*")


def content_of(check: Violations, request: product_pb2.Product, fields: Set[str]) -> Content:
    """Those of the writable `fields` of a product that the client sent. Violations are named `product.…`."""
    content = Content(
        name=check.text("product.name", request.name, least=1, most=200) if "name" in fields else "",
        slug=_code(check, "slug", request.slug, MAX_SLUG_LENGTH) if "slug" in fields else "",
        sku=_code(check, "sku", request.sku, MAX_SKU_LENGTH) if "sku" in fields else "",
        variant=check.text("product.variant", request.variant, most=100) if "variant" in fields else "",
        description=check.text("product.description", request.description, most=10_000, lines=True)
        if "description" in fields
        else "",
        category=check.text("product.category", request.category, most=100) if "category" in fields else "",
        currency=request.price.currency_code if "price" in fields else "",
        price_micros=price_micros(check, "product.price", request.price) if "price" in fields else 0,
        star=request.star + 0.0 if "star" in fields else 0.0,  # turns -0.0 into 0.0
        image_uri=check.text("product.image_uri", request.image_uri, most=2_000) if "image_uri" in fields else "",
    )
    check.within("product.star", content.star, 0, 5)
    if content.image_uri and not _URI.fullmatch(content.image_uri):
        check.add("product.image_uri", "must be an http or https URI, or a path that begins with /")
    return content


def _code(check: Violations, field: str, value: str, most: int) -> str:
    value = check.text(f"product.{field}", value, most=most)
    if not value:
        return ""
    if field == "slug" and not _SLUG.fullmatch(value):
        check.add("product.slug", "must be lower-case letters, digits and single hyphens between them")
    elif field == "sku" and not _SKU.fullmatch(value):
        check.add("product.sku", "must be letters, digits, '.', '_' and '-'")
    return value


def new_product(request: product_pb2.Product) -> tuple[Content, int]:
    """The content and the first stock of a product to create. Output-only fields are ignored (AIP-203)."""
    with Violations() as check:
        content = content_of(check, request, frozenset(WRITABLE))
        check.within("product.stock", request.stock, 0, MAX_STOCK)
    return content.complete(frozenset(WRITABLE)), request.stock


def changes(request: product_pb2.UpdateProductRequest) -> tuple[UUID, Content, frozenset[str]]:
    """The product of an update, its new content, and the fields to write."""
    with Violations() as check:
        product_id = check.uuid("product.id", request.product.id)
        fields = (
            _masked(check, request.update_mask) if request.update_mask.paths else _populated(check, request.product)
        )
        content = content_of(check, request.product, fields)
        if "name" not in fields:
            for field in fields & {"slug", "sku"}:
                if not getattr(content, field):
                    check.add(f"product.{field}", "must not be empty unless the name, which makes it, is written too")
    return product_id, content.complete(fields), fields


def _populated(check: Violations, request: product_pb2.Product) -> frozenset[str]:
    fields = frozenset(field.name for field, _ in request.ListFields()) & frozenset(WRITABLE)
    if not fields and request.stock:
        check.add("product.stock", "is not written by an update; use AdjustStock")
    return fields


def _masked(check: Violations, mask: field_mask_pb2.FieldMask) -> frozenset[str]:
    if not check.at_most("update_mask", len(mask.paths), LARGEST_MASK):
        return frozenset()
    if list(mask.paths) == ["*"]:
        return frozenset(WRITABLE)
    for path in mask.paths:
        if path in WRITABLE:
            continue
        if path in product_pb2.Product.DESCRIPTOR.fields_by_name:
            check.add("update_mask", f"must not name {path}: an update cannot write it")
        elif path == "*":
            check.add("update_mask", "must not name anything beside *")
        else:
            check.add("update_mask", f"names {_shown(path)}, which is no field of a product")
    return frozenset(mask.paths) & frozenset(WRITABLE)


def _shown(path: str) -> str:
    """A path as a violation names it: in quotes, since it may be a blank too many that is wrong with it."""
    return json.dumps(path if len(path) <= SHOWN_PATH else path[:SHOWN_PATH] + "...")


def batch_ids(request: product_pb2.BatchGetProductsRequest) -> list[UUID]:
    """The ids of a batch: 1 to 100, each once."""
    with Violations() as check:
        return _batch(check, "ids", request.ids, LARGEST_BATCH)


def listing(request: product_pb2.ListProductsRequest) -> Listing:
    """Returns the page of products that is asked for. Its token is read with the page, once for all who ask for it."""
    size = pages.page_size(request.page_size)
    sort = parse_order_by(request.order_by)
    with Violations() as check:
        search = check.text("search", request.search, most=200, lines=True)
        if (words := len(split_words(search))) > MAX_WORDS:
            check.add("search", f"must have at most {MAX_WORDS} different words, not {words}")
        category = check.text("category", request.category, most=100)
    return Listing(ProductQuery(search, category, sort), request.page_token, size)


def categories(request: product_pb2.ListCategoriesRequest) -> tuple[Cursor, int]:
    """Returns where a page of categories begins, and how many categories it gets."""
    size = pages.page_size(request.page_size, MAX_CATEGORIES, MAX_CATEGORIES)
    return Cursor.parse(request.page_token, ("categories",), (str,)), size


def adjustment(request: product_pb2.AdjustStockRequest) -> UUID:
    """The product of an adjustment."""
    with Violations() as check:
        product_id = check.uuid("id", request.id)
        if not request.delta:
            check.add("delta", "must not be 0")
    return product_id


def check_batch(field: str, requests: Sequence[object]) -> None:
    """A batch of changes has 1 to 64 requests."""
    if not 1 <= len(requests) <= LARGEST_STOCK_BATCH:
        raise invalid_argument([(field, f"must be 1 to {LARGEST_STOCK_BATCH}, not {len(requests)}")])


def hold(request: stock_pb2.ReserveStockRequest) -> Hold:
    """A reservation that is asked for: 1 to 50 items, each product once, for 1 s to 1 h."""
    with Violations() as check:
        reservation_id = check.uuid("reservation_id", request.reservation_id)
        ttl = seconds_of(request.ttl)
        if not 1 <= ttl <= LONGEST_TTL:
            check.add("ttl", "must be from 1 second to 1 hour")
            ttl = 1
        items: list[RequestedItem] = []
        if not 1 <= len(request.items) <= MAX_ITEMS:
            check.add("items", f"must be 1 to {MAX_ITEMS}, not {len(request.items)}")
        else:
            for index, item in enumerate(request.items):
                items.append(RequestedItem(check.uuid(f"items[{index}].product_id", item.product_id), item.quantity))
                if item.quantity < 1:
                    check.add(f"items[{index}].quantity", "must be at least 1")
            _once(check, "items[{}].product_id", [item.product_id for item in items])
    return Hold(reservation_id, items, timedelta(seconds=ttl))


def expired(request: stock_pb2.ListExpiredReservationsRequest) -> tuple[Cursor, int]:
    """Returns where a page of expired holds begins, and how many holds it gets."""
    size = pages.page_size(request.page_size, DEFAULT_EXPIRED, LARGEST_EXPIRED)
    return Cursor.parse(request.page_token, ("expired",), (datetime, UUID)), size


def pair(request: stock_pb2.PairDatabasesRequest) -> tuple[UUID, UUID | None]:
    """The order database that calls, and the product database that it has on record."""
    with Violations() as check:
        order_database = check.uuid("order_database_id", request.order_database_id)
        product_database = None
        if request.product_database_id:
            product_database = check.uuid("product_database_id", request.product_database_id)
    return order_database, product_database


def reservation_ids(request: stock_pb2.BatchGetReservationsRequest) -> list[UUID]:
    """The ids of a batch: 1 to 100, each once."""
    with Violations() as check:
        return _batch(check, "reservation_ids", request.reservation_ids, LARGEST_RESERVATIONS)


def reservations(request: stock_pb2.ListReservationsRequest) -> tuple[list[ReservationState], Cursor, int]:
    """Returns the states to list, where a page of reservations begins, and how many reservations it gets."""
    known = stock_pb2.Reservation.State
    with Violations() as check:
        if len(request.states) > len(known.values()) or not set(request.states) <= set(known.values()) - {
            known.STATE_UNSPECIFIED
        }:
            check.add("states", "must be states of reservations")
        if request.page_size < 0:
            check.add("page_size", "must not be negative")
    wanted = {known.Name(each) for each in request.states}
    states = [state for state in ReservationState if not wanted or state.value in wanted]
    size = pages.page_size(request.page_size, LARGEST_RESERVATIONS, LARGEST_RESERVATIONS)
    return states, Cursor.parse(request.page_token, ("reservations", *states), (UUID,)), size


def _batch(check: Violations, field: str, values: Sequence[str], most: int) -> list[UUID]:
    if not 1 <= len(values) <= most:
        check.add(field, f"must be 1 to {most}, not {len(values)}")
        return []
    ids = [check.uuid(f"{field}[{index}]", value) for index, value in enumerate(values)]
    _once(check, field + "[{}]", ids)
    return ids


def _once(check: Violations, field: str, ids: list[UUID]) -> None:
    """Each id is there once; `field` is a format of its place."""
    first: dict[UUID, int] = {}
    for index, each in enumerate(ids):
        if first.setdefault(each, index) != index and each != NIL:
            check.add(field.format(index), f"is the same as {field.format(first[each])}")
