"""Reflection and health for the whole shop: the edge cannot route them by service."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shop.cart.v1 import cart_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from runtime.health import Health, Status

PRODUCT = "shop.product.v1.ProductService"
ORDER = "shop.order.v1.OrderService"
CART = "shop.cart.v1.CartService"
"""Carts are in the process of order, and as healthy as orders."""

OWN = "sse"
"""The health name of the sidecar itself; `""` is the whole shop's."""

HEALTH_CACHE_TIME = 1.0
"""Seconds for which the health of a service is cached, however many clients ask."""

HEALTH_TIMEOUT = 2.0
"""Seconds within which a service has to say whether it is healthy."""


def public_descriptors() -> DescriptorPool:
    """Returns the descriptors of what the edge routes and of the details of its errors, and of nothing else."""
    pool = DescriptorPool()
    # status and error_details are in no message of ours, but in errors: a client asks for them to show those.
    public = (product_pb2, order_pb2, cart_pb2, health_pb2, status_pb2, error_details_pb2)
    _add(pool, (module.DESCRIPTOR for module in public), set())
    return pool


def _add(pool: DescriptorPool, files: Iterable[FileDescriptor], added: set[str]) -> None:
    for file in files:
        if file.name not in added:
            added.add(file.name)
            _add(pool, file.dependencies, added)
            pool.AddSerializedFile(file.serialized_pb)


class Upstream:
    """The health of one service, as the service reports it."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)
        self._service = service
        self._lock = asyncio.Lock()
        self._checked_at = -HEALTH_CACHE_TIME
        self._serving = False

    async def serving(self) -> bool:
        """Returns whether the service is serving, as of HEALTH_CACHE_TIME ago at most."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() - self._checked_at >= HEALTH_CACHE_TIME:
                self._serving = await self._check()
                self._checked_at = clock()
            return self._serving

    async def _check(self) -> bool:
        try:
            response = await self._stub.Check(
                health_pb2.HealthCheckRequest(service=self._service), timeout=HEALTH_TIMEOUT
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == Status.SERVING)


class EdgeHealth(Health):
    """grpc.health.v1 for the whole edge. `""` is SERVING when every service is; `sse` is this process alone."""

    def __init__(self, services: Mapping[str, Upstream]) -> None:
        """`services` is keyed by full name."""
        super().__init__(HEALTH_CACHE_TIME)
        self._services = services

    async def set(self, service: str, status: int) -> None:
        """Sets a status. Without a name, it is the sidecar's own."""
        await super().set(service or OWN, status)

    async def status(self, name: str) -> int | None:
        """Returns the status of a service behind the edge, or of all of them; None if there is none of that name."""
        if name == "":
            found = await asyncio.gather(*(service.serving() for service in self._services.values()))
            serving = all(found) and not self.is_shutting_down
        elif name in self._services:
            serving = await self._services[name].serving()
        else:
            return await super().status(name)
        return Status.SERVING if serving else Status.NOT_SERVING
