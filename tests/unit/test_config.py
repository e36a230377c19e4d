"""Configuration is verified before anything opens, and the message names the variable."""

import pytest

from runtime.client import target
from runtime.config import ConfigError, DatabaseConfig, Env, ServerConfig, TelemetryConfig
from runtime.credentials import ConnectionInfo


def test_defaults_are_used_for_absent_and_empty_variables() -> None:
    config = ServerConfig.from_env(Env({"GRPC_PORT": ""}), grpc_port=50052)
    assert (config.host, config.grpc_port, config.caller_header) == ("0.0.0.0", 50052, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRPC_PORT", "grpc"),
        ("GRPC_PORT", "0"),
        ("GRPC_PORT", "65536"),
        ("SHUTDOWN_DELAY", "soon"),
        ("SHUTDOWN_GRACE", "-1"),
        ("SHUTDOWN_GRACE", "nan"),
        ("CALLER_HEADER", "X-Caller"),
    ],
)
def test_a_bad_server_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerConfig.from_env(Env({name: value}), grpc_port=1)


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_POOL_SIZE", "0"), ("DATABASE_POOL_WAITING", "x"), ("DATABASE_TIMEOUT", "0")]
)
def test_a_bad_database_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        DatabaseConfig.from_env(Env({name: value}))


def test_a_bad_connection_string_is_refused_without_being_repeated() -> None:
    """It may hold a password, which must not get into a log."""
    config = DatabaseConfig.from_env(Env({"DATABASE_URL": "host=x password=s3cret nonsense"}))
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        ConnectionInfo(config, "test")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml")])
def test_a_bad_telemetry_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TelemetryConfig.from_env(Env({name: value}))


def test_opentelemetrys_variables_mean_what_they_mean_elsewhere() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    more = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "shop-product"}
    config = TelemetryConfig.from_env(Env(endpoint | more))
    assert (config.otlp_endpoint, config.otlp_protocol) == ("http://collector:4318", "http/protobuf")
    assert config.service_name == "shop-product"
    assert TelemetryConfig.from_env(Env(endpoint | {"OTEL_TRACES_EXPORTER": "none"})).otlp_endpoint == ""


@pytest.mark.parametrize("value", ["product", "dns:///product", "dns:///product:grpc", ":50052"])
def test_a_target_needs_host_and_port(value: str) -> None:
    with pytest.raises(ConfigError, match="PRODUCT_TARGET"):
        target("PRODUCT_TARGET", value)
