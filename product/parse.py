"""Checks requests for the catalogue and converts them to what the domain and the store take."""

import json
import re
from collections.abc import Set
from uuid import UUID

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from shop.product.v1 import product_pb2

from product.domain import WRITABLE, Content
from product.listing import Listing, ProductQuery, parse_order_by
from product.search import MAX_WORDS, split_words
from runtime import pages
from runtime.constraints import Constraints
from runtime.money import price_micros
from runtime.pages import Cursor
from runtime.validate import Violations

CONSTRAINTS = Constraints(product_pb2.DESCRIPTOR, multiline={"description", "search"})

MAX_MASK_PATHS = 50
"""Paths of one update mask. A product has fewer fields."""

MAX_SHOWN_PATH = 50
"""Characters of a mask's path that a violation shows."""

MAX_CATEGORIES = 1_000
"""Categories on one page, and the default. A shop has fewer, so clients that do not read pages get all of them."""

_ALL = frozenset(WRITABLE)

SLUG_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SKU_PATTERN = re.compile(r"[A-Za-z0-9._-]+")
_URI = re.compile(r"(https?://[^\s/]|/(?!/))\S*")

_FORMATS = (
    ("slug", SLUG_PATTERN, "must be lower-case letters, digits, and single hyphens between them"),
    ("sku", SKU_PATTERN, "must be letters, digits, '.', '_' and '-'"),
    ("image_uri", _URI, "must be an http or https URI, or a path that starts with one /"),
)

Identified = (
    product_pb2.GetProductRequest
    | product_pb2.DeleteProductRequest
    | product_pb2.UndeleteProductRequest
    | product_pb2.AdjustStockRequest
)
"""A request for one product."""


def product_id(request: Identified) -> UUID:
    """Returns the id of the product that a request is for. Raises INVALID_ARGUMENT if the request is malformed."""
    CONSTRAINTS.enforce(request)
    return UUID(request.id)


def new_product(product: product_pb2.Product) -> tuple[Content, int]:
    """Returns the content and the stock of a product to create. Output-only fields are ignored (AIP-203).

    Raises INVALID_ARGUMENT if the product is malformed.
    """
    with Violations() as violations:
        CONSTRAINTS.check(violations, product, "product.", _ALL | {"stock"})
        content = _content(violations, product, _ALL)
    return content.complete(_ALL), product.stock


def changes(request: product_pb2.UpdateProductRequest) -> tuple[UUID, Content, frozenset[str]]:
    """Returns the id of the product to update, its new content, and the fields to write.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    with Violations() as violations:
        product_id = violations.uuid("product.id", request.product.id)
        if request.update_mask.paths:
            fields = _masked(violations, request.update_mask)
        else:
            fields = _populated(violations, request.product)
        _keep_only(request.product, fields)
        CONSTRAINTS.check(violations, request.product, "product.", fields | {"etag"})
        content = _content(violations, request.product, fields)
        if "name" not in fields:
            for field in fields & {"slug", "sku"}:
                if not getattr(content, field):
                    violations.add(f"product.{field}", "must not be empty unless the update also writes the name")
    return product_id, content.complete(fields), fields


def _content(violations: Violations, product: product_pb2.Product, fields: Set[str]) -> Content:
    """Returns the content of a product. `fields` are those that the client writes; the others are clear."""
    for field, pattern, problem in _FORMATS:
        if (value := getattr(product, field)) and not pattern.fullmatch(value):
            violations.add(f"product.{field}", problem)
    return Content(
        name=product.name,
        slug=product.slug,
        sku=product.sku,
        variant=product.variant,
        description=product.description,
        category=product.category,
        currency=product.price.currency_code,
        price_micros=price_micros(violations, "product.price", product.price) if "price" in fields else 0,
        star=product.star + 0.0,  # turns -0.0 into 0.0
        image_uri=product.image_uri,
    )


def _keep_only(product: Message, fields: Set[str]) -> None:
    """Clears the writable fields that are not in `fields`."""
    for field in _ALL - fields:
        product.ClearField(field)


def _populated(violations: Violations, product: product_pb2.Product) -> frozenset[str]:
    fields = frozenset(field.name for field, _ in product.ListFields()) & _ALL
    if not fields and product.stock:
        violations.add("product.stock", "is read-only in an update; use AdjustStock")
    return fields


def _masked(violations: Violations, mask: field_mask_pb2.FieldMask) -> frozenset[str]:
    if len(mask.paths) > MAX_MASK_PATHS:
        violations.add("update_mask", f"must have at most {MAX_MASK_PATHS} paths, not {len(mask.paths):,}")
        return frozenset()
    if list(mask.paths) == ["*"]:
        return _ALL
    for path in mask.paths:
        if path in _ALL:
            continue
        if path in product_pb2.Product.DESCRIPTOR.fields_by_name:
            violations.add("update_mask", f"{path} is read-only")
        elif path == "*":
            violations.add("update_mask", "* must be the only path")
        else:
            violations.add("update_mask", f"unknown field {_shown(path)}")
    return frozenset(mask.paths) & _ALL


def _shown(path: str) -> str:
    """Returns a path as a violation shows it: in quotes, which make white space visible."""
    return json.dumps(path if len(path) <= MAX_SHOWN_PATH else path[:MAX_SHOWN_PATH] + "...")


def batch_ids(request: product_pb2.BatchGetProductsRequest) -> list[UUID]:
    """Returns the ids of the products to get. Raises INVALID_ARGUMENT if the request is malformed."""
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        violations.distinct("ids[{}]", request.ids, "duplicate id")
    return [UUID(each) for each in request.ids]


def listing(request: product_pb2.ListProductsRequest) -> Listing:
    """Returns the page of products to list. Its token is read with the page, once for all who ask for that page.

    Raises INVALID_ARGUMENT if the request is malformed.
    """
    with Violations() as violations:
        CONSTRAINTS.check(violations, request)
        if (words := len(split_words(request.search))) > MAX_WORDS:
            violations.add("search", f"must have at most {MAX_WORDS} different words, not {words}")
    query = ProductQuery(request.search, request.category, parse_order_by(request.order_by))
    return Listing(query, request.page_token, pages.page_size(request.page_size))


def categories(request: product_pb2.ListCategoriesRequest) -> tuple[Cursor, int]:
    """Returns where a page of categories starts, and its size. Raises INVALID_ARGUMENT if the request is malformed."""
    CONSTRAINTS.enforce(request)
    size = pages.page_size(request.page_size, MAX_CATEGORIES, MAX_CATEGORIES)
    return Cursor.parse(request.page_token, ("categories",), (str,)), size
