"""The configuration of the order service."""

from dataclasses import dataclass
from typing import Self

from order.tickets import TicketConfig
from runtime.access.config import AccessConfig
from runtime.client import parse_target
from runtime.config import DatabaseConfig, Env, ServerConfig
from runtime.telemetry.config import TelemetryConfig

PORT = 50053


def product_target(env: Env) -> str:
    """Returns the gRPC target of the product service. Raises ConfigError if it is none."""
    return parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052"))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that can be configured, from environment variables."""

    server: ServerConfig
    access: AccessConfig
    tickets: TicketConfig
    database: DatabaseConfig
    search: DatabaseConfig
    """The connections of ListOrders alone, so that lists never delay an order."""
    telemetry: TelemetryConfig
    product_target: str
    event_retention_days: int
    """Days for which the event log of a finished order is kept."""
    max_streams: int
    """Concurrent StreamOrderStatus calls."""
    max_streams_per_client: int
    """Concurrent StreamOrderStatus calls of one caller; 0: no limit of its own."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads and checks the variables.

        Raises:
            ConfigError: A variable has a value that cannot be used.
        """
        database = DatabaseConfig.from_env(env)
        return cls(
            server=ServerConfig.from_env(env, grpc_port=PORT),
            access=AccessConfig.from_env(env),
            tickets=TicketConfig.from_env(env),
            database=database,
            search=database.for_searches(env),
            telemetry=TelemetryConfig.from_env(env),
            product_target=product_target(env),
            event_retention_days=env.integer("EVENT_RETENTION_DAYS", 90, 1, 36_500),
            max_streams=env.integer("ORDER_MAX_STREAMS", 2_000, 1, 100_000),
            max_streams_per_client=env.integer("ORDER_MAX_STREAMS_PER_CLIENT", 100, 0, 100_000),
        )
