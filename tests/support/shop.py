"""The whole shop for a test, as `make up` starts it: real processes, a real PostgreSQL, the real Envoy."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from local.settings import LOOPBACK, Settings, free_ports
from local.shop import Shop


@dataclass(frozen=True)
class RunningShop:
    """Where the parts of a shop answer."""

    url: str
    target: str
    product_target: str
    order_target: str
    shop: Shop


@contextmanager
def run_shop(state: Path, environment: Mapping[str, str] | None = None) -> Iterator[RunningShop]:
    """A shop on free ports that keeps everything in `state`, with no demo in it."""
    port, product, order = free_ports(3)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "DATABASE_", "PG"))}
    ports = {"PORT": str(port), "PRODUCT_PORT": str(product), "ORDER_PORT": str(order), "STATE_DIR": str(state)}
    settings = replace(Settings.from_env({**inherited, **(environment or {}), **ports}), demo=False)
    shop = Shop(settings)
    try:
        with shop:
            yield RunningShop(
                url=f"http://{LOOPBACK}:{port}",
                target=f"{LOOPBACK}:{port}",
                product_target=f"{LOOPBACK}:{product}",
                order_target=f"{LOOPBACK}:{order}",
                shop=shop,
            )
    finally:
        shop.postgres.remove()
