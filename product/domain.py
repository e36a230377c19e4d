"""The rules of the catalogue. Nothing here talks to anybody."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from runtime import times
from runtime.errors import ApiError, aborted, already_exists, failed_precondition, invalid_argument, not_found
from runtime.pages import Key

LARGEST_STOCK = 100_000_000

WRITABLE = (
    "name", "slug", "sku", "variant", "description", "category", "price", "star", "image_uri",
)  # fmt: skip
"""The paths that an update mask may name."""

UniqueField = Literal["slug", "sku"]

_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}  # NFKD leaves these as they are
)

SLUG_LENGTH = 100
LONGEST_SUFFIX = 12


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
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None

    @property
    def etag(self) -> str:
        return str(self.revision)


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
    made: frozenset[UniqueField] = frozenset()
    """The fields that were made from the name because the client left them out."""

    def fingerprint(self, stock: int) -> bytes:
        """The same for the same content and first stock, in every release: a retry may reach a newer one. So the fields
        are named here, and one that is added later enters only where it has not the value that it has when absent."""
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
            "made": sorted(self.made),
            "stock": stock,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()

    def complete(self, fields: Set[str]) -> "Content":
        """Makes slug and sku from the name, where they are among `fields` and empty."""
        content = self
        if "slug" in fields and not self.slug:
            content = replace(content, slug=slug_of(self.name), made=content.made | {"slug"})
        if "sku" in fields and not self.sku:
            content = replace(content, sku=sku_of(self.name), made=content.made | {"sku"})
        return content

    def instead(self, taken: UniqueField, product_id: UUID) -> "Content":
        """The content with another value for a field that a live product has already. What was made from the name gets
        a suffix from the product's id, and then a longer one; what the client chose raises ALREADY_EXISTS."""
        if taken not in self.made:
            raise already_taken(taken, self.slug if taken == "slug" else self.sku)
        first = self.slug == slug_of(self.name) if taken == "slug" else self.sku == sku_of(self.name)
        suffix = product_id.hex[: 6 if first else LONGEST_SUFFIX]
        if taken == "slug":
            return replace(self, slug=f"{slug_of(self.name, SLUG_LENGTH - LONGEST_SUFFIX - 1)}-{suffix}")
        return replace(self, sku=f"{sku_of(self.name)}-{suffix.upper()}")


class Taken(Exception):
    """A live product has the same value in a field that is unique."""

    def __init__(self, field: UniqueField) -> None:
        super().__init__(field)
        self.field = field


def slug_of(name: str, length: int = SLUG_LENGTH) -> str:
    """A name in a URL: `Café Crème №5` becomes `cafe-creme-no5`. Letters that ASCII cannot come near are left out."""
    plain = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:length].rstrip("-") or "product"


def sku_of(name: str) -> str:
    """A short code for a name: `Steel watch classic` becomes `STE-WAT-CLA`."""
    return "-".join(word[:3] for word in slug_of(name).split("-")[:4]).upper()


def key_reused(payload: str, key: UUID | None) -> ApiError:
    """An idempotency key came before with another `payload`."""
    return already_exists("IDEMPOTENCY_KEY_REUSED", f"the key came before with {payload}", request_id=str(key))


def already_taken(field: UniqueField, value: str) -> ApiError:
    return already_exists(f"{field.upper()}_TAKEN", f"another product has the {field} {value}", **{field: value})


def product_not_found(product_id: UUID) -> ApiError:
    return not_found("PRODUCT_NOT_FOUND", f"there is no product {product_id}", product_id=str(product_id))


def product_deleted(product_id: UUID, name: str) -> ApiError:
    return failed_precondition("PRODUCT_DELETED", f'"{name}" is no longer sold', product_id=str(product_id))


def insufficient_stock(product_id: UUID, name: str, requested: int, available: int) -> ApiError:
    return failed_precondition(
        "INSUFFICIENT_STOCK",
        shortage(name, requested, available),
        product_id=str(product_id),
        requested=str(requested),
        available=str(available),
    )


def shortage(name: str, requested: int, available: int) -> str:
    """Why an amount of something cannot be had, for people."""
    if not available:
        return f'"{name}" is sold out'
    return f'{requested:,} of "{name}" were asked for, but only {available:,} {"is" if available == 1 else "are"} left'


def check_etag(product: Product, revision: int | None) -> None:
    """Raises ABORTED unless the product has the revision that a client expects, if it expects one."""
    if revision is not None and revision != product.revision:
        raise aborted("ETAG_MISMATCH", "the product was changed meanwhile; read it again", product_id=str(product.id))


