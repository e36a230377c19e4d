"""Where keys come from: what is fetched, what is followed, and what is refused."""

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from runtime.access.key_set import KeySetError
from runtime.access.key_sources import MAX_DOCUMENT, DiscoverySource, UrlSource, http_client
from tests.support.oidc import DISCOVERY, JWKS, Provider, oidc_provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


Respond = Callable[[], web.Response]


def redirect(target: str) -> Respond:
    return lambda: web.Response(status=302, headers={"Location": target})


@pytest.mark.parametrize(
    ("respond", "problem"),
    [
        (lambda: web.Response(status=500), "status 500"),
        (lambda: web.Response(status=404), "status 404"),
        (lambda: web.Response(text="<html>"), "no JSON object"),
        (lambda: web.json_response([]), "no JSON object"),
        (lambda: web.json_response({"issuer": "https://other.example"}), "another issuer"),
        (lambda: web.Response(body=b" " * (MAX_DOCUMENT + 1)), "larger than 1,048,576 bytes"),
        (redirect(DISCOVERY), "redirects more than 3 times"),
        (redirect("file:///etc/passwd"), "not https"),
        (redirect("http://[/"), "."),
    ],
)
async def test_bad_discovery_document_is_named(provider: Provider, respond: Respond, problem: str) -> None:
    provider.responses[DISCOVERY] = respond
    async with http_client() as http:
        with pytest.raises(KeySetError, match=problem):
            await DiscoverySource(http, provider.url, 300).load()


@pytest.mark.parametrize("url", [None, "", "/keys", "ftp://id.example", 7, "http://[::1"])
async def test_jwks_uri_must_be_usable(provider: Provider, url: object) -> None:
    provider.responses[DISCOVERY] = lambda: web.json_response({"issuer": provider.url, "jwks_uri": url})
    async with http_client() as http:
        with pytest.raises(KeySetError, match="jwks_uri"):
            await DiscoverySource(http, provider.url, 300).load()


async def test_redirects_are_followed(provider: Provider) -> None:
    provider.responses["/old"] = redirect("/older")
    provider.responses["/older"] = redirect(provider.jwks_url)
    async with http_client() as http:
        assert json.loads(await UrlSource(http, f"{provider.url}/old", 300).load()) == provider.jwks()


async def test_fetch_uses_the_proxy_of_the_environment(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", provider.url)
    async with http_client() as http:
        assert json.loads(await UrlSource(http, f"http://id.invalid{JWKS}", 300).load()) == provider.jwks()


async def test_https_never_leads_to_http(provider: Provider, certificate: Path, free_port: int) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    trusting = ssl.create_default_context(cafile=str(certificate / "tls.crt"))
    issuer = f"https://localhost:{free_port}"
    app = web.Application()

    async def to_http(_: web.Request) -> web.Response:
        return redirect(provider.jwks_url)()

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer, "jwks_uri": provider.jwks_url})

    app.add_routes([web.get("/keys", to_http), web.get(DISCOVERY, discovery)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", free_port, ssl_context=server).start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http:
            with pytest.raises(KeySetError, match="not https"):
                await UrlSource(http, f"{issuer}/keys", 300).load()
            with pytest.raises(KeySetError, match="jwks_uri"):
                await DiscoverySource(http, issuer, 300).load()
        async with http_client() as http:
            with pytest.raises(KeySetError, match="its certificate is not accepted"):
                await UrlSource(http, f"{issuer}/keys", 300).load()
    finally:
        await runner.cleanup()
    assert provider.fetches[JWKS] == 0
