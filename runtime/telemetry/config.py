"""The configuration of logs, traces and metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from runtime.config import ConfigError, Env

PROTOCOLS = ("grpc", "http/protobuf")

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_LOGGER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TelemetryConfig:
    """What a process logs, traces and measures."""

    log_levels: Mapping[str, str]
    """The lowest level that is logged, by the name of a logger. The empty name stands for all others."""
    log_format: str
    """`json` or `text`; empty: text if standard output is a terminal."""
    log_calls_per_second: int
    """Log lines a second about calls of one method that succeed; 0: none."""
    traces_endpoint: str
    """Where spans are sent; if empty, there are none."""
    traces_protocol: str
    metrics_endpoint: str
    """Where metrics are sent; if empty, nowhere."""
    metrics_protocol: str
    metrics_port: int
    """The port of `/metrics`, for Prometheus; 0 for none."""
    service_name: str
    """The name of the process in spans and metrics; if empty, its own name."""

    @classmethod
    def from_env(cls, env: Env) -> Self:
        """Reads the configuration.

        Raises:
            ConfigError: A variable has an invalid value.
        """
        protocol = env.choice("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", PROTOCOLS)
        return cls(
            log_levels=_levels(env.text("LOG_LEVEL", "")),
            log_format=env.choice("LOG_FORMAT", "", ("", "json", "text")),
            log_calls_per_second=env.integer("LOG_CALLS_PER_SECOND", 10, 0, 100_000),
            traces_endpoint=_endpoint(env, "TRACES"),
            traces_protocol=env.choice("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol, PROTOCOLS),
            metrics_endpoint=_endpoint(env, "METRICS"),
            metrics_protocol=env.choice("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", protocol, PROTOCOLS),
            metrics_port=env.integer("METRICS_PORT", 0, 0, 65_535),
            service_name=env.text("OTEL_SERVICE_NAME", ""),
        )


def _levels(value: str) -> dict[str, str]:
    """Returns the level by the name of a logger, from a text like `INFO,shop.rpc=WARNING`.

    Raises:
        ConfigError: The text is malformed.
    """
    levels: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in value.split(","))):
        name, equals, level = (part.strip() for part in entry.rpartition("="))
        if equals and not _LOGGER.fullmatch(name):
            raise ConfigError(f"LOG_LEVEL: {entry!r} must be a level, or a logger and its level as in shop.rpc=WARNING")
        if level not in LEVELS:
            raise ConfigError(f"LOG_LEVEL: the level in {entry!r} must be one of {', '.join(LEVELS)}")
        if name in levels:
            raise ConfigError(f"LOG_LEVEL: {entry!r} is the second level {f'of {name}' if name else 'for all loggers'}")
        levels[name] = level
    return {"": "INFO"} | levels


def _endpoint(env: Env, signal: str) -> str:
    """Returns where a signal (`TRACES`, `METRICS`) is sent; empty if nowhere."""
    if env.choice(f"OTEL_{signal}_EXPORTER", "otlp", ("otlp", "none")) == "none":
        return ""
    return env.text(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "") or env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "")
