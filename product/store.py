"""The catalogue in PostgreSQL. Each statement is one transaction and one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from product import search
from product.domain import MAX_STOCK, Content, Product, UniqueField
from product.listing import ProductQuery
from runtime.arrays import uuids
from runtime.batch import MAX_WAITING, Batcher
from runtime.database import ConstraintViolation, Database
from runtime.errors import QUERY_TIMEOUT, ApiError, query_timeout
from runtime.pages import Position

# In code, the counter behind the etag is the version. The column keeps its older name, because two releases use the
# same table during a rollout.
_COLUMNS: LiteralString = (
    "id, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri,"
    " revision AS version, create_time, update_time, delete_time"
)

COLUMN_PATHS: dict[LiteralString, LiteralString] = {
    "name": "name",
    "slug": "slug",
    "sku": "sku",
    "variant": "variant",
    "description": "description",
    "category": "category",
    "currency": "price",
    "price_micros": "price",
    "star": "star",
    "image_uri": "image_uri",
}
"""The columns that an update may write, with the path of each in an update mask."""

_ASSIGNMENTS: LiteralString = ", ".join(
    [
        f"{column} = CASE WHEN '{path}' = ANY (%(fields)s) THEN %({column})s ELSE {column} END"
        for column, path in COLUMN_PATHS.items()
    ]
)


@dataclass(frozen=True)
class Category:
    """A category that at least one live product has."""

    name: str


@dataclass(frozen=True)
class Adjustment:
    """A row of the stock ledger."""

    product_id: UUID
    delta: int


@dataclass(frozen=True)
class Created:
    """The product was written."""

    product: Product


@dataclass(frozen=True)
class Replayed:
    """The id exists: an earlier request of the same caller had the same idempotency key."""

    product: Product
    """As it is now."""
    fingerprint: bytes
    """Of what it was created with."""


@dataclass(frozen=True)
class Conflict:
    """Another live product has the same value in a unique field. Nothing was written."""

    field: UniqueField


@dataclass(frozen=True, kw_only=True)
class AdjustedProduct(Product):
    """A product, and whether its stock was adjusted."""

    adjusted: bool


@dataclass(frozen=True, kw_only=True)
class _Existing(Product):
    fingerprint: bytes


class ProductStore:
    """Reads and writes products."""

    def __init__(self, database: Database, searches: Database, *, max_waiting: int = MAX_WAITING) -> None:
        """Makes a store.

        Args:
            database: The connections of all but searches.
            searches: The connections of searches, which may read every row.
            max_waiting: How many reads of one product may wait for a batch.
        """
        self._database = database
        self._searches = searches
        self._gets: Batcher[UUID, Product | None] = Batcher("product.get batch", self._get, max_waiting=max_waiting)

    async def create(
        self, product_id: UUID, content: Content, stock: int, fingerprint: bytes
    ) -> Created | Replayed | Conflict:
        """Writes a product and its first stock.

        Only where that is not possible, a second statement finds out whether the same request came before.
        """
        query: LiteralString = f"""
            WITH created AS (
                INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock,
                    star, image_uri, fingerprint)
                VALUES (%(id)s, %(name)s, %(slug)s, %(sku)s, %(variant)s, %(description)s, %(category)s, %(currency)s,
                    %(price_micros)s, %(stock)s, %(star)s, %(image_uri)s, %(fingerprint)s)
                ON CONFLICT (id) DO NOTHING
                RETURNING {_COLUMNS}
            ), ledger AS (
                INSERT INTO stock_adjustment (request_id, product_id, delta)
                SELECT id, id, stock FROM created WHERE stock > 0
            )
            SELECT * FROM created
            """
        params = vars(content) | {"id": product_id, "stock": stock, "fingerprint": fingerprint}
        conflict = None
        try:
            if product := await self._database.fetch_one("product.create", query, params, Product):
                return Created(product)
        except ConstraintViolation as violation:
            conflict = _conflict(violation)
        existing = await self._existing(product_id)
        if existing:
            await self._database.confirm_replicated()
            return Replayed(existing, existing.fingerprint)
        if conflict is None:
            raise LookupError(f"product {product_id} was removed from the table by hand")
        return conflict

    async def _existing(self, product_id: UUID) -> _Existing | None:
        query: LiteralString = f"SELECT {_COLUMNS}, fingerprint FROM product WHERE id = %(id)s"
        return await self._database.fetch_one("product.existing", query, {"id": product_id}, _Existing)

    async def get(self, product_id: UUID) -> Product | None:
        """Returns a product, deleted or not."""
        return await self._gets(product_id)

    async def get_replicated(self, product_id: UUID) -> Product | None:
        """Returns a product, deleted or not, as an earlier call may have left it. A failover does not lose that."""
        product = await self.get(product_id)
        await self._database.confirm_replicated()
        return product

    async def _get(self, ids: Sequence[UUID]) -> Sequence[Product | None]:
        found = await self.batch_get(ids)
        return [found.get(each) for each in ids]

    async def batch_get(self, ids: Sequence[UUID]) -> dict[UUID, Product]:
        """Returns those of the products that exist, deleted or not, by id."""
        query: LiteralString = f"""
            SELECT {_COLUMNS} FROM product WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[])))
            """
        rows = await self._database.fetch("product.batch_get", query, {"ids": uuids(ids)}, Product)
        return {row.id: row for row in rows}

    async def list(self, query: ProductQuery, after: Position | None, limit: int) -> Sequence[Product]:
        """Returns live products in the order of the query, those after a position.

        Raises:
            ApiError: DEADLINE_EXCEEDED if a search takes too long.
        """
        params: dict[str, object] = {"limit": limit}
        conditions: list[LiteralString] = ["delete_time IS NULL"]
        if query.category:
            conditions.append("category = %(category)s")
            params["category"] = query.category
        if query.search:
            found, patterns = search.conditions(query.search)
            conditions.extend(found)
            params.update(patterns)
        if after:
            conditions.append(query.sort.after)
            params["key"], params["id"] = after
        statement: LiteralString = f"""
            SELECT {_COLUMNS} FROM product WHERE {" AND ".join(conditions)}
            ORDER BY {query.sort.sql} LIMIT %(limit)s
            """
        if not query.search:
            # One category has a row, another one half of all rows: the best plan for one is not the best for the other.
            return await self._database.fetch("product.list", statement, params, Product, replan=bool(query.category))
        try:
            return await self._searches.fetch("product.search", statement, params, Product, replan=True)
        except ApiError as error:
            if error.reason != QUERY_TIMEOUT:
                raise
            raise query_timeout("the search took too long; use longer or rarer words") from None

    async def list_categories(self, after: Position | None, limit: int) -> Sequence[Category]:
        """Returns the categories of live products by name, those after a position.

        The statement jumps from one category to the next in the index (a loose index scan), and stops at the limit.
        """
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
        params = {"after": after[0] if after else "", "limit": limit}
        return await self._database.fetch("product.categories", query, params, Category)

    async def update(
        self, product_id: UUID, content: Content, fields: frozenset[str], version: int | None
    ) -> Product | Conflict | None:
        """Writes `fields` of a live product. Returns None if there is none, or not with this version."""
        query: LiteralString = f"""
            UPDATE product SET {_ASSIGNMENTS}, revision = revision + 1, update_time = now()
            WHERE id = %(id)s AND delete_time IS NULL AND revision = coalesce(%(version)s::bigint, revision)
            RETURNING {_COLUMNS}
            """
        params = vars(content) | {"id": product_id, "fields": sorted(fields), "version": version}
        try:
            # With a version, a second run would be refused because of the first one.
            return await self._database.fetch_one("product.update", query, params, Product, idempotent=version is None)
        except ConstraintViolation as violation:
            return _conflict(violation)

    async def delete(self, product_id: UUID, version: int | None) -> Product | None:
        """Deletes a live product. Returns None if there is none, or not with this version."""
        query: LiteralString = f"""
            UPDATE product SET delete_time = now(), update_time = now(), revision = revision + 1
            WHERE id = %(id)s AND delete_time IS NULL AND revision = coalesce(%(version)s::bigint, revision)
            RETURNING {_COLUMNS}
            """
        params = {"id": product_id, "version": version}
        return await self._database.fetch_one("product.delete", query, params, Product)

    async def undelete(self, product_id: UUID, version: int | None) -> Product | Conflict | None:
        """Brings a deleted product back. Returns None if there is none, or not with this version."""
        query: LiteralString = f"""
            UPDATE product SET delete_time = NULL, update_time = now(), revision = revision + 1
            WHERE id = %(id)s AND delete_time IS NOT NULL AND revision = coalesce(%(version)s::bigint, revision)
            RETURNING {_COLUMNS}
            """
        params = {"id": product_id, "version": version}
        try:
            return await self._database.fetch_one("product.undelete", query, params, Product)
        except ConstraintViolation as violation:
            return _conflict(violation)

    async def adjust(
        self, product_id: UUID, delta: int, request_id: UUID, version: int | None
    ) -> AdjustedProduct | None:
        """Adds pieces to a stock, or takes them away, and writes that into the ledger.

        It does nothing if the ledger has `request_id` already, or if the product is deleted, has another version, or
        would have too little or too much stock.

        Returns:
            The product as it is then, or None if there is none.
        """
        query: LiteralString = f"""
            WITH locked AS MATERIALIZED (
                SELECT {_COLUMNS} FROM product WHERE id = %(id)s FOR NO KEY UPDATE
            ), ledger AS (
                INSERT INTO stock_adjustment (request_id, product_id, delta)
                SELECT %(request_id)s, id, %(delta)s::bigint FROM locked
                -- numeric: the sum may be larger than any bigint.
                WHERE delete_time IS NULL AND stock + %(delta)s::numeric >= 0
                    -- Cancelled orders may bring the stock above the limit. It can be lowered even then.
                    AND (%(delta)s < 0 OR stock + %(delta)s::numeric <= %(max_stock)s)
                    AND version = coalesce(%(version)s::bigint, version)
                ON CONFLICT (request_id) DO NOTHING
                RETURNING delta
            ), changed AS (
                -- From the locked row: product.stock may be that of an older version (see stock_store).
                UPDATE product SET stock = locked.stock + ledger.delta FROM locked, ledger
                WHERE product.id = locked.id
                RETURNING product.stock
            )
            SELECT locked.id, name, slug, sku, variant, description, category, currency, price_micros,
                coalesce(changed.stock, locked.stock) AS stock, star, image_uri, version, create_time, update_time,
                delete_time, changed.stock IS NOT NULL AS adjusted
            FROM locked LEFT JOIN changed ON true
            """
        params = {
            "id": product_id,
            "delta": delta,
            "request_id": request_id,
            "version": version,
            "max_stock": MAX_STOCK,
        }
        return await self._database.fetch_one("product.adjust_stock", query, params, AdjustedProduct)

    async def get_adjustment(self, request_id: UUID) -> Adjustment | None:
        """Returns the row of the ledger that a request has written."""
        query: LiteralString = "SELECT product_id, delta FROM stock_adjustment WHERE request_id = %(request_id)s"
        return await self._database.fetch_one("product.adjustment", query, {"request_id": request_id}, Adjustment)


def _conflict(violation: ConstraintViolation) -> Conflict:
    match violation.name:
        case "product_slug_key":
            return Conflict("slug")
        case "product_sku_key":
            return Conflict("sku")
        case _:
            raise violation
