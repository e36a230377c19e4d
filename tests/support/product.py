"""A product service in the process of the test, on a real database and a free port, with its clients."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf import duration_pb2, field_mask_pb2
from google.rpc import error_details_pb2, status_pb2
from google.type import money_pb2
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from local.settings import free_ports
from product.app import serving
from product.config import Config
from runtime.config import Env
from runtime.errors import parse_rpc_error
from runtime.server import Server
from tests.support.access import credentials, internal_channel
from tests.support.invariants import check_stock

UNKNOWN = "00000000-0000-4000-8000-000000000000"
"""A UUID that no product has."""


@dataclass
class Refusal:
    """The error of a call.

    Attributes:
        code: The name of its gRPC code.
        reason: The reason of its ErrorInfo, or empty.
        metadata: The metadata of its ErrorInfo.
        fields: The description of each field violation, by field.
        message: Its message.
        retry_after: The seconds of its RetryInfo, or None.
    """

    code: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    message: str = ""
    retry_after: float | None = None

    @property
    def what(self) -> "Refusal":
        """The error itself, for tests that still ask for `.what`."""
        return self


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads the error of a call."""
    code, reason, status = parse_rpc_error(error)
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    _unpack(status, info)
    _unpack(status, bad)
    retry_after = retry.retry_delay.ToTimedelta().total_seconds() if _unpack(status, retry) else None
    fields = {violation.field: violation.description for violation in bad.field_violations}
    return Refusal(code.name, reason, dict(info.metadata), fields, error.details() or "", retry_after)


def _unpack(status: status_pb2.Status, into: Any) -> bool:
    return any(detail.Unpack(into) for detail in status.details)


@contextmanager
def refused() -> Iterator[Refusal]:
    """Expects a call in the block to fail. After the block, the value of the context has the parts of the error."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield refusal
    vars(refusal).update(vars(refusal_of(caught.value)))


@dataclass(frozen=True)
class ProductShop:
    """The running service and its clients."""

    address: str
    conninfo: str
    server: Server
    products: "product_pb2_grpc.ProductServiceAsyncStub"  # known to the type checker only
    stock: "stock_pb2_grpc.StockServiceAsyncStub"

    async def create(self, name: str = "Steel watch", *, stock: int = 10, **fields: Any) -> product_pb2.Product:
        """Creates a product at 12.50 EUR, unless `fields` says otherwise."""
        values: dict[str, Any] = {"name": name, "stock": stock, "price": euros(12.5)} | fields
        product = product_pb2.Product(**values)
        return await self.products.CreateProduct(product_pb2.CreateProductRequest(product=product))

    async def update(
        self, product_id: str, *paths: str, etag: str = "", if_match: str = "", **fields: Any
    ) -> product_pb2.Product:
        """UpdateProduct with the paths of a mask, or without a mask."""
        request = product_pb2.UpdateProductRequest(
            product=product_pb2.Product(id=product_id, etag=etag, **fields),
            update_mask=field_mask_pb2.FieldMask(paths=paths) if paths else None,
        )
        return await self.products.UpdateProduct(request, metadata=(("if-match", if_match),) if if_match else ())

    async def delete(self, product_id: str, etag: str = "") -> product_pb2.Product:
        return await self.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product_id, etag=etag))

    async def undelete(self, product_id: str, etag: str = "") -> product_pb2.Product:
        return await self.products.UndeleteProduct(product_pb2.UndeleteProductRequest(id=product_id, etag=etag))

    async def get(self, product_id: str) -> product_pb2.Product:
        return await self.products.GetProduct(product_pb2.GetProductRequest(id=product_id))

    async def stock_of(self, product_id: str) -> int:
        return (await self.get(product_id)).stock

    async def reserve(
        self,
        items: dict[str, int],
        reservation_id: str | None = None,
        ttl: float = 60,
        expected: money_pb2.Money | None = None,
    ) -> stock_pb2.Reservation:
        return await self.stock.ReserveStock(reserve_request(items, reservation_id, ttl, expected))

    async def confirm(self, reservation_id: str) -> stock_pb2.Reservation:
        return await self.stock.ConfirmReservation(stock_pb2.ConfirmReservationRequest(reservation_id=reservation_id))

    async def release(self, reservation_id: str) -> stock_pb2.Reservation:
        return await self.stock.ReleaseReservation(stock_pb2.ReleaseReservationRequest(reservation_id=reservation_id))

    async def adjust(self, product_id: str, delta: int, request_id: str = "", **headers: str) -> product_pb2.Product:
        """AdjustStock with headers. Their names have `_` in place of `-`."""
        return await self.products.AdjustStock(
            product_pb2.AdjustStockRequest(id=product_id, delta=delta, request_id=request_id),
            metadata=tuple((name.replace("_", "-"), value) for name, value in headers.items()),
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection to the database that does not pass through the service."""
        async with await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True) as connection:
            yield connection


def euros(amount: float) -> money_pb2.Money:
    micros = round(amount * 1_000_000)
    return money_pb2.Money(currency_code="EUR", units=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def reserve_request(
    items: dict[str, int],
    reservation_id: str | None = None,
    ttl: float = 60,
    expected: money_pb2.Money | None = None,
) -> stock_pb2.ReserveStockRequest:
    duration = duration_pb2.Duration(seconds=int(ttl), nanos=round(ttl % 1 * 1_000_000_000))
    return stock_pb2.ReserveStockRequest(
        reservation_id=reservation_id or str(uuid4()),
        items=[stock_pb2.StockItem(product_id=key, quantity=quantity) for key, quantity in items.items()],
        ttl=duration,
        expected_total=expected,
    )


@asynccontextmanager
async def product_shop(conninfo: str, **variables: str) -> AsyncIterator[ProductShop]:
    """Runs the service on a migrated database, with `variables` in its environment."""
    (port,) = free_ports(1)
    defaults = {
        "LISTEN_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "DATABASE_URL": conninfo,
        "SHUTDOWN_DELAY": "0",
        "INTERNAL_CREDENTIALS": str(credentials()),
        "SHUTDOWN_GRACE": "1",
    }
    address = f"127.0.0.1:{port}"
    async with (
        serving(Config.from_env(Env(defaults | variables))) as server,
        internal_channel(address) as channel,
    ):
        products = product_pb2_grpc.ProductServiceStub(channel)
        yield ProductShop(address, conninfo, server, products, stock_pb2_grpc.StockServiceStub(channel))


@asynccontextmanager
async def balanced_shop(conninfo: str, **variables: str) -> AsyncIterator[ProductShop]:
    """Runs the service like `product_shop`, and checks at the end that every piece of stock is accounted for."""
    async with product_shop(conninfo, **variables) as shop:
        yield shop
        async with shop.connection() as connection:
            await check_stock(connection)