def check_update(product: Product | None, product_id: UUID, revision: int | None) -> Product:
    """Raises what keeps a product from being updated."""
    if product is None:
        raise product_not_found(product_id)
    if product.delete_time:
        raise product_deleted(product.id, product.name)
    check_etag(product, revision)
    return product


def check_delete(product: Product | None, product_id: UUID, revision: int | None) -> Product:
    """Raises what keeps a product from being deleted. One that is deleted already is answered as it is, also to the
    retry of the delete, which still has the etag of before."""
    if product is None:
        raise product_not_found(product_id)
    if not (product.delete_time and revision == product.revision - 1):
        check_etag(product, revision)
    return product


def check_undelete(product: Product | None, product_id: UUID, revision: int | None) -> Product:
    """Raises what keeps a product from being undeleted. A live one is answered as it is, also to the retry of the
    undelete, which still has the etag of before."""
    if product is None:
        raise product_not_found(product_id)
    if product.delete_time or revision != product.revision - 1:
        check_etag(product, revision)
    return product


def check_adjustment(product: Product | None, product_id: UUID, delta: int, revision: int | None) -> Product:
    """Raises what keeps the stock from being adjusted."""
    if product is None:
        raise product_not_found(product_id)
    if product.delete_time:
        raise product_deleted(product.id, product.name)
    check_etag(product, revision)
    if product.stock + delta < 0:
        raise insufficient_stock(product.id, product.name, -delta, product.stock)
    if delta > 0 and product.stock + delta > LARGEST_STOCK:
        text = f'"{product.name}" has {product.stock:,} pieces; it cannot have more than {LARGEST_STOCK:,}'
        raise failed_precondition("STOCK_LIMIT", text, product_id=str(product.id), limit=str(LARGEST_STOCK))
    return product


@dataclass(frozen=True)
class Order:
    """How a list is sorted."""

    field: Literal["create_time", "name", "price", "star"]
    descending: bool

    @property
    def text(self) -> str:
        return f"{self.field} desc" if self.descending else self.field

    @property
    def key_types(self) -> tuple[type, ...]:
        """The types of a page token's keys: the sort key and the id."""
        return ({"create_time": int, "name": str, "price": int, "star": float}[self.field], str)

    def keys_of(self, product: Product) -> list[Key]:
        """The keys of a product in a page token. Times are whole microseconds, as exact as they are stored."""
        match self.field:
            case "create_time":
                key: Key = times.microseconds(product.create_time)
            case "name":
                key = product.name
            case "price":
                key = product.price_micros
            case "star":
                key = product.star
        return [key, str(product.id)]

    def position(self, keys: list[Key]) -> tuple[Key | datetime, UUID]:
        """The inverse of `keys_of`, as the store compares it. A token may be forged: INVALID_ARGUMENT if it makes no
        sense."""
        key, product_id = keys
        try:
            identity = UUID(str(product_id))
            if self.field == "create_time":
                return times.of_microseconds(int(key)), identity
        except (ValueError, OverflowError):
            raise invalid_argument([("page_token", "is not a valid page token")]) from None
        return key, identity


_FIELDS: dict[str, Literal["create_time", "name", "price", "star"]] = {
    "create_time": "create_time",
    "createTime": "create_time",  # as REST calls it
    "name": "name",
    "price": "price",
    "star": "star",
}

_DIRECTIONS = {"": False, "asc": False, "desc": True}


def order_of(order_by: str) -> Order:
    """The order that `order_by` asks for; newest first when empty."""
    words = order_by.split(maxsplit=2)
    if not words:
        return Order("create_time", True)
    field, direction = _FIELDS.get(words[0]), _DIRECTIONS.get(" ".join(words[1:]).lower())
    if field is None or direction is None:
        text = "must be one of name, price, create_time, star, alone or followed by ' desc'"
        raise invalid_argument([("order_by", text)])
    return Order(field, direction)


MAX_WORDS = 10
"""Different words of a search. Each is looked for in every row that has those before it."""

_TRIGRAM = re.compile(r"[^\W_]{3}")
"""What the index of trigrams knows of a word: three letters or digits in a row."""


def words_of(search: str) -> list[str]:
    """The different words of a search, the longest first: it tells the most."""
    return sorted(dict.fromkeys(search.split()), key=len, reverse=True)


def patterns(search: str) -> tuple[list[str], list[str]]:
    """The LIKE patterns of the words of a search: those that the trigram index finds, and those that it cannot find."""
    indexed: list[str] = []
    others: list[str] = []
    for word in words_of(search):
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
        (indexed if _TRIGRAM.search(word) else others).append(pattern)
    return indexed, others
