"""Tokens for trying at the edge: `POST /demo/token`, where the demo's issuer is on."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import jwt
import pytest
import pytest_asyncio
from aiohttp import web

from demo.issuer import application
from demo.signing_key import SigningKey
from local.edge import EdgeAuth
from runtime import http as server
from runtime.access.config import TokenConfig
from tests.support.edge import Edge, edge, http_fixture
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://shop.example"
ISSUER = "https://issuer.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    key = SigningKey.read_or_make(tmp_path_factory.mktemp("issuer") / "key.pem")
    runner = web.AppRunner(application(key, TokenConfig(issuer=ISSUER, audiences=("shop",))))
    try:
        await server.listen(runner, "127.0.0.1", 0)
        auth = EdgeAuth(issuer=ISSUER, audiences=("shop",))
        issuer = f"127.0.0.1:{runner.addresses[0][1]}"
        async with edge(auth=auth, issuer=issuer, jwks=key.jwks(), cors_origins=(ORIGIN,)) as running:
            yield running
    finally:
        await runner.cleanup()


http = http_fixture()


async def test_token_from_the_edge_is_accepted_there(shop: Edge, http: httpx.AsyncClient) -> None:
    answer = await http.post("/demo/token", json={"sub": "ada"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    token = answer.json()["token"]
    assert jwt.decode(token, options={"verify_signature": False})["sub"] == "ada"
    assert (await http.get("/api/v1/orders", headers={"authorization": f"Bearer {token}"})).status_code == 200
    assert shop.calls.metadata["authorization"] == f"Bearer {token}"
    forged = token[:-20] + "A" * 20
    Rest.refused(await http.get("/api/v1/orders", headers={"authorization": f"Bearer {forged}"}), 401, 16)


async def test_token_is_not_logged(shop: Edge, http: httpx.AsyncClient) -> None:
    before = len(await shop.logged("/demo/token", 0))
    token = (await http.post("/demo/token", json={"sub": "ada"})).json()["token"]
    await shop.logged("/demo/token", before + 1)
    assert token not in shop.log.read_text()


async def test_refusals_of_the_issuer_pass(http: httpx.AsyncClient) -> None:
    Rest.refused(await http.post("/demo/token", json={"sub": "ada", "role": "staff"}), 400, 3, field="role")
    Rest.refused(await http.post("/demo/token", content=b"{}", headers={"content-type": "text/plain"}), 415, 3)
    large = json.dumps({"sub": "x" * 200_000})
    Rest.refused(await http.post("/demo/token", content=large, headers={"content-type": "application/json"}), 413, 3)


async def test_other_methods_get_405(http: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = await http.request(method, "/demo/token")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    options = await http.options("/demo/token")
    assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")


async def test_pages_of_other_origins_cannot_ask(http: httpx.AsyncClient) -> None:
    """Not even those that may call the API: a preflight gets no permission."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin in (ORIGIN, "https://elsewhere.example"):
        answer = await http.options("/demo/token", headers={"origin": origin, **asked})
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_other_paths_of_the_issuer_are_not_reachable(http: httpx.AsyncClient) -> None:
    for path in ("/jwks", "/.well-known/openid-configuration", "/demo", "/demo/token/", "/demo/tokens", "/demo/jwks"):
        for method in ("GET", "POST"):
            Rest.refused(await http.request(method, path), 404, 5)


async def test_settings_tell_pages_of_the_demo(http: httpx.AsyncClient) -> None:
    assert (await http.get("/pages/settings.json")).json() == {"signIn": True, "demoTokens": True}


async def test_without_the_issuer_there_is_no_such_path(tmp_path: Path) -> None:
    key = SigningKey.read_or_make(tmp_path / "key.pem")
    auth = EdgeAuth(issuer=ISSUER, audiences=("shop",))
    async with edge(auth=auth, jwks=key.jwks()) as running, httpx.AsyncClient(base_url=running.url) as http:
        for method in ("GET", "POST", "OPTIONS"):
            Rest.refused(await http.request(method, "/demo/token"), 404, 5)
        assert (await http.get("/pages/settings.json")).json() == {"signIn": True, "demoTokens": False}


async def test_issuer_that_is_down_is_unavailable() -> None:
    auth = EdgeAuth(issuer=ISSUER, audiences=("shop",))
    async with edge(auth=auth, issuer="127.0.0.1:9") as running, httpx.AsyncClient(base_url=running.url) as http:
        error = Rest.refused(await http.post("/demo/token", json={"sub": "ada"}), 503, 14)
        assert error["message"] == "the service is unavailable"
