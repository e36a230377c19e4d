"""The merge of a guest's cart into a customer's one, when the guest signs in."""

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from order.cart.domain import MAX_ITEMS, MAX_QUANTITY, Cart, cart_full, cart_not_found
from order.cart.store import ATTEMPTS, COLUMNS, EXPIRE_TIME, MERGE, TTLS, CartStore, busy
from runtime.database import Database


@dataclass(frozen=True, kw_only=True)
class _MergedRow(Cart):
    found: bool
    """Whether the guest's cart was there, or was merged into this one before."""
    size: int
    """The items of both carts together."""
    capped: list[str]


class Merge:
    """Merges carts. Each merge is one statement, after the customer's cart was found or created."""

    def __init__(self, database: Database, carts: CartStore) -> None:
        self._database = database
        self._carts = carts

    async def __call__(self, guest_id: UUID, secret_hash: bytes, owner: str) -> tuple[Cart, list[str]]:
        """Moves the items of a guest's cart into a customer's one, and ends the guest's.

        Returns:
            The customer's cart, and the ids of the products of which pieces were left out: an item may have no more.

        Raises:
            DomainError: NOT_FOUND if there is no such guest's cart, or it was merged into another one;
                FAILED_PRECONDITION if both together have too many items.
        """
        for _ in range(ATTEMPTS):
            own = await self._carts.get_owned(owner)
            merged = await self._merge(guest_id, secret_hash, own.id)
            if merged is None:
                continue  # the customer's cart was deleted meanwhile
            if not merged.found:
                raise cart_not_found(guest_id)
            if merged.size > MAX_ITEMS:
                raise cart_full()
            self._carts.changes[MERGE] += 1
            return merged, merged.capped
        raise busy()

    async def _merge(self, guest_id: UUID, secret_hash: bytes, own_id: UUID) -> _MergedRow | None:
        query: LiteralString = f"""
            WITH locked AS MATERIALIZED (
                SELECT {COLUMNS}, merged_into FROM cart
                WHERE id IN (%(guest)s, %(own)s) AND expire_time > now()
                ORDER BY id
                FOR NO KEY UPDATE
            ), own AS MATERIALIZED (
                SELECT * FROM locked WHERE id = %(own)s AND owner <> ''
            ), guest AS MATERIALIZED (
                SELECT * FROM locked
                WHERE id = %(guest)s AND secret_hash = %(secret)s AND coalesce(merged_into, %(own)s) = %(own)s
            ), piece AS (
                SELECT 1 AS cart, position, item
                FROM own, jsonb_array_elements(items) WITH ORDINALITY AS each (item, position)
                UNION ALL
                SELECT 2, position, item
                FROM guest, jsonb_array_elements(items) WITH ORDINALITY AS each (item, position)
            ), summed AS (
                SELECT item ->> 'product_id' AS product_id, sum((item ->> 'quantity')::bigint) AS quantity,
                    min(cart) AS cart, (array_agg(position ORDER BY cart))[1] AS position,
                    (array_agg(item ORDER BY cart))[1] AS item
                FROM piece GROUP BY 1
            ), both_carts AS MATERIALIZED (
                SELECT count(*) AS size,
                    coalesce(
                        jsonb_agg(
                            item || jsonb_build_object('quantity', least(quantity, %(max_quantity)s))
                            ORDER BY cart, position
                        ), '[]'
                    ) AS items,
                    coalesce(array_agg(product_id) FILTER (WHERE quantity > %(max_quantity)s), '{{}}') AS capped
                FROM summed
            ), filled AS (
                UPDATE cart
                SET items = renewed.items, etag = gen_random_uuid(), expire_time = renewed.expire_time,
                    update_time = greatest(now(), renewed.update_time)
                FROM (
                    SELECT id, update_time, items, {EXPIRE_TIME} AS expire_time
                    FROM (SELECT own.id, owner, update_time, expire_time, both_carts.items FROM own, both_carts) AS each
                ) AS renewed, guest, both_carts
                WHERE cart.id = renewed.id AND guest.merged_into IS NULL AND guest.items <> '[]'
                    AND size <= %(max_items)s
                RETURNING cart.etag, cart.items, cart.update_time, cart.expire_time
            ), ended AS (
                UPDATE cart
                SET items = '[]', etag = gen_random_uuid(), merged_into = own.id, expire_time = now() + %(empty_ttl)s,
                    update_time = greatest(now(), guest.update_time)
                FROM guest, own, both_carts
                WHERE cart.id = guest.id AND guest.merged_into IS NULL AND size <= %(max_items)s
            )
            SELECT own.id, own.owner, own.secret_hash, coalesce(filled.etag, own.etag) AS etag,
                coalesce(filled.items, own.items) AS items, own.create_time,
                coalesce(filled.update_time, own.update_time) AS update_time,
                coalesce(filled.expire_time, own.expire_time) AS expire_time,
                guest.id IS NOT NULL AS found, size,
                CASE WHEN filled.etag IS NULL THEN '{{}}' ELSE capped END AS capped
            FROM own CROSS JOIN both_carts LEFT JOIN guest ON true LEFT JOIN filled ON true
            """
        params = {
            "guest": guest_id,
            "own": own_id,
            "secret": secret_hash,
            "max_items": MAX_ITEMS,
            "max_quantity": MAX_QUANTITY,
            **TTLS,
        }
        return await self._database.fetch_one("cart.merge", query, params, _MergedRow)
