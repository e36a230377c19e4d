"""The rules of the catalogue. Pure: no database, no network, no messages of the API."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from runtime.refusals import DomainError, ErrorKind

MAX_STOCK = 100_000_000
"""Pieces that CreateProduct and AdjustStock may bring the stock of a product to, and that one order can have."""

INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
"""The reason of the error for too little stock."""

WRITABLE = (
    "name", "slug", "sku", "variant", "description", "category", "price", "star", "image_uri",
)  # fmt: skip
"""The paths that an update mask may name."""

UniqueField = Literal["slug", "sku"]
"""A field whose value no two live products share."""

_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}  # NFKD leaves these as they are
)

MAX_SLUG_LENGTH = 100

_SHORT_SUFFIX_LENGTH = 6
_LONG_SUFFIX_LENGTH = 12
"""Characters that tell a generated slug or SKU from the same one of another product."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product as it is stored."""

    id: UUID
    name: str
    slug: str
    sku: str
    variant: str
    description: str
    category: str
    currency: str
    price_micros: int
    stock: int
    star: float
    image_uri: str
    version: int
    """Counts from 1 the changes of everything but the stock."""
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None

    @property
    def etag(self) -> str:
        """The etag that clients get, and send to update this version only."""
        return str(self.version)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a client may write of a product."""

    name: str = ""
    slug: str = ""
    sku: str = ""
    variant: str = ""
    description: str = ""
    category: str = ""
    currency: str = ""
    price_micros: int = 0
    star: float = 0.0
    image_uri: str = ""
    generated: frozenset[UniqueField] = frozenset()
    """The fields that were generated from the name because the client left them out."""

    def fingerprint(self, stock: int) -> bytes:
        """Returns a digest that is the same for the same content and first stock.

        It must stay the same in every release, because a retry may reach a newer release than the first attempt did.
        So the fields are listed here by hand. A field that is added later may enter only where it is not empty.
        """
        content = {
            "name": self.name,
            "slug": self.slug,
            "sku": self.sku,
            "variant": self.variant,
            "description": self.description,
            "category": self.category,
            "currency": self.currency,
            "price_micros": self.price_micros,
            "star": self.star,
            "image_uri": self.image_uri,
            "made": sorted(self.generated),  # this key is part of fingerprints that are stored
            "stock": stock,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()

    def complete(self, fields: Set[str]) -> "Content":
        """Generates slug and SKU from the name, where they are among `fields` and empty."""
        content = self
        if "slug" in fields and not self.slug:
            content = replace(content, slug=make_slug(self.name), generated=content.generated | {"slug"})
        if "sku" in fields and not self.sku:
            content = replace(content, sku=make_sku(self.name), generated=content.generated | {"sku"})
        return content

    def with_alternative(self, field: UniqueField, product_id: UUID) -> "Content":
        """Replaces a generated slug or SKU that another live product already has.

        The alternative ends with a part of the product's id: a short one the first time, a longer one after that.

        Raises:
            DomainError: ALREADY_EXISTS if the client chose the value.
        """
        if field not in self.generated:
            raise already_taken(field, self.slug if field == "slug" else self.sku)
        is_first = self.slug == make_slug(self.name) if field == "slug" else self.sku == make_sku(self.name)
        suffix = product_id.hex[: _SHORT_SUFFIX_LENGTH if is_first else _LONG_SUFFIX_LENGTH]
        if field == "slug":
            return replace(self, slug=f"{make_slug(self.name, MAX_SLUG_LENGTH - _LONG_SUFFIX_LENGTH - 1)}-{suffix}")
        return replace(self, sku=f"{make_sku(self.name)}-{suffix.upper()}")


def make_slug(name: str, max_length: int = MAX_SLUG_LENGTH) -> str:
    """Makes a name fit for a URL: `Café Crème №5` becomes `cafe-creme-no5`.

    Letters that have no counterpart in ASCII are left out. Where nothing is left, the slug is `product`.
    """
    plain = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:max_length].rstrip("-") or "product"


def make_sku(name: str) -> str:
    """Makes a short code from a name: `Steel watch classic` becomes `STE-WAT-CLA`."""
    return "-".join(word[:3] for word in make_slug(name).split("-")[:4]).upper()


def key_reused(key: UUID | None) -> DomainError:
    """Returns the error for an idempotency key that was used with another request before."""
    return DomainError(
        ErrorKind.ALREADY_EXISTS,
        "the idempotency key was already used with a different request",
        reason="IDEMPOTENCY_KEY_REUSED",
        metadata={"request_id": str(key)},
    )


def already_taken(field: UniqueField, value: str) -> DomainError:
    """Returns the error for a slug or SKU that another live product has."""
    return DomainError(
        ErrorKind.ALREADY_EXISTS,
        f"another product already has the {field} {value}",
        reason=f"{field.upper()}_TAKEN",
        metadata={field: value},
    )


def product_not_found(product_id: UUID) -> DomainError:
    """Returns the error for a product that does not exist."""
    return DomainError(
        ErrorKind.NOT_FOUND,
        f"product {product_id} not found",
        reason="PRODUCT_NOT_FOUND",
        metadata={"product_id": str(product_id)},
    )


def product_deleted(product_id: UUID, name: str) -> DomainError:
    """Returns the error for an order of a deleted product."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        f'"{name}" is no longer sold',
        reason="PRODUCT_DELETED",
        metadata={"product_id": str(product_id)},
    )


