"""The shop as FastAPI and asyncpg would have it: one process, one database, one careful transaction for an order.

RIVAL_DATABASE=postgresql://… python -m uvicorn bench.rivals.fastapi_shop:app
"""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field

POOL_SIZE = 6

PRODUCT = (
    "id, name, slug, sku, description, category, currency, price_micros, stock, star, revision,"
    " create_time, update_time"
)
ORDER = (
    "id, number, status, items, currency, total_micros, customer_name, customer_email, customer_phone,"
    " shipping_address, payment_method, version, create_time, update_time"
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

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.model_dump_json().encode()).digest()


async def _codecs(connection: "asyncpg.Connection[Any]") -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    pool = await asyncpg.create_pool(os.environ["RIVAL_DATABASE"], min_size=POOL_SIZE, max_size=POOL_SIZE, init=_codecs)
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
        "description": row["description"],
        "category": row["category"],
        "price": money(row["currency"], row["price_micros"]),
        "stock": str(row["stock"]),
        "star": row["star"],
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
        "etag": str(row["version"]),
        "createTime": row["create_time"],
        "updateTime": row["update_time"],
    }


@app.get("/api/v1/products/{product_id}")
async def get_product(product_id: UUID) -> dict[str, Any]:
    row = await app.state.pool.fetchrow(f"SELECT {PRODUCT} FROM product WHERE id = $1", product_id)  # noqa: S608 - literals
    if row is None:
        raise HTTPException(404)
    return product_json(row)


@app.get("/api/v1/products")
async def list_products(pageSize: int = 20, search: str = "") -> dict[str, Any]:  # noqa: N803 - as in the URL
    if search:
        word = search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        rows = await app.state.pool.fetch(
            f"SELECT {PRODUCT} FROM product WHERE {SEARCHED} LIKE lower($1)"  # noqa: S608 - literals
            " ORDER BY create_time DESC, id DESC LIMIT $2",
            f"%{word}%",
            pageSize,
        )
    else:
        rows = await app.state.pool.fetch(
            f"SELECT {PRODUCT} FROM product ORDER BY create_time DESC, id DESC LIMIT $1",  # noqa: S608 - literals
            pageSize,
        )
    return {"products": [product_json(row) for row in rows]}


@app.get("/api/v1/orders/{order_id}")
async def get_order(order_id: UUID) -> dict[str, Any]:
    row = await app.state.pool.fetchrow(f"SELECT {ORDER} FROM orders WHERE id = $1", order_id)  # noqa: S608 - literals
    if row is None:
        raise HTTPException(404)
    return order_json(row)


@app.get("/api/v1/orders")
async def list_orders(pageSize: int = 20) -> dict[str, Any]:  # noqa: N803
    rows = await app.state.pool.fetch(
        f"SELECT {ORDER} FROM orders ORDER BY create_time DESC, id DESC LIMIT $1",  # noqa: S608 - literals
        pageSize,
    )
    return {"orders": [order_json(row) for row in rows]}


@app.post("/api/v1/orders")
async def create_order(order: NewOrder, idempotency_key: Annotated[UUID, Header()]) -> dict[str, Any]:
    wanted = sorted(order.items, key=lambda item: item.productId)
    fingerprint = order.fingerprint()
    async with app.state.pool.acquire() as connection, connection.transaction():
        # Two requests under one key wait for each other here, until the transaction ends.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", idempotency_key.int % 2**63)
        before = await connection.fetchrow(
            f"SELECT fingerprint, {ORDER} FROM orders WHERE key = $1",  # noqa: S608 - literals
            idempotency_key,
        )
        if before is not None:
            if before["fingerprint"] != fingerprint:
                raise HTTPException(409, "the key was used for another order")
            return order_json(before)
        items = []
        for item in wanted:
            row = await connection.fetchrow(
                "UPDATE product SET stock = stock - $2 WHERE id = $1 AND stock >= $2"
                " RETURNING name, currency, price_micros",
                item.productId,
                item.quantity,
            )
            if row is None:
                raise HTTPException(400, "too little stock")
            items.append(
                {
                    "product_id": str(item.productId),
                    "quantity": item.quantity,
                    "name": row["name"],
                    "price_micros": row["price_micros"],
                }
            )
            currency = row["currency"]
        placed = await connection.fetchrow(
            f"""
            INSERT INTO orders (id, key, fingerprint, number, status, items, currency, total_micros, customer_name,
                customer_email, customer_phone, shipping_address, payment_method)
            VALUES ($1, $2, $3, 'INV-' || to_char(now(), 'YYYYMMDD') || '-' || nextval('order_number'), 'PLACED', $4,
                $5, $6, $7, $8, $9, $10, $11)
            RETURNING {ORDER}
            """,  # noqa: S608 - literals
            uuid4(),
            idempotency_key,
            fingerprint,
            items,
            currency,
            sum(item["price_micros"] * item["quantity"] for item in items),
            order.customer.name,
            order.customer.email,
            order.customer.phone,
            order.shippingAddress,
            order.paymentMethod,
        )
        await connection.execute(
            "INSERT INTO order_event (order_id, version, status) VALUES ($1, 1, 'PLACED')", placed["id"]
        )
    return order_json(placed)


@app.post("/api/v1/orders/{order_id}:cancel")
async def cancel_order(order_id: UUID, request: Request) -> dict[str, Any]:
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            "UPDATE orders SET status = 'CANCELLED', version = version + 1, update_time = now()"  # noqa: S608 - literals
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
