"""The catalogue in PostgreSQL. Each method is one statement, and so one transaction and one round trip."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import LiteralString, NoReturn
from uuid import UUID

from product.domain import MAX_WORDS, Content, Order, Product, Taken, patterns
from runtime.database import ConstraintViolation, Database
from runtime.errors import QUERY_TIMEOUT, ApiError, query_timeout
from runtime.pages import Key

_COLUMNS: LiteralString = (
    "id, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri, revision,"
    " create_time, update_time, delete_time"
)

_SEARCHED: LiteralString = r"lower(name || E'\n' || description || E'\n' || category || E'\n' || sku)"
"""Letter for letter the expression of product_search_idx."""

_WORDS: tuple[LiteralString, ...] = ("w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9")
assert len(_WORDS) == MAX_WORDS

_ORDER_BY: dict[str, LiteralString] = {
    "create_time": "create_time, id",
    "create_time desc": "create_time DESC, id DESC",
    "name": "lower(name), id",
    "name desc": "lower(name) DESC, id DESC",
    "price": "price_micros, id",
    "price desc": "price_micros DESC, id DESC",
    "star": "star, id",
    "star desc": "star DESC, id DESC",
}

_AFTER: dict[str, LiteralString] = {
    "create_time": "(create_time, id) > (%(key)s, %(id)s)",
    "create_time desc": "(create_time, id) < (%(key)s, %(id)s)",
    "name": "(lower(name), id) > (lower(%(key)s COLLATE pg_c_utf8), %(id)s)",
    "name desc": "(lower(name), id) < (lower(%(key)s COLLATE pg_c_utf8), %(id)s)",
    "price": "(price_micros, id) > (%(key)s, %(id)s)",
    "price desc": "(price_micros, id) < (%(key)s, %(id)s)",
    "star": "(star, id) > (%(key)s, %(id)s)",
    "star desc": "(star, id) < (%(key)s, %(id)s)",
}


@dataclass(frozen=True)
class Category:
    name: str


@dataclass(frozen=True)
class Adjustment:
    """A row of the stock ledger."""

    product_id: UUID
    delta: int


@dataclass(frozen=True, kw_only=True)
class _Created(Product):
    fingerprint: bytes


@dataclass(frozen=True, kw_only=True)
class _Adjusted(Product):
    booked: bool


class ProductStore:
    """Reads and writes products."""

    def __init__(self, database: Database, searches: Database) -> None:
        """`searches` has the connections for what may read every row."""
        self._database = database
        self._searches = searches

    async def create(self, product_id: UUID, content: Content, stock: int, fingerprint: bytes) -> Product | None:
        """Raises Taken if a live product has the slug or sku. None if the id is there: the request came before."""
        query: LiteralString = f"""
            WITH made AS (
                INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock,
                    star, image_uri, fingerprint)
                VALUES (%(id)s, %(name)s, %(slug)s, %(sku)s, %(variant)s, %(description)s, %(category)s, %(currency)s,
                    %(price_micros)s, %(stock)s, %(star)s, %(image_uri)s, %(fingerprint)s)
                ON CONFLICT (id) DO NOTHING
                RETURNING {_COLUMNS}
            ), booked AS (
                INSERT INTO stock_adjustment (request_id, product_id, delta)
                SELECT id, id, stock FROM made WHERE stock > 0
            )
            SELECT {_COLUMNS} FROM made
            """  # noqa: S608 - literals only
        params = asdict(content) | {"id": product_id, "stock": stock, "fingerprint": fingerprint}
        try:
            return await self._database.fetch_one("product.create", query, params, Product)
        except ConstraintViolation as violation:
            _translate(violation)

    async def created(self, product_id: UUID) -> tuple[Product, bytes]:
        """A product that is there, and the fingerprint of what it was created with."""
        query: LiteralString = f"SELECT {_COLUMNS}, fingerprint FROM product WHERE id = %(id)s"  # noqa: S608 - as above
        row = await self._database.fetch_one("product.created", query, {"id": product_id}, _Created)
        assert row is not None, "products are never removed"
        return row, row.fingerprint

    async def get(self, product_id: UUID) -> Product | None:
        """A product, deleted or not."""
        query: LiteralString = f"SELECT {_COLUMNS} FROM product WHERE id = %(id)s"  # noqa: S608 - literals only
        return await self._database.fetch_one("product.get", query, {"id": product_id}, Product)

    async def batch_get(self, ids: Sequence[UUID]) -> dict[UUID, Product]:
        """Those of the products that exist, deleted or not."""
        query: LiteralString = f"SELECT {_COLUMNS} FROM product WHERE id = ANY (%(ids)s::uuid[])"  # noqa: S608 - as above
        rows = await self._database.fetch("product.batch_get", query, {"ids": list(ids)}, Product)
        return {row.id: row for row in rows}

    async def list(
        self, search: str, category: str, order: Order, after: list[Key] | None, limit: int
    ) -> Sequence[Product]:
        """Live products that match, those that follow the keys `after` in the order."""
        params: dict[str, object] = {"limit": limit}
        conditions: list[LiteralString] = ["delete_time IS NULL"]
        if category:
            conditions.append("category = %(category)s")
            params["category"] = category
        indexed, others = patterns(search)
        for key, pattern in zip(_WORDS, indexed, strict=False):
            conditions.append(f"{_SEARCHED} LIKE lower(%({key})s COLLATE pg_c_utf8)")
            params[key] = pattern
        if others:
            # In this form no index is taken for them: it would be read from end to end, and then every row.
            conditions.append(f"{_SEARCHED} LIKE ALL (string_to_array(lower(%(others)s COLLATE pg_c_utf8), ' '))")
            params["others"] = " ".join(others)
        if after:
            conditions.append(_AFTER[order.text])
            params["key"], params["id"] = order.position(after)
        query: LiteralString = f"""
            SELECT {_COLUMNS} FROM product WHERE {" AND ".join(conditions)}
            ORDER BY {_ORDER_BY[order.text]} LIMIT %(limit)s
            """  # noqa: S608 - literals only
        if not search:
            # One category has a row, another one half of all: what is best for the one is not for the other.
            return await self._database.fetch("product.list", query, params, Product, replan=bool(category))
        try:
            return await self._searches.fetch("product.search", query, params, Product, replan=True)
        except ApiError as error:
            if error.reason != QUERY_TIMEOUT:
                raise
            raise query_timeout("the search took too long; use longer or rarer words") from None

    async def categories(self, after: str, limit: int) -> Sequence[Category]:
        """The categories of live products by name, those that follow `after`. It jumps from one to the next in the
        index (a loose index scan), no further than the limit."""
        query: LiteralString = """
            WITH RECURSIVE found (name) AS (
                (
                    SELECT category FROM product WHERE delete_time IS NULL AND category > %(after)s
                    ORDER BY category LIMIT 1
                )
                UNION ALL
                SELECT (
                    SELECT category FROM product WHERE delete_time IS NULL AND category > found.name
                    ORDER BY category LIMIT 1
                )
                FROM found WHERE found.name IS NOT NULL
            )
            SELECT name FROM found WHERE name IS NOT NULL LIMIT %(limit)s
            """
        return await self._database.fetch("product.categories", query, {"after": after, "limit": limit}, Category)

    async def update(
        self, product_id: UUID, content: Content, fields: frozenset[str], revision: int | None
    ) -> Product | None:
        """Writes `fields` of a live product; None if there is none, or not with this revision. Raises Taken."""
        query: LiteralString = f"""
            UPDATE product SET
                name = CASE WHEN 'name' = ANY (%(fields)s) THEN %(name)s ELSE name END,
                slug = CASE WHEN 'slug' = ANY (%(fields)s) THEN %(slug)s ELSE slug END,
                sku = CASE WHEN 'sku' = ANY (%(fields)s) THEN %(sku)s ELSE sku END,
                variant = CASE WHEN 'variant' = ANY (%(fields)s) THEN %(variant)s ELSE variant END,
                description = CASE WHEN 'description' = ANY (%(fields)s) THEN %(description)s ELSE description END,
                category = CASE WHEN 'category' = ANY (%(fields)s) THEN %(category)s ELSE category END,
                currency = CASE WHEN 'price' = ANY (%(fields)s) THEN %(currency)s ELSE currency END,
                price_micros = CASE WHEN 'price' = ANY (%(fields)s) THEN %(price_micros)s ELSE price_micros END,
                star = CASE WHEN 'star' = ANY (%(fields)s) THEN %(star)s ELSE star END,
                image_uri = CASE WHEN 'image_uri' = ANY (%(fields)s) THEN %(image_uri)s ELSE image_uri END,
                revision = revision + 1,
                update_time = now()
            WHERE id = %(id)s AND delete_time IS NULL
                AND revision = coalesce(%(revision)s::bigint, revision)
            RETURNING {_COLUMNS}
            """  # noqa: S608 - literals only
        params = asdict(content) | {"id": product_id, "fields": sorted(fields), "revision": revision}
        try:
            # With a condition, a second run would be refused because of the first.
            return await self._database.fetch_one("product.update", query, params, Product, idempotent=revision is None)
        except ConstraintViolation as violation:
            _translate(violation)

    async def delete(self, product_id: UUID, revision: int | None) -> Product | None:
        """Deletes a live product; None if there is none, or not with this revision."""
        query: LiteralString = f"""
            UPDATE product SET delete_time = now(), update_time = now(), revision = revision + 1
            WHERE id = %(id)s AND delete_time IS NULL AND revision = coalesce(%(revision)s::bigint, revision)
            RETURNING {_COLUMNS}
            """  # noqa: S608 - literals only
        return await self._database.fetch_one(
            "product.delete", query, {"id": product_id, "revision": revision}, Product
        )

    async def undelete(self, product_id: UUID, revision: int | None) -> Product | None:
        """Brings a deleted product back; None if there is none, or not with this revision. Raises Taken."""
        query: LiteralString = f"""
            UPDATE product SET delete_time = NULL, update_time = now(), revision = revision + 1
            WHERE id = %(id)s AND delete_time IS NOT NULL AND revision = coalesce(%(revision)s::bigint, revision)
            RETURNING {_COLUMNS}
            """  # noqa: S608 - literals only
        try:
            return await self._database.fetch_one(
                "product.undelete", query, {"id": product_id, "revision": revision}, Product
            )
        except ConstraintViolation as violation:
            _translate(violation)

    async def adjust(
        self, product_id: UUID, delta: int, request_id: UUID, revision: int | None
    ) -> tuple[Product | None, bool]:
        """Adds to or takes from a stock and writes it into the ledger, unless `request_id` is there already or the
        product is deleted, has another revision or no room. Answers the product, and whether it was done."""
        query: LiteralString = f"""
            WITH locked AS MATERIALIZED (
                SELECT {_COLUMNS} FROM product WHERE id = %(id)s FOR NO KEY UPDATE
            ), booked AS (
                INSERT INTO stock_adjustment (request_id, product_id, delta)
                SELECT %(request_id)s, id, %(delta)s::bigint FROM locked
                -- numeric: the sum may be larger than any bigint.
                WHERE delete_time IS NULL AND stock + %(delta)s::numeric >= 0
                    -- What orders gave back may be on top of the limit; it can always be taken away.
                    AND (%(delta)s < 0 OR stock + %(delta)s::numeric <= 100000000)
                    AND revision = coalesce(%(revision)s::bigint, revision)
                ON CONFLICT (request_id) DO NOTHING
                RETURNING delta
            ), changed AS (
                -- From the locked row: product.stock may be that of an older version (see stock_store).
                UPDATE product SET stock = locked.stock + booked.delta FROM locked, booked
                WHERE product.id = locked.id
                RETURNING product.stock
            )
            SELECT locked.id, name, slug, sku, variant, description, category, currency, price_micros,
                coalesce(changed.stock, locked.stock) AS stock, star, image_uri, revision, create_time, update_time,
                delete_time, changed.stock IS NOT NULL AS booked
            FROM locked LEFT JOIN changed ON true
            """  # noqa: S608 - literals only
        params = {"id": product_id, "delta": delta, "request_id": request_id, "revision": revision}
        row = await self._database.fetch_one("product.adjust_stock", query, params, _Adjusted)
        return (row, row.booked) if row else (None, False)

    async def adjustment(self, request_id: UUID) -> Adjustment | None:
        """The row of the ledger that a request has written."""
        query: LiteralString = "SELECT product_id, delta FROM stock_adjustment WHERE request_id = %(request_id)s"
        return await self._database.fetch_one("product.adjustment", query, {"request_id": request_id}, Adjustment)


def _translate(violation: ConstraintViolation) -> NoReturn:
    match violation.name:
        case "product_slug_key":
            raise Taken("slug") from None
        case "product_sku_key":
            raise Taken("sku") from None
    raise violation
