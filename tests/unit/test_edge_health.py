"""What the edge says of its health."""

from runtime.health import Status
from sse.edge import EdgeHealth


async def test_draining_edge_is_not_serving() -> None:
    """Whatever its services say: load balancers must leave it."""
    health = EdgeHealth({})
    assert await health.status("") == Status.SERVING
    await health.enter_graceful_shutdown()
    assert await health.status("") == Status.NOT_SERVING