def insufficient_stock(message: str, product_id: UUID, requested: int, available: int) -> DomainError:
    """Returns the error for a product of which there is too little. `describe_shortage` makes the message."""
    return DomainError(
        ErrorKind.FAILED_PRECONDITION,
        message,
        reason=INSUFFICIENT_STOCK,
        metadata={"product_id": str(product_id), "requested": str(requested), "available": str(available)},
    )


def describe_shortage(name: str, requested: int, available: int) -> str:
    """Says to a person how much of a product is missing."""
    if not available:
        return f'"{name}" is sold out'
    return f'insufficient stock of "{name}": {requested:,} requested, {available:,} available'


def check_etag(product: Product, version: int | None) -> None:
    """Checks that a product has the version that a client expects. None expects no version.

    Raises:
        DomainError: ABORTED if the product has another version.
    """
    if version is not None and version != product.version:
        raise DomainError(
            ErrorKind.ABORTED,
            "the product has changed; read it again",
            reason="ETAG_MISMATCH",
            metadata={"product_id": str(product.id)},
        )


def check_exists(product: Product | None, product_id: UUID) -> Product:
    """Returns the product.

    Raises:
        DomainError: NOT_FOUND if there is none.
    """
    if product is None:
        raise product_not_found(product_id)
    return product


def check_update(product: Product | None, product_id: UUID, version: int | None) -> Product:
    """Returns the product if it can be updated.

    Raises:
        DomainError: NOT_FOUND, FAILED_PRECONDITION if the product is deleted, or ABORTED if it has another version.
    """
    product = check_exists(product, product_id)
    if product.delete_time:
        raise product_deleted(product.id, product.name)
    check_etag(product, version)
    return product


def check_delete(product: Product | None, product_id: UUID, version: int | None) -> Product:
    """Returns the product if it can be deleted, or if it is deleted already.

    A client that repeats a delete still sends the version from before the first one, which is accepted.

    Raises:
        DomainError: NOT_FOUND, or ABORTED if the product has another version.
    """
    product = check_exists(product, product_id)
    if not (product.delete_time and version == product.version - 1):
        check_etag(product, version)
    return product


def check_undelete(product: Product | None, product_id: UUID, version: int | None) -> Product:
    """Returns the product if it can be undeleted, or if it is live already.

    A client that repeats an undelete still sends the version from before the first one, which is accepted.

    Raises:
        DomainError: NOT_FOUND, or ABORTED if the product has another version.
    """
    product = check_exists(product, product_id)
    if product.delete_time or version != product.version - 1:
        check_etag(product, version)
    return product


def check_adjustment(product: Product | None, product_id: UUID, delta: int, version: int | None) -> Product:
    """Returns the product if its stock can be adjusted by `delta` pieces.

    Raises:
        DomainError: As `check_update`, and FAILED_PRECONDITION if the stock would be too small or too large.
    """
    product = check_update(product, product_id, version)
    if product.stock + delta < 0:
        message = describe_shortage(product.name, -delta, product.stock)
        raise insufficient_stock(message, product.id, -delta, product.stock)
    # Cancelled orders may bring the stock above the limit. It can be lowered even then.
    if delta > 0 and product.stock + delta > MAX_STOCK:
        raise DomainError(
            ErrorKind.FAILED_PRECONDITION,
            f'"{product.name}" has {product.stock:,} pieces; it cannot have more than {MAX_STOCK:,}',
            reason="STOCK_LIMIT",
            metadata={"product_id": str(product.id), "limit": str(MAX_STOCK)},
        )
    return product
