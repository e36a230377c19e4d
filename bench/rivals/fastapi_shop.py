"""The shop as FastAPI and asyncpg would have it: one process, one database, one careful transaction for an order.

RIVAL_DATABASE=postgresql://… python -m uvicorn bench.rivals.fastapi_shop:app
"""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PRODUCT = (
    "id, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri, revision,"
    " create_time, update_time"
)
ORDER = (
    "id, number, status, items, currency, total_micros, customer_name, customer_email, customer_phone,"
    " shipping_address, payment_method, notes, version, create_time, update_time"
)
SEARCHED = r"lower(name || E'\n' || description || E'\n' || category || E'\n' || sku)"


class Item(BaseModel):
    productId: UUID  # noqa: N815 - as in JSON
    quantity: int = Field(ge=1, le=1_000_000)


class Customer(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    email: str = Field(max_length=254, pattern=r"[^@\s]+@[^@\s]+")
    phone: str = ""


class NewOrder(BaseModel):
    items: list[Item] = Field(min_length=1, max_length=50)
    customer: Customer
    shippingAddress: str = Field(min_length=1, max_length=1_000)  # noqa: N815
    paymentMethod: str = Field(min_length=1, max_length=50)  # noqa: N815
    notes: str = Field(default="", max_length=1_000)

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.model_dump_json().encode()).digest()


async def _codecs(connection: "asyncpg.Connection[Any]") -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    size = int(os.environ["RIVAL_POOL_SIZE"])
    pool = await asyncpg.create_pool(os.environ["RIVAL_DATABASE"], min_size=size, max_size=size, init=_codecs)
    app.state.pool = pool
    yield
    await pool.close()


app = FastAPI(lifespan=lifespan)


def money(currency: str, micros: int) -> dict[str, Any]:
    units, rest = divmod(int(micros), 1_000_000)
    return {"currencyCode": currency, "units": str(units), "nanos": rest * 1_000}


def product_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "slug": row["slug"],
        "sku": row["sku"],
        "variant": row["variant"],
        "description": row["description"],
        "category": row["category"],
        "price": money(row["currency"], row["price_micros"]),
        "stock": str(row["stock"]),
        "star": row["star"],
        "imageUri": row["image_uri"],
        "etag": str(row["revision"]),
        "createTime": row["create_time"],
        "updateTime": row["update_time"],
    }


def order_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "number": row["number"],
        "status": row["status"],
        "items": [
            {
                "productId": item["product_id"],
                "quantity": item["quantity"],
                "name": item["name"],
                "unitPrice": money(row["currency"], item["price_micros"]),
            }
            for item in row["items"]
        ],
        "total": money(row["currency"], row["total_micros"]),
        "customer": {"name": row["customer_name"], "email": row["customer_email"], "phone": row["customer_phone"]},
        "shippingAddress": row["shipping_address"],
        "paymentMethod": row["payment_method"],
        "notes": row["notes"],
        "etag": str(row["version"]),
        "createTime": row["create_time"],
        "updateTime": row["update_time"],
    }


@app.get("/api/v1/products/{product_id}")
async def get_product(product_id: UUID) -> dict[str, Any]:
    row = await app.state.pool.fetchrow(f"SELECT {PRODUCT} FROM product WHERE id = $1", product_id)
    if row is None:
        raise HTTPException(404)
    return product_json(row)


async def page(
    kind: str,
    table: str,
    columns: str,
    json_of: Callable[[Mapping[str, Any]], dict[str, Any]],
    conditions: list[str],
    values: list[Any],
    size: int,
    token: str,
) -> dict[str, Any]:
    """Newest first, after the row that the token names by its time and id."""
    if token:
        microseconds, _, last = token.partition("_")
        values += [EPOCH + timedelta(microseconds=int(microseconds)), UUID(last)]
        conditions = [*conditions, f"(create_time, id) < (${len(values) - 1}, ${len(values)})"]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    rows = await app.state.pool.fetch(
        f"SELECT {columns} FROM {table} {where}ORDER BY create_time DESC, id DESC LIMIT ${len(values) + 1}",
        *values,
        size + 1,
    )
    last_row = rows[size - 1] if len(rows) > size else None
    following = f"{(last_row['create_time'] - EPOCH) // timedelta(microseconds=1)}_{last_row['id']}" if last_row else ""
    return {kind: [json_of(row) for row in rows[:size]], "nextPageToken": following}


