"""Renders the edge's configuration. The Helm chart fills in the same files by the same three rules (`_envoy.tpl`)."""

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from local.pages import page_settings, pages, repeat

SOURCE = Path(__file__).resolve().parents[1] / "envoy"
TEMPLATES = ("envoy.yaml", "tls.yaml")
"""Files that Envoy reads and that are filled in. `envoy.yaml` is made of the files in `envoy/config/`."""

COPIES = ("shop.binpb", "requests.lua")
"""Files that Envoy reads as they are, beside the pages."""

LOCAL_HOSTS = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
"""The host names of a shop on this machine."""

HEAP = (3, 4)
"""The share of Envoy's memory that its heap may use. The rest is for its program and for freed memory that it keeps."""

CONNECTION = 20 * 1024
"""Bytes of Envoy's memory for each connection that it accepts: about as many as an idle one uses. Busier connections
reach the heap limit first."""


@dataclass(frozen=True, kw_only=True)
class EdgeAuth:
    """Which tokens the edge accepts, as in the services' AUTH_ variables."""

    issuer: str
    audiences: tuple[str, ...]
    leeway: float = 30.0
    """Seconds by which the clocks of the issuer and the shop may differ."""


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """What differs from one edge to another. Addresses are `host:port`; hosts are DNS names or addresses."""

    files: Path
    """The folder that `write` fills and Envoy reads."""
    product: str
    order: str
    sse_http_port: int
    """The sidecar's ports, on the loopback address that it shares with the edge."""
    sse_grpc_port: int
    listen: str = "0.0.0.0:8080"
    admin_port: int = 9901
    """On loopback only."""
    metrics_port: int = 0
    """The port of Envoy's statistics for Prometheus, on the address that it listens on. 0: there is none."""
    debug_port: int = 0
    """The port on loopback of the page with the live numbers (local/debug). 0: there is none."""
    max_streams: int = 20_000
    """Maximum number of concurrent live streams of each kind. A loopback address has about 28,000 ports."""
    memory: int = 512 * 1024**2
    """Envoy's memory limit in bytes. The limits of its heap and its connections are derived from it."""
    max_connection_age: int = 30
    """Seconds after which a client's connection takes no more requests, so that a client uses all pods of an edge.
    Streams go on. 0: there is no limit."""
    trusted_hops: int = 0
    """Number of proxies in front whose X-Forwarded-For is trusted."""
    caller_header: str = "x-shop-caller"
    """A header that Envoy removes from requests. It is not the services' CALLER_HEADER, which Envoy passes on."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, as in `https://shop.example`, `https://*.shop.example` or `*`. Empty: no CORS."""
    cors_credentials: bool = False
    """Whether those pages may send cookies and client certificates. Not allowed with `*`."""
    hosts: tuple[str, ...] = ("*",)
    """Host names and addresses that the edge serves, without ports. On a loopback address, list your own: otherwise a
    page of another site can reach the edge by a name that it points there (DNS rebinding)."""
    otlp_endpoint: str = ""
    """Where spans are sent, as in `http://collector:4317` (OTLP over gRPC). Empty: tracing is off."""
    sample_ratio: float = 1.0
    """The share of the requests without a `traceparent` whose spans are sent, from 0 to 1."""
    issuer: str = ""
    """The demo's issuer, which gives tokens of customers to anyone at /demo/token. Empty: there is none."""
    auth: EdgeAuth | None = None
    """Which tokens are accepted. None: the edge looks at no tokens (AUTH_MODE=none)."""
    rate_limit: int = 200
    """Requests in a second that one caller may make in the long run. 0: there is no limit."""
    rate_burst: int = 2000
    """Requests that a caller may make at once, after having made none for a while."""
    tls: Path | None = None
    """A folder with tls.crt and tls.key. None: plain HTTP."""


def _address(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), port


def otlp_address(endpoint: str) -> tuple[str, str]:
    """Returns host and port of an OTLP endpoint, which Envoy calls by plain gRPC. Raises ValueError if it is none."""
    url = urlsplit(endpoint)
    if url.scheme != "http" or not url.hostname or url.path.strip("/"):
        raise ValueError(f"the OTLP endpoint must be http://host:port, not {endpoint!r}")
    return url.hostname, str(url.port or 4317)


_ORIGIN = re.compile(r"https?://((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?")


