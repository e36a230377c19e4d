"""The configuration of the product service."""

from dataclasses import dataclass, replace
from typing import Self

from runtime.access.config import AccessConfig
from runtime.config import DatabaseConfig, Env, ServerConfig
from runtime.telemetry.config import TelemetryConfig

PORT = 50052


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that can be configured, from environment variables."""

    server: ServerConfig
    access: AccessConfig
    database: DatabaseConfig
    stock: DatabaseConfig
    """The connections of StockService alone, so that reads of the catalogue never delay an order."""
    search: DatabaseConfig
    """The connections of searches alone, which may read every product."""
    replicas: DatabaseConfig | None
    """The connections to replicas for reads of the catalogue; None if it is read from the primary."""
    replica_searches: DatabaseConfig | None
    """Those of searches alone."""
    max_lag: float
    """How many seconds a replica may be behind."""
    telemetry: TelemetryConfig

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads and checks the variables.

        Raises:
            ConfigError: A variable has a value that cannot be used.
        """
        database = DatabaseConfig.from_env(env)
        replicas = database.for_replicas(env)
        return cls(
            server=ServerConfig.from_env(env, grpc_port=PORT),
            access=AccessConfig.from_env(env),
            database=database,
            stock=replace(database, pool_size=env.integer("STOCK_POOL_SIZE", 4, 1, 100)),
            search=database.for_searches(env),
            replicas=replicas,
            replica_searches=replicas.for_searches(env) if replicas else None,
            max_lag=env.seconds("DATABASE_READ_MAX_LAG", 5, 1, 3600),
            telemetry=TelemetryConfig.from_env(env),
        )
