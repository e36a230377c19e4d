"""The carts in PostgreSQL. Each method is one statement, and so one transaction, unless it says otherwise.

A change first locks the cart's row. A statement that waited for the lock sees the row as the other one left it, items
included, since they are in the row: so concurrent changes lose nothing. Statements that lock several carts do so in the
sequence of their ids, so that no two of them can deadlock. `order.writes` does so too, when it makes orders of carts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from order.cart.domain import (
    EMPTY_TTL,
    GUEST_TTL,
    MAX_ITEMS,
    MAX_QUANTITY,
    OWNED_TTL,
    Action,
    Cart,
    Change,
    Changed,
    Holder,
    Refusal,
    cart_changed,
    cart_not_found,
)
from order.domain import key_reused
from runtime.arrays import uuids
from runtime.batch import MAX_WAITING, Batcher, isolate_failures
from runtime.database import Database
from runtime.errors import ApiError, unavailable

COLUMNS: LiteralString = "id, owner, secret_hash, etag, items, create_time, update_time, expire_time"
"""The columns of a Cart."""

LIVE: LiteralString = "merged_into IS NULL AND expire_time > now()"
"""The condition of carts that exist for their holders."""

# The time moves in steps of an hour: most changes then write no index.
EXPIRE_TIME: LiteralString = """(
    SELECT CASE WHEN abs(extract(epoch FROM later - expire_time)) < 3600 THEN expire_time ELSE later END
    FROM (
        SELECT now() + CASE
            WHEN items = '[]' THEN %(empty_ttl)s WHEN owner = '' THEN %(guest_ttl)s ELSE %(owned_ttl)s END AS later
    ) AS renewed
)"""
"""When a cart ends, from its new items, its owner, and the time when it would have ended before."""

TTLS: Mapping[str, object] = {"empty_ttl": EMPTY_TTL, "guest_ttl": GUEST_TTL, "owned_ttl": OWNED_TTL}
"""The parameters of EXPIRE_TIME."""

MAX_ALONE = 4
"""Changes of carts that another change of this process holds, at a time. Each waits with a connection of its own."""

CREATE, MERGE, DELETE = "CREATE", "MERGE", "DELETE"
"""What is counted beside the actions of changes."""

ATTEMPTS = 5
"""How often a statement is tried that another caller may disturb by making or deleting the same cart."""


@dataclass(frozen=True, kw_only=True)
class _FoundRow(Cart):
    is_live: bool
    """Whether the cart exists for its holder."""


@dataclass(frozen=True, kw_only=True)
class _ChangedRow(Cart):
    refusal: Refusal | None
    is_repeat: bool


@dataclass(frozen=True)
class _Add:
    product_id: UUID
    quantity: int


@dataclass(frozen=True)
class _Id:
    id: UUID


class CartStore:
    """Reads and writes carts."""

    def __init__(self, database: Database, *, max_waiting: int = MAX_WAITING) -> None:
        """Initializes the store.

        Args:
            database: Its connections.
            max_waiting: The number of calls of each kind that may wait for a batch.
        """
        self._database = database
        self.changes: Counter[str] = Counter(dict.fromkeys((CREATE, *map(str, Action), MERGE, DELETE), 0))
        """How many carts were created, changed, merged and deleted since the process started."""
        self._finds: Batcher[UUID, _FoundRow | None] = Batcher("cart.find batch", self._find, max_waiting=max_waiting)
        self._creates: Batcher[bytes, Cart] = Batcher("cart.create batch", self._create, max_waiting=max_waiting)
        self._changes: Batcher[Change, Changed | None] = Batcher(
            "cart.change batch",
            lambda changes: isolate_failures(self._change, changes),
            key=lambda change: change.cart_id,
            max_alone=MAX_ALONE,
            max_waiting=max_waiting,
        )

    @property
    def batchers(self) -> list[Batcher[Any, Any]]:
        """What the calls wait in."""
        return [self._finds, self._creates, self._changes]

    async def get(self, cart_id: UUID, holder: Holder, *, or_ended: bool = False) -> Cart:
        """Returns a cart.

        Args:
            cart_id: The id of the cart.
            holder: Who says that it is theirs.
            or_ended: Also return a cart that was merged into another one or has expired, as long as it is known.

        Raises:
            DomainError: NOT_FOUND if it does not exist, has ended, or is not the holder's.
        """
        row = await self._finds(cart_id)
        if row is None or not row.is_held_by(holder) or not (row.is_live or or_ended):
            raise cart_not_found(cart_id)
        return row

    async def _find(self, ids: Sequence[UUID]) -> Sequence[_FoundRow | None]:
        query: LiteralString = f"""
            SELECT {COLUMNS}, {LIVE} AS is_live FROM cart WHERE id = ANY (ARRAY (SELECT unnest(%(ids)s::uuid[])))
            """
        rows = await self._database.fetch("cart.find", query, {"ids": uuids(ids)}, _FoundRow)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def create(self, secret_hash: bytes) -> Cart:
        """Creates an empty cart for a guest.

        In batches, so that many guests at once take one connection, and other calls find one.
        """
        cart = await self._creates(secret_hash)
        self.changes[CREATE] += 1
        return cart

    async def _create(self, secret_hashes: Sequence[bytes]) -> Sequence[Cart]:
        query: LiteralString = f"""
            INSERT INTO cart (secret_hash, expire_time)
            SELECT secret_hash, now() + %(empty_ttl)s FROM unnest(%(secrets)s::bytea[]) AS secret_hash
            RETURNING {COLUMNS}
            """
        rows = await self._database.fetch("cart.create", query, {"secrets": list(secret_hashes), **TTLS}, Cart)
        created = {row.secret_hash: row for row in rows}
        return [created[each] for each in secret_hashes]

    async def get_owned(self, owner: str) -> Cart:
        """Returns a customer's cart, which is created if there is none. At most two statements, rarely more.

        A cart that has expired is emptied and lives on, since a customer has one cart.
        """
        for _ in range(ATTEMPTS):
            query: LiteralString = f"SELECT {COLUMNS} FROM cart WHERE owner = %(owner)s AND owner <> '' AND {LIVE}"
            if cart := await self._database.fetch_one("cart.get_owned", query, {"owner": owner}, Cart):
                return cart
            query = f"""
                INSERT INTO cart AS old (owner, expire_time) VALUES (%(owner)s, now() + %(empty_ttl)s)
                ON CONFLICT (owner) WHERE owner <> '' DO UPDATE
                SET items = '[]', etag = gen_random_uuid(), update_time = greatest(now(), old.update_time),
                    expire_time = excluded.expire_time
                WHERE old.expire_time <= now()
                RETURNING {COLUMNS}
                """
            params = {"owner": owner, **TTLS}
            if cart := await self._database.fetch_one("cart.create_owned", query, params, Cart):
                self.changes[CREATE] += 1
                return cart
        raise busy()

    async def change(self, change: Change) -> Changed:
        """Changes the items of a cart, unless the result says that it was refused.

        Raises:
            DomainError: NOT_FOUND as `get`; ALREADY_EXISTS if the request's id was used for another change.
        """
        changed = await self._changes(change)
        if changed is None:
            raise cart_not_found(change.cart_id)
        if change.request_id and (changed.is_repeat or changed.refusal):
            # The statement does not see the row that its INSERT conflicts with. A second one does.
            before = await self._find_add(change.cart_id, change.request_id)
            if before and before != _Add(change.product_id or UUID(int=0), change.quantity):
                raise key_reused()
            if before:
                return Changed(changed.cart, is_repeat=True)
        if not changed.refusal:
            self.changes[change.action.value] += 1
        return changed

    async def _find_add(self, cart_id: UUID, request_id: UUID) -> _Add | None:
        query: LiteralString = """
            SELECT product_id, quantity FROM cart_add WHERE cart_id = %(cart)s AND request_id = %(request)s
            """
        return await self._database.fetch_one("cart.find_add", query, {"cart": cart_id, "request": request_id}, _Add)

    async def _change(self, changes: Sequence[Change]) -> Sequence[Changed | None]:
        query: LiteralString = f"""
            WITH given AS MATERIALIZED (
                SELECT * FROM jsonb_to_recordset(%(changes)s) AS given (id uuid, owner text, secret text, action text,
                    product_id text, quantity bigint, expected uuid, request_id uuid, deleted boolean, offer jsonb)
            ), locked AS MATERIALIZED (
                SELECT {COLUMNS} FROM cart
                WHERE id = ANY (ARRAY (SELECT id FROM given)) AND {LIVE} AND (
                    SELECT given.owner = nullif(cart.owner, '') OR decode(given.secret, 'hex') = cart.secret_hash
                    FROM given WHERE given.id = cart.id
                )
                ORDER BY id
                FOR NO KEY UPDATE
            ), counted AS MATERIALIZED (
                SELECT locked.id, locked.owner, items, etag, expire_time, update_time, action, product_id, request_id,
                    expected, deleted, offer, given.quantity AS given_quantity, present.quantity AS old_quantity,
                    jsonb_array_length(items) AS size,
                    CASE action WHEN 'ADD' THEN coalesce(present.quantity, 0) + given.quantity ELSE given.quantity END
                        AS new_quantity
                FROM locked JOIN given USING (id)
                LEFT JOIN LATERAL (
                    SELECT (item ->> 'quantity')::bigint AS quantity FROM jsonb_array_elements(items) AS item
                    WHERE item ->> 'product_id' = product_id
                ) AS present ON true
            ), decided AS MATERIALIZED (
                SELECT *, CASE
                    WHEN expected <> etag THEN 'CART_CHANGED'
                    WHEN action = 'CLEAR' THEN NULL
                    WHEN deleted AND new_quantity > coalesce(old_quantity, 0) THEN 'PRODUCT_DELETED'
                    WHEN old_quantity IS NULL AND new_quantity > 0 AND offer IS NULL THEN 'NO_OFFER'
                    WHEN old_quantity IS NULL AND new_quantity > 0 AND size >= %(max_items)s THEN 'CART_FULL'
                    WHEN new_quantity > %(max_quantity)s THEN 'QUANTITY_LIMIT'
                END AS refusal
                FROM counted
            ), remembered AS (
                INSERT INTO cart_add (cart_id, request_id, product_id, quantity)
                SELECT id, request_id, product_id::uuid, given_quantity FROM decided
                WHERE request_id IS NOT NULL AND refusal IS NULL
                ORDER BY id
                ON CONFLICT (cart_id, request_id) DO NOTHING
                RETURNING cart_id
            ), rewritten AS MATERIALIZED (
                SELECT id, owner, expire_time, update_time, items AS old_items,
                CASE action WHEN 'CLEAR' THEN '[]' ELSE (
                    SELECT coalesce(jsonb_agg(item ORDER BY position), '[]') FROM (
                        SELECT position, CASE WHEN item ->> 'product_id' = product_id
                            THEN item || coalesce(offer, '{{}}') || jsonb_build_object('quantity', new_quantity)
                            ELSE item END AS item
                        FROM jsonb_array_elements(items) WITH ORDINALITY AS old (item, position)
                        WHERE item ->> 'product_id' <> product_id OR new_quantity > 0
                        UNION ALL
                        SELECT size + 1, offer || jsonb_build_object('product_id', product_id, 'quantity', new_quantity)
                        WHERE old_quantity IS NULL AND new_quantity > 0
                    ) AS item
                ) END AS items
                FROM decided
                WHERE refusal IS NULL AND (request_id IS NULL OR id IN (SELECT cart_id FROM remembered))
            ), written AS (
                UPDATE cart
                SET items = renewed.items, etag = gen_random_uuid(), expire_time = renewed.expire_time,
                    update_time = greatest(now(), renewed.update_time)
                FROM (SELECT id, old_items, items, update_time, {EXPIRE_TIME} AS expire_time FROM rewritten) AS renewed
                WHERE cart.id = renewed.id AND renewed.items <> renewed.old_items
                RETURNING cart.id, cart.etag, cart.items, cart.update_time, cart.expire_time
            )
            SELECT locked.id, owner, secret_hash, coalesce(written.etag, locked.etag) AS etag,
                coalesce(written.items, locked.items) AS items, create_time,
                coalesce(written.update_time, locked.update_time) AS update_time,
                coalesce(written.expire_time, locked.expire_time) AS expire_time,
                refusal, refusal IS NULL AND request_id IS NOT NULL AND remembered.cart_id IS NULL AS is_repeat
            FROM locked
            JOIN (SELECT id, refusal, request_id FROM decided) AS decided USING (id)
            LEFT JOIN remembered ON remembered.cart_id = locked.id
            LEFT JOIN written ON written.id = locked.id
            """
        params = {
            "changes": Jsonb([_json(each) for each in changes]),
            "max_items": MAX_ITEMS,
            "max_quantity": MAX_QUANTITY,
            **TTLS,
        }
        # If the connection is lost, it is unknown whether the changes were made.
        repeatable = all(each.is_repeatable for each in changes)
        rows = await self._database.fetch("cart.change", query, params, _ChangedRow, idempotent=repeatable)
        found = {row.id: Changed(row, row.refusal, row.is_repeat) for row in rows}
        return [found.get(each.cart_id) for each in changes]

    async def delete(self, cart_id: UUID, holder: Holder, expected_etag: UUID | None) -> None:
        """Deletes a cart. Looks for it in a second statement if that changed nothing.

        Raises:
            DomainError: NOT_FOUND as `get`; ABORTED if it has another etag than the expected one.
        """
        query: LiteralString = f"""
            DELETE FROM cart
            WHERE id = %(id)s AND {LIVE} AND (owner = nullif(%(owner)s, '') OR secret_hash = %(secret)s)
                AND (%(expected)s::uuid IS NULL OR etag = %(expected)s)
            RETURNING id
            """
        params = {"id": cart_id, "owner": holder.owner, "secret": holder.secret_hash, "expected": expected_etag}
        if not await self._database.fetch_one("cart.delete", query, params, _Id, idempotent=False):
            await self.get(cart_id, holder)
            raise cart_changed()
        self.changes[DELETE] += 1

    async def renew_etag(self, cart_id: UUID, etag: UUID) -> bool:
        """Gives a version of a cart a new etag, since no order can be made under the old one.

        Returns:
            Whether it did. If not, the cart had another etag: from then on, nothing can be ordered under the old one.
        """
        query: LiteralString = """
            UPDATE cart SET etag = gen_random_uuid() WHERE id = %(id)s AND etag = %(etag)s RETURNING id
            """
        return await self._database.fetch_one("cart.renew_etag", query, {"id": cart_id, "etag": etag}, _Id) is not None


def busy() -> ApiError:
    """Returns the error for a cart that others make and delete all the time."""
    return unavailable("other requests are changing the cart; try again", retry_after=0.1)


def _json(change: Change) -> dict[str, Any]:
    """Returns a change for the statement."""
    offer = change.offer
    return {
        "id": str(change.cart_id),
        "owner": change.holder.owner,
        "secret": change.holder.secret_hash.hex() if change.holder.secret_hash else None,
        "action": change.action,
        "product_id": str(change.product_id) if change.product_id else None,
        "quantity": change.quantity,
        "expected": str(change.expected_etag) if change.expected_etag else None,
        "request_id": str(change.request_id) if change.request_id else None,
        "deleted": bool(offer and offer.deleted),
        "offer": {"name": offer.name, "currency": offer.price.currency, "price_micros": offer.price.micros}
        if offer
        else None,
    }
