"""Renders the edge's configuration. The Helm chart fills in the same files, by the same two rules."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

SOURCE = Path(__file__).resolve().parents[1] / "envoy"
TEMPLATES = ("envoy.yaml", "tls.yaml")
COPIES = ("shop.binpb", "index.html", "requests.lua")

HEAP = (3, 4)
"""The share of Envoy's memory that its heap may take. The rest is its program, and what it freed and still keeps."""

CONNECTION = 20 * 1024
"""Bytes of Envoy's memory for which it accepts one connection: about what an idle one takes. The heap closes idle ones
before there are so many of any other kind."""


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """What differs from one edge to another. Addresses are `host:port`; hosts are DNS names or addresses."""

    files: Path
    """The folder in which Envoy finds the descriptor set and the rest: see `write`."""
    product: str
    order: str
    sse_http_port: int
    """The sidecar's ports, on the loopback address that it shares with the edge."""
    sse_grpc_port: int
    listen: str = "0.0.0.0:8080"
    admin_port: int = 9901
    """On loopback only."""
    max_streams: int = 20_000
    """Live streams that pass at once, of each kind; an HTTP/1.1 loopback address has no more than 28,000 ports."""
    memory: int = 512 * 1024**2
    """Bytes that Envoy may take, as a container's limit: its heap and its connections are bounded by them."""
    trusted_hops: int = 0
    """Proxies in front whose X-Forwarded-For is believed."""
    caller_header: str = "x-shop-caller"
    """The services' CALLER_HEADER: never accepted from outside."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, as in `https://shop.example` or `https://*.shop.example`, or `*`; none: no CORS at
    all."""
    cors_credentials: bool = False
    """Whether those pages may send cookies and client certificates along. Not with `*`."""
    hosts: tuple[str, ...] = ("*",)
    """Names and addresses that are answered, without ports. On a loopback address, name those that are yours: a page of
    another site can get in by a name of its own that it points there (DNS rebinding)."""
    otlp_endpoint: str = ""
    """Where spans go, as in `http://collector:4317` (OTLP over gRPC); empty: nowhere."""
    tls: Path | None = None
    """A folder with tls.crt and tls.key; none: plain HTTP."""


def _address(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), port


def otlp_address(endpoint: str) -> tuple[str, str]:
    """Host and port of an OTLP endpoint, or ValueError: Envoy speaks plain gRPC to it."""
    url = urlsplit(endpoint)
    if url.scheme != "http" or not url.hostname or url.path.strip("/"):
        raise ValueError(f"the OTLP endpoint must be http://host:port, not {endpoint!r}")
    return url.hostname, str(url.port or 4317)


_ORIGIN = re.compile(r"https?://((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?")


def origin_match(origin: str) -> Mapping[str, object]:
    """How Envoy compares a browser's origin with one of the settings, or ValueError for one that no browser sends."""
    if origin == "*":
        return {"exact": origin}
    if not _ORIGIN.fullmatch(origin) or re.fullmatch(r"https://.*:443|http://.*:80", origin):
        raise ValueError(
            f"{origin!r} is no origin as browsers send it: scheme and host in lower case (punycode where it is not "
            "ASCII), a port only where it is not the scheme's own, nothing after it; `*.` may stand before the host"
        )
    if "://*." not in origin:
        return {"exact": origin}
    scheme, _, domain = origin.partition("://*.")
    return {"safe_regex": {"regex": f"{scheme}://[a-z0-9_.-]+[.]{domain.replace('.', '[.]')}"}}


def values(settings: EdgeSettings) -> Mapping[str, str]:
    """The value of each name in dollar-braces."""
    if settings.cors_credentials and "*" in settings.cors_origins:
        raise ValueError("credentials for every origin would let any page act for its visitor: name the origins")
    listen_host, listen_port = _address(settings.listen)
    product_host, product_port = _address(settings.product)
    order_host, order_port = _address(settings.order)
    otlp_host, otlp_port = otlp_address(settings.otlp_endpoint) if settings.otlp_endpoint else ("", "")
    return {
        "LISTEN_HOST": listen_host,
        "LISTEN_BOTH": json.dumps(listen_host == "::"),
        "LISTEN_PORT": listen_port,
        "ADMIN_PORT": str(settings.admin_port),
        "PRODUCT_HOST": product_host,
        "PRODUCT_PORT": product_port,
        "ORDER_HOST": order_host,
        "ORDER_PORT": order_port,
        "SSE_HTTP_PORT": str(settings.sse_http_port),
        "SSE_GRPC_PORT": str(settings.sse_grpc_port),
        "FILES": str(settings.files),
        "MAX_STREAMS": str(settings.max_streams),
        "MAX_HEAP": str(settings.memory * HEAP[0] // HEAP[1]),
        "MAX_CONNECTIONS": str(settings.memory // CONNECTION),
        "TRUSTED_HOPS": str(settings.trusted_hops),
        "CALLER_HEADER": settings.caller_header,
        "CORS_ORIGINS": json.dumps([origin_match(origin) for origin in settings.cors_origins]),
        "CORS_CREDENTIALS": json.dumps(settings.cors_credentials),
        "HOSTS": json.dumps(settings.hosts),
        "OTLP_HOST": otlp_host,
        "OTLP_PORT": otlp_port,
        "TLS_DIR": str(settings.tls or ""),
    }


def render(settings: EdgeSettings, name: str = "envoy.yaml") -> str:
    """The text of one of TEMPLATES."""
    text = (SOURCE / name).read_text()
    blocks: dict[str, object] = {"CORS": settings.cors_origins, "TLS": settings.tls, "TRACING": settings.otlp_endpoint}
    blocks["HOSTS"] = settings.hosts != EdgeSettings.hosts
    for block, wanted in blocks.items():
        if not wanted:
            text = re.sub(rf"(?s) *# if {block}\n.*?# end {block}\n", "", text)
    return Template(text).substitute(values(settings))


def write(settings: EdgeSettings) -> Path:
    """Puts everything that Envoy reads into the settings' folder; answers the path of its bootstrap file."""
    settings.files.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        (settings.files / name).write_text(render(settings, name))
    for name in COPIES:
        shutil.copyfile(SOURCE / name, settings.files / name)
    return settings.files / TEMPLATES[0]
