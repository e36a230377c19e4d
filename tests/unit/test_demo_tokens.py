"""The tokens that the demo makes for trying: what they say, and that only their key makes them."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demo.issuer import application
from demo.signing_key import SigningKey
from demo.tokens import CUSTOMER, STAFF, STAFF_TTL, DemoToken, TokenMaker, parse_ttl, staff_claims
from runtime import http
from runtime.access.config import TokenConfig
from runtime.config import ConfigError

CONFIG = TokenConfig(issuer="https://issuer.example", audiences=("shop", "other"))
DEMO = Path(sys.executable).parent / "demo"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "key.pem"
    SigningKey.read_or_make(path)
    return path


@pytest.fixture
def key(key_file: Path) -> SigningKey:
    return SigningKey.read(key_file)


def verified(token: str, key: SigningKey, audience: str = "shop") -> dict[str, Any]:
    """Returns the claims of a token, as a verifier finds its key in the set."""
    keys = jwt.PyJWKSet.from_json(key.jwks())
    found = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, found, ["ES256"], issuer=CONFIG.issuer, audience=audience)
    return claims


def test_token_is_verified_by_the_public_set(key: SigningKey) -> None:
    claims = verified(TokenMaker(key, CONFIG).make("ada", CUSTOMER, 90), key)
    assert claims["sub"] == "ada"
    assert claims["exp"] - claims["iat"] == 90
    assert "scope" not in claims
    assert claims["jti"] != verified(TokenMaker(key, CONFIG).make("ada", CUSTOMER, 90), key)["jti"]


def test_token_of_staff_has_the_configured_claim(key: SigningKey) -> None:
    assert verified(TokenMaker(key, CONFIG).make("grace", STAFF, 90), key)["scope"] == "shop:staff"
    config = replace(CONFIG, staff_claim="realm_access.roles", staff_value="shop-staff")
    claims = verified(TokenMaker(key, config).make("grace", STAFF, 90), key)
    assert claims["realm_access"] == {"roles": ["shop-staff"]}


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("scope", {"scope": "staff"}),
        ("roles", {"roles": ["staff"]}),
        ("resource_access.shop.roles", {"resource_access": {"shop": {"roles": ["staff"]}}}),
        ("https://shop.example/roles", {"https://shop.example/roles": ["staff"]}),
    ],
)
def test_staff_claim_is_a_name_or_a_path(claim: str, claims: Mapping[str, object]) -> None:
    assert staff_claims(claim, "staff") == claims


@pytest.mark.parametrize("claim", ["sub", "aud", "exp.roles"])
def test_staff_claim_of_another_purpose_is_refused(claim: str) -> None:
    with pytest.raises(ConfigError, match="AUTH_STAFF_CLAIM"):
        staff_claims(claim, "staff")


def test_algorithm_that_the_shop_refuses_is_reported(key: SigningKey) -> None:
    with pytest.raises(ConfigError, match="AUTH_ALGORITHMS must include ES256"):
        TokenMaker(key, replace(CONFIG, algorithms=("RS256",)))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)])
def test_ttl_has_a_unit(text: str, seconds: int) -> None:
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "0s", "-1h", "1.5h", "1w", "1h30m", " 1h", "1h\n", "366d", "٣h", "9" * 99 + "d"]
)
def test_invalid_ttl_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the lifetime of a token must be"):
        parse_ttl(text)


@pytest.mark.parametrize("subject", ["", "a\nb", "x" * 256])
def test_invalid_subject_is_refused(key: SigningKey, subject: str) -> None:
    with pytest.raises(ConfigError, match="subject"):
        TokenMaker(key, CONFIG).make(subject, CUSTOMER, 90)


def test_demo_renews_its_token_before_it_expires(key: SigningKey) -> None:
    now = 1000.0
    demo = DemoToken(TokenMaker(key, CONFIG), lambda: now)
    first = demo.current()
    now += STAFF_TTL / 2 - 1
    assert demo.current() == first
    now += 1
    assert demo.current() != first
    assert verified(demo.current(), key)["scope"] == "shop:staff"


def test_new_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    key = SigningKey.read_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]
    assert SigningKey.read_or_make(path).id == key.id, "a second start must keep the key"


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_key_of_either_form_is_read(tmp_path: Path, form: serialization.PrivateFormat) -> None:
    """Helm's genPrivateKey writes `EC PRIVATE KEY`."""
    path = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    key = SigningKey.read(path)
    verified(TokenMaker(key, CONFIG).make("ada", CUSTOMER, 90), key)


def test_key_set_has_nothing_private(key: SigningKey) -> None:
    (public,) = json.loads(key.jwks())["keys"]
    assert set(public) == {"crv", "kty", "x", "y", "kid", "alg", "use"}


def pem(private: Any, encryption: Any = None) -> bytes:
    encoded: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    )
    return encoded


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret")),
    ],
    ids=["empty", "garbage", "RSA", "P-384", "encrypted"],
)
def test_unusable_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ISSUER_KEY: .* must have a private key on the curve P-256"):
        SigningKey.read(path)


async def test_issuer_publishes_discovery_and_keys(key: SigningKey) -> None:
    """Below the path of its URL, if that has one."""
    runner = web.AppRunner(application(key, replace(CONFIG, issuer="http://issuer.example/demo")))
    try:
        await http.listen(runner, "127.0.0.1", 0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            document = (await client.get("/demo/.well-known/openid-configuration")).json()
            assert document["issuer"] == "http://issuer.example/demo"
            assert document["jwks_uri"] == "http://issuer.example/demo/jwks"
            assert (await client.get("/demo/jwks")).text == key.jwks()
            assert (await client.get("/demo/token")).status_code == 405
    finally:
        await runner.cleanup()


def demo(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Runs the command. Returns its status and what it printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
    done = subprocess.run(
        [DEMO, *arguments], env={**own, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_token_command_prints_the_token_alone(key_file: Path, key: SigningKey) -> None:
    variables = {"ISSUER_KEY": str(key_file), "AUTH_ISSUER": CONFIG.issuer, "AUTH_AUDIENCE": "shop"}
    status, output, error = demo("token", "--role", "staff", "--sub", "grace", "--ttl", "15m", **variables)
    assert (status, error) == (0, "")
    claims = verified(output.removesuffix("\n"), key)
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == ("grace", "shop:staff", 900)


@pytest.mark.parametrize(
    ("arguments", "changed", "line"),
    [
        (["--ttl", "1"], {}, "demo: the lifetime of a token must be like 90s, 15m, 1h or 7d, not '1'\n"),
        (["--role", "admin"], {}, "demo: the role must be customer or staff, not 'admin'\n"),
        ([], {"ISSUER_KEY": ""}, "demo: ISSUER_KEY is missing: a file with the private key that signs tokens\n"),
        ([], {"ISSUER_KEY": "/nowhere"}, "demo: ISSUER_KEY: cannot read /nowhere: No such file or directory\n"),
        ([], {"AUTH_AUDIENCE": ""}, "demo: AUTH_AUDIENCE is missing: the `aud` of tokens\n"),
    ],
)
def test_wrong_argument_is_one_line(
    key_file: Path, arguments: list[str], changed: Mapping[str, str], line: str
) -> None:
    variables = {"ISSUER_KEY": str(key_file), "AUTH_ISSUER": CONFIG.issuer, "AUTH_AUDIENCE": "shop", **changed}
    assert demo("token", *arguments, **variables) == (2, "", line)


def test_jwks_command_makes_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    status, output, _ = demo("jwks", ISSUER_KEY=str(path))
    assert (status, output) == (0, SigningKey.read(path).jwks() + "\n")