@app.get("/api/v1/products")
async def list_products(
    pageSize: int = 20,  # noqa: N803 - as in the URL
    search: str = "",
    category: str = "",
    pageToken: str = "",  # noqa: N803
) -> dict[str, Any]:
    conditions: list[str] = []
    values: list[Any] = []
    if search:
        word = search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        values.append(f"%{word}%")
        conditions.append(f"{SEARCHED} LIKE lower(${len(values)})")
    if category:
        values.append(category)
        conditions.append(f"category = ${len(values)}")
    return await page("products", "product", PRODUCT, product_json, conditions, values, pageSize, pageToken)


@app.get("/api/v1/orders/{order_id}")
async def get_order(order_id: UUID) -> dict[str, Any]:
    row = await app.state.pool.fetchrow(f"SELECT {ORDER} FROM orders WHERE id = $1", order_id)
    if row is None:
        raise HTTPException(404)
    return order_json(row)


@app.get("/api/v1/orders")
async def list_orders(pageSize: int = 20, pageToken: str = "") -> dict[str, Any]:  # noqa: N803
    return await page("orders", "orders", ORDER, order_json, [], [], pageSize, pageToken)


@app.post("/api/v1/orders")
async def create_order(order: NewOrder, idempotency_key: Annotated[UUID, Header()]) -> dict[str, Any]:
    try:
        return await place(order, idempotency_key)
    except asyncpg.UniqueViolationError:
        # The same key came twice at once: the other one's order is there now, and nothing of this one is.
        return await place(order, idempotency_key)


async def place(order: NewOrder, idempotency_key: UUID) -> dict[str, Any]:
    wanted = sorted(order.items, key=lambda item: item.productId)
    fingerprint = order.fingerprint()
    async with app.state.pool.acquire() as connection, connection.transaction():
        before = await connection.fetchrow(
            f"SELECT fingerprint, {ORDER} FROM orders WHERE key = $1",
            idempotency_key,
        )
        if before is not None:
            if before["fingerprint"] != fingerprint:
                raise HTTPException(409, "the key was used for another order")
            return order_json(before)
        items = []
        currencies = set()
        for item in wanted:
            row = await connection.fetchrow(
                "UPDATE product SET stock = stock - $2 WHERE id = $1 AND stock >= $2"
                " RETURNING name, currency, price_micros",
                item.productId,
                item.quantity,
            )
            if row is None:
                raise HTTPException(400, "too little stock")
            currencies.add(row["currency"])
            items.append(
                {
                    "product_id": str(item.productId),
                    "quantity": item.quantity,
                    "name": row["name"],
                    "price_micros": row["price_micros"],
                }
            )
        if len(currencies) > 1:
            raise HTTPException(400, "several currencies")
        placed = await connection.fetchrow(
            f"""
            INSERT INTO orders (id, key, fingerprint, number, status, items, currency, total_micros, customer_name,
                customer_email, customer_phone, shipping_address, payment_method, notes)
            VALUES ($1, $2, $3, 'INV-' || to_char(now(), 'YYYYMMDD') || '-' || nextval('order_number'), 'PLACED', $4,
                $5, $6, $7, $8, $9, $10, $11, $12)
            RETURNING {ORDER}
            """,
            uuid4(),
            idempotency_key,
            fingerprint,
            items,
            currencies.pop(),
            sum(item["price_micros"] * item["quantity"] for item in items),
            order.customer.name,
            order.customer.email,
            order.customer.phone,
            order.shippingAddress,
            order.paymentMethod,
            order.notes,
        )
        await connection.execute(
            "INSERT INTO order_event (order_id, version, status) VALUES ($1, 1, 'PLACED')", placed["id"]
        )
    return order_json(placed)


@app.post("/api/v1/orders/{order_id}:cancel")
async def cancel_order(order_id: UUID, request: Request) -> dict[str, Any]:
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            "UPDATE orders SET status = 'CANCELLED', version = version + 1, update_time = now()"
            f" WHERE id = $1 AND status IN ('PLACED', 'PROCESSED') RETURNING {ORDER}",
            order_id,
        )
        if row is None:
            raise HTTPException(400, "there is no such order, or it cannot be cancelled any more")
        for item in sorted(row["items"], key=lambda each: str(each["product_id"])):
            await connection.execute(
                "UPDATE product SET stock = stock + $2 WHERE id = $1", UUID(item["product_id"]), item["quantity"]
            )
        await connection.execute(
            "INSERT INTO order_event (order_id, version, status) VALUES ($1, $2, 'CANCELLED')", order_id, row["version"]
        )
    return order_json(row)
