"""Configuration is verified before anything opens, and the message names the variable."""

import re

import pytest
from psycopg.conninfo import conninfo_to_dict

from product.config import Config
from runtime.client import parse_target
from runtime.config import ConfigError, DatabaseConfig, Env, ServerConfig
from runtime.credentials import ConnectionInfo
from runtime.telemetry.config import TelemetryConfig


def test_absent_and_empty_variables_have_defaults() -> None:
    config = ServerConfig.from_env(Env({"GRPC_PORT": ""}), grpc_port=50052)
    assert (config.host, config.grpc_port, config.reflection) == ("0.0.0.0", 50052, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRPC_PORT", "grpc"),
        ("GRPC_PORT", "0"),
        ("GRPC_PORT", "65536"),
        ("SHUTDOWN_DELAY", "soon"),
        ("SHUTDOWN_GRACE", "-1"),
        ("SHUTDOWN_GRACE", "nan"),
        ("REFLECTION", "no"),
        ("LISTEN_HOST", "[::1"),
        ("LISTEN_HOST", "::1:50052"),
        ("LISTEN_HOST", "a host"),
    ],
)
def test_bad_server_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerConfig.from_env(Env({name: value}), grpc_port=1)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("::", "[::]:1"),
        ("[::]", "[::]:1"),
        ("0:0::0:1", "[::1]:1"),
        ("10.0.0.1", "10.0.0.1:1"),
        ("localhost", "localhost:1"),
    ],
)
def test_listen_host_accepts_brackets_and_names(given: str, address: str) -> None:
    config = ServerConfig.from_env(Env({"LISTEN_HOST": given}), grpc_port=1)
    assert config.address(config.grpc_port) == address


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_POOL_SIZE", "0"), ("DATABASE_POOL_WAITING", "x"), ("DATABASE_TIMEOUT", "0")]
)
def test_bad_database_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        DatabaseConfig.from_env(Env({name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STOCK_POOL_SIZE", "0"),
        ("SEARCH_POOL_SIZE", "101"),
        ("SEARCH_TIMEOUT", "61"),
        ("DATABASE_READ_POOL_SIZE", "0"),
        ("DATABASE_READ_MAX_LAG", "0"),
    ],
)
def test_bad_variable_of_product_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.from_env(Env({name: value, "INTERNAL_CREDENTIALS": "/credentials"}))


def test_stock_and_searches_have_limits_of_their_own() -> None:
    config = Config.from_env(
        Env({"DATABASE_POOL_SIZE": "9", "DATABASE_TIMEOUT": "7", "INTERNAL_CREDENTIALS": "/credentials"})
    )
    assert [(each.pool_size, each.timeout) for each in (config.database, config.stock, config.search)] == [
        (9, 7),
        (4, 7),
        (2, 3),
    ]


def test_replicas_inherit_from_the_database_but_the_pooler() -> None:
    """Each connection to a replica is checked by itself, which a pooler in transaction mode would make meaningless."""
    variables = {"DATABASE_URL": "postgresql://ada:s3cret@db/shop", "DATABASE_POOLER_URL": "host=pooler"}
    config = DatabaseConfig.from_env(Env(variables))
    assert config.for_replicas(Env(variables)) is None
    replicas = config.for_replicas(Env(variables | {"DATABASE_READ_URL": "host=replicas port=6432"}))
    assert replicas is not None
    found = conninfo_to_dict(ConnectionInfo(replicas, "test", through_pooler=True)())
    assert (found["host"], found["port"], found["user"], found["dbname"]) == ("replicas", "6432", "ada", "shop")
    assert found["target_session_attrs"] == "any"
    assert replicas.timeout < config.timeout, "there must be time left for the primary"


def test_pooler_inherits_from_the_database() -> None:
    config = DatabaseConfig.from_env(
        Env({"DATABASE_URL": "postgresql://ada:s3cret@db/shop", "DATABASE_POOLER_URL": "host=pooler port=6432"})
    )
    direct = conninfo_to_dict(ConnectionInfo(config, "test")())
    pooled = conninfo_to_dict(ConnectionInfo(config, "test", through_pooler=True)())
    assert (direct["host"], direct.get("port")) == ("db", None)
    assert {**direct, "host": "pooler", "port": "6432"} == pooled


def test_bad_pooler_is_named_without_being_repeated() -> None:
    config = DatabaseConfig.from_env(Env({"DATABASE_POOLER_URL": "host=x password=s3cret nonsense"}))
    with pytest.raises(ConfigError, match="DATABASE_POOLER_URL") as caught:
        ConnectionInfo(config, "test")
    assert "s3cret" not in str(caught.value)


def test_bad_connection_string_is_not_repeated() -> None:
    """It may hold a password, which must not get into a log."""
    config = DatabaseConfig.from_env(Env({"DATABASE_URL": "host=x password=s3cret nonsense"}))
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        ConnectionInfo(config, "test")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml"), ("LOG_CALLS_PER_SECOND", "-1")]
)
def test_bad_telemetry_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TelemetryConfig.from_env(Env({name: value}))


@pytest.mark.parametrize(
    ("value", "levels"),
    [
        ("", {"": "INFO"}),
        ("WARNING", {"": "WARNING"}),
        ("shop.rpc=WARNING", {"": "INFO", "shop.rpc": "WARNING"}),
        ("ERROR, shop.rpc = INFO,order=DEBUG,", {"": "ERROR", "shop.rpc": "INFO", "order": "DEBUG"}),
    ],
)
def test_log_level_can_differ_by_logger(value: str, levels: dict[str, str]) -> None:
    assert TelemetryConfig.from_env(Env({"LOG_LEVEL": value})).log_levels == levels


@pytest.mark.parametrize(
    ("value", "bad"),
    [
        ("INFO,shop.rpc", "shop.rpc"),
        ("INFO,shop.rpc=loud", "shop.rpc=loud"),
        ("INFO,=DEBUG", "=DEBUG"),
        ("INFO,shop rpc=DEBUG", "shop rpc=DEBUG"),
        ("INFO,a=b=DEBUG", "a=b=DEBUG"),
        ("INFO,DEBUG", "DEBUG"),
        ("order=INFO,order=DEBUG", "order=DEBUG"),
    ],
)
def test_bad_entry_of_log_level_is_named(value: str, bad: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"'{bad}'")):
        TelemetryConfig.from_env(Env({"LOG_LEVEL": value}))


def test_opentelemetry_variables_are_standard() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    more = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "shop-product"}
    config = TelemetryConfig.from_env(Env(endpoint | more))
    assert (config.traces_endpoint, config.traces_protocol) == ("http://collector:4318", "http/protobuf")
    assert config.service_name == "shop-product"
    assert TelemetryConfig.from_env(Env(endpoint | {"OTEL_TRACES_EXPORTER": "none"})).traces_endpoint == ""


@pytest.mark.parametrize("value", ["product", "dns:///product", "dns:///product:grpc", ":50052"])
def test_target_needs_host_and_port(value: str) -> None:
    with pytest.raises(ConfigError, match="PRODUCT_TARGET"):
        parse_target("PRODUCT_TARGET", value)
