"""The sidecar's copy of the issuer's keys, which the edge verifies tokens with."""

import json

import httpx

from local.edge import EdgeAuth
from runtime.access.config import AccessConfig
from runtime.config import Env
from tests.support.access import credentials
from tests.support.edge import edge
from tests.support.eventually import eventually
from tests.support.oidc import AUDIENCE, Provider, oidc_provider
from tests.support.rest import Rest
from tests.support.sidecar import RunningSidecar, sidecar


def access(provider: Provider) -> AccessConfig:
    return AccessConfig.from_env(Env(provider.variables(INTERNAL_CREDENTIALS=str(credentials()))))


async def has_keys(running: RunningSidecar) -> bool:
    return (await running.http.get("/jwks")).status_code == 200


async def test_keys_of_the_issuer_are_served() -> None:
    with oidc_provider() as provider:
        async with sidecar(access=access(provider)) as running:
            await eventually(lambda: has_keys(running), 5)
            answer = await running.http.get("/jwks")
    assert answer.headers["content-type"].startswith("application/json")
    assert [key["kid"] for key in answer.json()["keys"]] == [key.kid for key in provider.keys]


async def test_unknown_keys_are_unavailable() -> None:
    with oidc_provider() as provider:
        provider.go_away()
        async with sidecar(access=access(provider)) as running:
            error = Rest.refused(await running.http.get("/jwks"), 503, 14)
    assert error["message"] == "the keys of the issuer are not known yet"


async def test_path_is_unknown_without_tokens() -> None:
    async with sidecar() as running:
        Rest.refused(await running.http.get("/jwks"), 404, 5)


async def test_edge_gets_the_keys_from_the_sidecar() -> None:
    """Until then it lets every token pass whose form is right."""
    with oidc_provider() as provider:
        auth = EdgeAuth(issuer=provider.url, audiences=(AUDIENCE,))
        async with (
            sidecar(access=access(provider)) as running,
            edge(auth=auth, sse_http_port=running.sidecar.http_port) as shop,
            httpx.AsyncClient(base_url=shop.url, timeout=5) as http,
        ):

            async def status(token: str) -> int:
                headers = {"authorization": f"Bearer {token}"}
                return (await http.get("/api/v1/products/abc", headers=headers)).status_code

            async def is_refused() -> bool:
                return await status(provider.foreign_token()) == 401

            await eventually(is_refused, 10)
            assert await status(provider.token()) == 200
            answer = await http.get("/jwks")
            assert json.loads(answer.text)["message"] == "path not found"