def origin_match(origin: str) -> Mapping[str, object]:
    """Returns Envoy's string matcher for an origin. Raises ValueError if no browser sends such an origin."""
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
    """Returns the value of each name in Envoy's files. A test compares the names with those of the Helm chart."""
    if settings.cors_credentials and "*" in settings.cors_origins:
        raise ValueError("cors_credentials with the origin * would let any site act as its visitor: name the origins")
    if settings.rate_limit < 0 or settings.rate_burst < 1:
        raise ValueError("rate_limit must be 0 or more, and rate_burst 1 or more")
    listen_host, listen_port = _address(settings.listen)
    product_host, product_port = _address(settings.product)
    order_host, order_port = _address(settings.order)
    issuer_host, issuer_port = _address(settings.issuer) if settings.issuer else ("", "")
    otlp_host, otlp_port = otlp_address(settings.otlp_endpoint) if settings.otlp_endpoint else ("", "")
    return {
        "LISTEN_HOST": listen_host,
        "LISTEN_BOTH": json.dumps(listen_host == "::"),
        "LISTEN_PORT": listen_port,
        "ADMIN_PORT": str(settings.admin_port),
        "METRICS_PORT": str(settings.metrics_port),
        "DEBUG_PORT": str(settings.debug_port),
        "PRODUCT_HOST": product_host,
        "PRODUCT_PORT": product_port,
        "ORDER_HOST": order_host,
        "ORDER_PORT": order_port,
        "ISSUER_HOST": issuer_host,
        "ISSUER_PORT": issuer_port,
        "SSE_HTTP_PORT": str(settings.sse_http_port),
        "SSE_GRPC_PORT": str(settings.sse_grpc_port),
        "FILES": str(settings.files),
        "MAX_STREAMS": str(settings.max_streams),
        "MAX_HEAP": str(settings.memory * HEAP[0] // HEAP[1]),
        "MAX_CONNECTIONS": str(settings.memory // CONNECTION),
        "MAX_CONNECTION_AGE": str(settings.max_connection_age),
        "TRUSTED_HOPS": str(settings.trusted_hops),
        "CALLER_HEADER": settings.caller_header,
        "CORS_ORIGINS": json.dumps([origin_match(origin) for origin in settings.cors_origins]),
        "CORS_CREDENTIALS": json.dumps(settings.cors_credentials),
        "HOSTS": json.dumps(settings.hosts),
        "AUTH_ISSUER": json.dumps(settings.auth.issuer if settings.auth else ""),
        "AUTH_AUDIENCES": json.dumps(settings.auth.audiences if settings.auth else ()),
        "AUTH_LEEWAY": str(math.ceil(settings.auth.leeway if settings.auth else 0)),
        "RATE_LIMIT": str(settings.rate_limit),
        "RATE_BURST": str(settings.rate_burst),
        "PAGE_SETTINGS": page_settings(sign_in=settings.auth is not None, demo_tokens=bool(settings.issuer)),
        "OTLP_HOST": otlp_host,
        "OTLP_PORT": otlp_port,
        "TRACES_PER_MILLION": str(round(1_000_000 * settings.sample_ratio)),
        "TLS_DIR": str(settings.tls or ""),
    }


def template(name: str) -> str:
    """Returns one of TEMPLATES before it is filled in."""
    if name == "envoy.yaml":
        return "".join(part.read_text() for part in sorted((SOURCE / "config").glob("*.yaml")))
    return (SOURCE / name).read_text()


def render(settings: EdgeSettings, name: str = "envoy.yaml") -> str:
    """Returns one of TEMPLATES, filled in."""
    text = template(name)
    blocks: dict[str, object] = {"CORS": settings.cors_origins, "TLS": settings.tls, "TRACING": settings.otlp_endpoint}
    blocks |= {"AUTH": settings.auth, "RATE_LIMIT": settings.rate_limit}
    blocks["MAX_CONNECTION_AGE"] = settings.max_connection_age
    blocks |= {"DEMO_ISSUER": settings.issuer, "METRICS": settings.metrics_port, "DEBUG": settings.debug_port}
    blocks["HOSTS"] = settings.hosts != EdgeSettings.hosts
    for block, wanted in blocks.items():
        if not wanted:
            text = re.sub(rf"(?s) *# if {block}\n.*?# end {block}\n", "", text)
    return Template(repeat(text)).substitute(values(settings))


def write(settings: EdgeSettings) -> Path:
    """Writes everything that Envoy reads into the settings' folder. Returns the path of envoy.yaml."""
    settings.files.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        (settings.files / name).write_text(render(settings, name))
    for name in COPIES:
        shutil.copyfile(SOURCE / name, settings.files / name)
    for page in pages():
        shutil.copyfile(page.file, settings.files / page.file.name)
    return settings.files / TEMPLATES[0]
