"""The whole shop for a test, as `make up` starts it: real processes, a real PostgreSQL, the real Envoy."""

import os
from collections.abc import Iterator
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
def run_shop(state: Path, *, demo: bool = False, **environment: str) -> Iterator[RunningShop]:
    """A shop on free ports that keeps everything in `state`."""
    port, product, order = free_ports(3)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "DATABASE_", "PG"))}
    ports = {"PORT": str(port), "PRODUCT_PORT": str(product), "ORDER_PORT": str(order), "STATE_DIR": str(state)}
    settings = replace(Settings.from_env({**inherited, **environment, **ports}), demo=demo)
    shop = Shop(settings)
    try:
        with shop:
            targets = [f"{LOOPBACK}:{each}" for each in (port, product, order)]
            yield RunningShop(f"http://{targets[0]}", *targets, shop)
    finally:
        shop.postgres.remove()
