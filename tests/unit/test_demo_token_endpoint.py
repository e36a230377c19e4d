"""The tokens that the demo's issuer gives to whoever asks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web

from demo.issuer import application
from demo.signing_key import SigningKey
from demo.token_endpoint import MAX_BODY, PATH, TTL
from runtime import http
from runtime.access.config import TokenConfig
from runtime.config import ConfigError
from tests.support.rest import Rest

CONFIG = TokenConfig(issuer="https://issuer.example", audiences=("shop", "other"))
JSON = {"content-type": "application/json"}


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.read_or_make(tmp_path / "key.pem")


@pytest.fixture
async def client(key: SigningKey) -> AsyncIterator[httpx.AsyncClient]:
    runner = web.AppRunner(application(key, CONFIG))
    try:
        await http.listen(runner, "127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{runner.addresses[0][1]}") as opened:
            yield opened
    finally:
        await runner.cleanup()


def claims_of(token: str, key: SigningKey) -> dict[str, Any]:
    [public] = jwt.PyJWKSet.from_json(key.jwks()).keys
    claims: dict[str, Any] = jwt.decode(token, public, ["ES256"], issuer=CONFIG.issuer, audience="shop")
    return claims


@pytest.mark.parametrize("subject", ["ada", "x" * 64, "jürgen@example.com", "auth0|1", "李", "\U0001d54f" * 64])
async def test_anyone_gets_a_token_of_a_customer(client: httpx.AsyncClient, key: SigningKey, subject: str) -> None:
    answer = await client.post(PATH, json={"sub": subject})
    assert answer.status_code == 200
    assert answer.json().keys() == {"token", "expireTime"}
    claims = claims_of(answer.json()["token"], key)
    assert claims.keys() == {"iss", "aud", "sub", "iat", "exp", "jti"}, "and none that makes staff of them"
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (subject, TTL)
    expires = datetime.fromisoformat(answer.json()["expireTime"]).timestamp()
    assert 0 <= claims["exp"] - expires <= 1
    assert abs(expires - time.time() - TTL) < 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 65}, "sub"),
        ({"sub": "a b"}, "sub"),
        ({"sub": " "}, "sub"),
        ({"sub": "a\n"}, "sub"),
        ({"sub": "a\u00a0b"}, "sub"),
        ({"sub": "a\u200bb"}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"sub": 1}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": ["ada"]}, "sub"),
        ({"sub": "ada", "role": "staff"}, "role"),
        ({"sub": "ada", "scope": "shop:staff"}, "scope"),
        ({"sub": "ada", "ttl": "7d"}, "ttl"),
        ([], "request"),
        ("ada", "request"),
        (None, "request"),
    ],
)
async def test_other_requests_are_refused(client: httpx.AsyncClient, body: Any, field: str) -> None:
    Rest.refused(await client.post(PATH, content=json.dumps(body), headers=JSON), 400, 3, field=field)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 4000, b'{"sub": "\xff"}'])
async def test_malformed_json_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    Rest.refused(await client.post(PATH, content=content, headers=JSON), 400, 3, field="request")


async def test_large_body_is_refused(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY):
            yield b" " * 16

    async def slowly(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]
            await asyncio.sleep(0.01)

    whole = json.dumps({"sub": "ada"}).ljust(MAX_BODY).encode()
    for content in (whole, slowly(whole)):
        assert (await client.post(PATH, content=content, headers=JSON)).status_code == 200
    for content in (whole + b" ", parts()):
        Rest.refused(await client.post(PATH, content=content, headers=JSON), 413, 3)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_pages_of_other_sites_cannot_ask_without_a_preflight(client: httpx.AsyncClient, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    Rest.refused(await client.post(PATH, content=b'{"sub": "ada"}', headers=headers), 415, 3)


async def test_answers_have_no_cors_headers(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"sub": "ada"}, headers={"origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_issuer_whose_tokens_the_shop_refuses_does_not_start(key: SigningKey) -> None:
    with pytest.raises(ConfigError, match="AUTH_ALGORITHMS must include ES256"):
        application(key, replace(CONFIG, algorithms=("RS256",)))
