"""The settings of `make up`, checked before anything starts."""

import errno
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from local.edge import otlp_address
from local.tokens import Tokens
from runtime.config import ConfigError, Env

LOOPBACK = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_STATE = REPOSITORY / ".state"
PORTS = range(20_000, 32_768)
"""Ports that free_ports chooses from. They are below those that Linux gives to outgoing connections, one of which could
take a port before it is listened on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One shop: its public ports, and the folder that keeps its data."""

    port: int
    product_port: int
    order_port: int
    state: Path
    otlp_endpoint: str
    sample_ratio: float
    """The share of the requests without a `traceparent` whose traces are sent."""
    environment: Mapping[str, str]
    """The variables that the processes inherit."""
    tokens: Tokens
    telemetry: bool = False
    """Serve metrics, and a page with the live numbers."""
    demo: bool = True
    """Load the demo catalogue and run the fulfilment simulator."""

    @classmethod
    def from_env(cls, variables: Mapping[str, str]) -> Self:
        """Reads and checks the variables.

        Raises:
            ConfigError: A variable has a value that cannot be used.
        """
        env = Env(variables)
        ports = {
            "PORT": env.port("PORT", 8080),
            "PRODUCT_PORT": env.port("PRODUCT_PORT", 50052),
            "ORDER_PORT": env.port("ORDER_PORT", 50053),
        }
        taken: dict[int, str] = {}
        for name, port in ports.items():
            if other := taken.setdefault(port, name) != name and taken[port]:
                raise ConfigError(f"{other} and {name} are both {port}")
        endpoint = env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        sample_ratio = env.share("TRACES_SAMPLE_RATIO", 1)
        state = Path(env.text("STATE_DIR", str(DEFAULT_STATE))).absolute()
        if set(str(state)) & set('"\\\n'):
            raise ConfigError("STATE_DIR must not contain quotes, backslashes or line breaks")
        return cls(
            port=ports["PORT"],
            product_port=ports["PRODUCT_PORT"],
            order_port=ports["ORDER_PORT"],
            state=state,
            otlp_endpoint=_grpc_endpoint(endpoint, env),
            sample_ratio=sample_ratio,
            environment=_sampler(sample_ratio) | dict(variables),
            tokens=Tokens.from_env(variables, state),
            telemetry=env.choice("TELEMETRY", "0", ("0", "1")) == "1",
        )

    @property
    def url(self) -> str:
        """The URL of the edge."""
        return f"http://localhost:{self.port}"

    def check_ports(self) -> None:
        """Raises ConfigError if a port cannot be listened on now."""
        for name, port in (("PORT", self.port), ("PRODUCT_PORT", self.product_port), ("ORDER_PORT", self.order_port)):
            if problem := _check_port(port):
                raise ConfigError(f"port {port} {problem}; set {name} to another port")


def _sampler(ratio: float) -> dict[str, str]:
    """Returns the variables by which the services sample calls that come without a context, as Envoy does."""
    return {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": f"{ratio:g}"}


def _grpc_endpoint(endpoint: str, env: Env) -> str:
    """Returns where Envoy sends its spans, or an empty string.

    Envoy speaks no other protocol than OTLP over gRPC.
    """
    if not endpoint or env.text("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") != "grpc":
        return ""
    try:
        otlp_address(endpoint)
    except ValueError as error:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_ENDPOINT: {error}") from None
    return endpoint


def _check_port(port: int) -> str:
    """Returns why a port cannot be listened on, or an empty string if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            return "is reserved for root"
        except OSError:
            return "is in use"
    with socket.socket() as probe:  # another process may listen on all addresses
        probe.settimeout(0.2)
        return "" if probe.connect_ex((LOOPBACK, port)) else "is in use"


def free_ports(number: int) -> list[int]:
    """Returns different ports on which no process listens now."""
    probes: list[socket.socket] = []
    try:
        while len(probes) < number:
            probes.append(socket.socket())
            try:
                probes[-1].bind((LOOPBACK, random.choice(PORTS)))  # noqa: S311 - no secret
            except OSError as error:
                probes.pop().close()
                if error.errno != errno.EADDRINUSE:
                    raise
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def prepare(state: Path) -> None:
    """Makes the state folder. Raises ConfigError if that is not possible."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"STATE_DIR: cannot write to {state}: {error.strerror}") from None
    if not os.access(state, os.W_OK):
        raise ConfigError(f"STATE_DIR: cannot write to {state}")
