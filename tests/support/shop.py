"""The whole shop for a test, as `make up` starts it: real processes, a real PostgreSQL, the real Envoy."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from demo.signing_key import SigningKey
from demo.tokens import CUSTOMER, STAFF, TokenMaker
from local.settings import LOOPBACK, Settings, free_ports
from local.shop import Shop


@dataclass(frozen=True)
class RunningShop:
    """Where the parts of a shop answer."""

    url: str
    target: str
    product_target: str
    order_target: str
    settings: Settings
    shop: Shop

    def token(self, subject: str = "ada", *, staff: bool = False, ttl: float = 3600) -> str:
        """A token for trying. The shop must run with AUTH_MODE=jwt, and without a provider of the test's own."""
        config = self.settings.tokens.config
        assert config
        maker = TokenMaker(SigningKey.read(self.settings.tokens.key), config)
        return maker.make(subject, STAFF if staff else CUSTOMER, ttl)

    def authorization(self, subject: str = "ada", *, staff: bool = False) -> dict[str, str]:
        """The headers of a request with such a token; none if the shop verifies no tokens."""
        if not self.settings.tokens.config:
            return {}
        return {"Authorization": f"Bearer {self.token(subject, staff=staff)}"}


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
                settings=settings,
                shop=shop,
            )
    finally:
        shop.postgres.remove()
