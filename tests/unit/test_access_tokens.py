"""Which tokens are accepted, whom they stand for, and for how long they are remembered."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest import mock

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.access import keys as keys_module
from runtime.access import tokens as module
from runtime.access.caller import Caller
from runtime.access.config import ALGORITHMS, TokenConfig
from runtime.access.keys import MISSING_TIME, Keys
from runtime.access.tokens import MAX_TOKEN_LENGTH, Tokens
from runtime.errors import ApiError
from runtime.supervise import Job, supervised
from tests.support.oidc import Issuer, SigningKey, encode, new_key

ISSUER = Issuer("https://id.example", keys=[new_key("ES256")])
RSA = new_key("RS256")


@dataclass
class IssuerSource:
    """The keys of an issuer, without a network."""

    issuer: Issuer
    name: str = "the test"
    interval: float = 300
    min_interval: float = 0

    async def load(self) -> bytes:
        return json.dumps(self.issuer.jwks()).encode()


def verifier(issuer: Issuer = ISSUER, **config: Any) -> Tokens:
    """A verifier that knows the keys as they are now."""
    algorithms = config.pop("algorithms", ("RS256", "ES256", "EdDSA"))
    settings = TokenConfig(issuer=issuer.url, audiences=("shop", "till"), algorithms=algorithms, **config)
    keys = Keys(IssuerSource(issuer), algorithms)
    keys.update(json.dumps(issuer.jwks()).encode())
    return Tokens(settings, keys)


@pytest.fixture
async def tokens() -> AsyncIterator[Tokens]:
    """A verifier that looks for new keys."""
    keys = Keys(IssuerSource(ISSUER), ALGORITHMS)
    async with supervised(Job("the keys", keys.run)):
        yield Tokens(TokenConfig(issuer=ISSUER.url, audiences=("shop", "till")), keys)


async def refusal(tokens: Tokens, token: str) -> tuple[str, str]:
    """Returns the reason and the text with which a token is refused."""
    with pytest.raises(ApiError) as caught:
        await tokens.verify(token)
    assert caught.value.code.name == "UNAUTHENTICATED"
    assert caught.value.challenge == 'Bearer realm="shop", error="invalid_token"'
    return caught.value.reason, caught.value.text


async def test_subject_is_the_caller_and_the_scope_of_keys() -> None:
    assert await verifier().verify(ISSUER.token("ada")) == Caller(subject="ada", scope="ada")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_token_of_each_algorithm_is_accepted(algorithm: str) -> None:
    key = new_key(algorithm) if algorithm.startswith("E") else SigningKey(algorithm, RSA.private, "rsa")
    issuer = Issuer("https://id.example", keys=[key])
    assert (await verifier(issuer, algorithms=(algorithm,)).verify(issuer.token("ada"))).subject == "ada"


@pytest.mark.parametrize(
    "claims_at",
    [
        lambda now: {"aud": ["other", "till"]},
        lambda now: {"nbf": int(now) + 20},
        lambda now: {"iat": int(now) + 20},
        lambda now: {"ttl": -20},
        lambda now: {"exp": 10**400},
        lambda now: {"exp": now + 60.5},
        lambda now: {"sub": "x" * 255},
        lambda now: {"sub": "auth0|ä"},
        lambda now: {"without": ("iat", "scope")},
    ],
)
async def test_unusual_but_valid_token_is_accepted(claims_at: Callable[[float], dict[str, Any]]) -> None:
    """Times may be off by the leeway."""
    tokens = verifier()
    for _ in range(2):
        await tokens.verify(ISSUER.token(**claims_at(time.time())))


BAD: dict[str, tuple[str, str]] = {
    "malformed": ("abc", "malformed"),
    "two parts": ("a.b", "malformed"),
    "five parts": ("a.b.c.d.e", "malformed"),
    "not ASCII": ("ä.ö.ü", "malformed"),
    "lone surrogate": ("\ud800", "malformed"),
    "too long": ("a" * (MAX_TOKEN_LENGTH + 1), "longer than 16,384 bytes"),
    "claims no object": (encode({"alg": "ES256"}, [], ISSUER.keys[0].sign), "malformed"),
    "header no object": (encode({}, {}, ISSUER.keys[0].sign).replace("e30", "W10", 1), "malformed"),
    "kid no text": (ISSUER.token(header={"kid": 7}), "malformed"),
    "no alg": (ISSUER.token(header={"alg": None}), "algorithm (alg)"),
    "alg a list": (ISSUER.token(header={"alg": ["ES256"]}), "algorithm (alg)"),
    "alg none": (ISSUER.unsigned_token(), "algorithm (alg)"),
    "HS256 with the public key": (ISSUER.confused_token(), "algorithm (alg)"),
    "alg not allowed": (ISSUER.token(key=new_key("ES384")), "algorithm (alg)"),
    "alg of another type of key": (ISSUER.token(header={"alg": "RS256"}), "signature"),
    "wrong key": (ISSUER.foreign_token(), "signature"),
    "other signature": (ISSUER.token()[:-8] + "AAAAAAAA", "signature"),
    "unknown crit": (ISSUER.token(header={"crit": ["exp"], "exp": 1}), "malformed"),
    "empty crit": (ISSUER.token(header={"crit": []}), "malformed"),
    "detached": (ISSUER.token(header={"crit": ["b64"], "b64": False}), "malformed"),
    "wrong issuer": (ISSUER.token(iss="https://id.example/"), "issuer (iss)"),
    "issuer no text": (ISSUER.token(iss=["https://id.example"]), "issuer (iss)"),
    "no issuer": (ISSUER.token(without=("iss",)), "lacks the claim iss"),
    "wrong audience": (ISSUER.token(aud="shop2"), "audience (aud)"),
    "audience of numbers": (ISSUER.token(aud=["shop", 1]), "audience (aud)"),
    "no audience": (ISSUER.token(without=("aud",)), "lacks the claim aud"),
    "no subject": (ISSUER.token(without=("sub",)), "lacks the claim sub"),
    "empty subject": (ISSUER.token(""), "subject (sub)"),
    "long subject": (ISSUER.token("x" * 256), "subject (sub)"),
    "subject no text": (ISSUER.token(sub=7), "subject (sub)"),
    "line break in subject": (ISSUER.token("ada\nlovelace"), "subject (sub)"),
    "NUL in subject": (ISSUER.token("ada\0"), "subject (sub)"),
    "surrogate in subject": (ISSUER.token("\ud800"), "subject (sub)"),
    "no exp": (ISSUER.token(without=("exp",)), "lacks the claim exp"),
    "exp null": (ISSUER.token(exp=None), "lacks the claim exp"),
    "exp a text": (ISSUER.token(exp="9999999999"), "no number"),
    "exp a word": (ISSUER.token(exp="never"), "malformed"),
    "exp infinite": (ISSUER.token(exp=float("inf")), "malformed"),
    "not yet": (ISSUER.token(nbf=int(time.time()) + 3600), "not valid yet"),
    "nbf null": (ISSUER.token(nbf=None), "malformed"),
    "nbf true": (ISSUER.token(nbf=True), "no number"),
    "from the future": (ISSUER.token(iat=int(time.time()) + 3600), "not valid yet"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_token_is_refused_with_what_is_wrong(name: str) -> None:
    token, problem = BAD[name]
    reason, text = await refusal(verifier(), token)
    assert reason == "TOKEN_INVALID"
    assert problem in text
    assert len(text) < 80


@pytest.mark.parametrize("token", [ISSUER.token(ttl=-31), ISSUER.token(ttl=-3600), ISSUER.token(exp=True)])
async def test_expired_token_has_a_reason_of_its_own(token: str) -> None:
    assert await refusal(verifier(), token) == ("TOKEN_EXPIRED", "the token has expired")


async def test_token_of_an_unknown_key_is_refused_once_keys_were_loaded(tokens: Tokens) -> None:
    text = "the token's key is not one of its issuer"
    assert await refusal(tokens, ISSUER.token(key=new_key())) == ("TOKEN_INVALID", text)


async def test_missing_key_is_looked_for_again_after_a_while(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    token = ISSUER.token(key=key)
    await refusal(tokens, token)
    with mock.patch.object(ISSUER, "keys", [*ISSUER.keys, key]):
        await refusal(tokens, token)
        start = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: start + MISSING_TIME)
        assert (await tokens.verify(token)).subject == "ada"


async def test_call_waits_for_keys_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "WAIT_TIMEOUT", 0.01)
    with pytest.raises(ApiError) as caught:
        await verifier().verify(ISSUER.token(key=new_key()))  # nothing loads keys here
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("number", [1, 3])
async def test_token_without_kid_is_tried_with_each_key(number: int) -> None:
    issuer = Issuer("https://id.example", keys=[new_key() for _ in range(number)])
    tokens = verifier(issuer)
    for key in issuer.keys:
        await tokens.verify(issuer.token(key=key, header={"kid": None}))
    text = "the token's key is not one of its issuer"
    assert await refusal(tokens, issuer.foreign_token(header={"kid": None})) == ("TOKEN_INVALID", text)


@pytest.mark.parametrize("kid", [None, "new"])
async def test_new_key_of_an_issuer_without_kids_is_looked_for(kid: str | None) -> None:
    """Its signature is all that tells that a key is new."""
    issuer = Issuer("https://id.example", keys=[new_key(kid=None)])
    keys = Keys(IssuerSource(issuer), ALGORITHMS)
    tokens = Tokens(TokenConfig(issuer=issuer.url, audiences=("shop",)), keys)
    async with supervised(Job("the keys", keys.run)):
        await tokens.verify(issuer.token())
        issuer.keys = [new_key(kid=None)]
        await tokens.verify(issuer.token(header={"kid": kid}))


@pytest.mark.parametrize(
    ("claim", "value", "claims", "is_staff"),
    [
        ("scope", "shop:staff", {"scope": "openid shop:staff"}, True),
        ("scope", "shop:staff", {"scope": "shop:staff"}, True),
        ("scope", "shop:staff", {"scope": ["openid", "shop:staff"]}, True),
        ("scope", "shop:staff", {"scope": "shop:staffing"}, False),
        ("scope", "shop:staff", {"scope": ["shop:staffing", 7, None]}, False),
        ("scope", "shop:staff", {"scope": {"shop:staff": True}}, False),
        ("scope", "shop:staff", {"scope": True}, False),
        ("scope", "shop:staff", {}, False),
        ("realm_access.roles", "staff", {"realm_access": {"roles": ["staff"]}}, True),
        ("realm_access.roles", "staff", {"realm_access": ["roles"]}, False),
        ("realm_access.roles", "staff", {"realm_access.roles": [], "realm_access": {"roles": ["staff"]}}, False),
        ("https://shop.example/roles", "Shop Staff", {"https://shop.example/roles": ["Shop Staff"]}, True),
        ("groups", "Shop Staff", {"groups": "Shop Staff"}, True),
        ("employee", "true", {"employee": True}, True),
        ("employee", "true", {"employee": "true"}, True),
        ("employee", "true", {"employee": 1}, False),
        ("employee", "True", {"employee": True}, False),
        ("level", "7", {"level": 7}, False),
    ],
)
async def test_staff_are_told_by_a_claim(claim: str, value: str, claims: dict[str, Any], is_staff: bool) -> None:
    tokens = verifier(staff_claim=claim, staff_value=value)
    token = ISSUER.token(without=("scope",) if "scope" not in claims else (), **claims)
    assert (await tokens.verify(token)).is_staff is is_staff


async def is_remembered(tokens: Tokens, token: str) -> bool:
    """Returns whether a token is accepted without being read."""
    with mock.patch("jwt.decode_complete", side_effect=ValueError):
        try:
            await tokens.verify(token)
        except ApiError:
            return False
        return True


async def test_verified_token_is_remembered() -> None:
    tokens, token = verifier(), ISSUER.token()
    assert not await is_remembered(tokens, token)
    await tokens.verify(token)
    assert await is_remembered(tokens, token)


async def test_remembered_token_expires() -> None:
    tokens, token = verifier(leeway=30), ISSUER.token(ttl=60)
    await tokens.verify(token)
    now = time.time()
    with mock.patch("time.time", return_value=now + 85):
        assert await is_remembered(tokens, token)
    with mock.patch("time.time", return_value=now + 95):
        assert not await is_remembered(tokens, token)


async def test_token_is_forgotten_with_its_key() -> None:
    old, new = new_key(), new_key()
    issuer = Issuer("https://id.example", keys=[old])
    keys = Keys(IssuerSource(issuer), ALGORITHMS)
    tokens, token = Tokens(TokenConfig(issuer=issuer.url, audiences=("shop",)), keys), issuer.token()
    async with supervised(Job("the keys", keys.run)):
        await tokens.verify(token)
        keys.update(json.dumps({"keys": [old.jwk(), new.jwk()]}).encode())
        await tokens.verify(token)
        issuer.keys = [new]
        keys.update(json.dumps(issuer.jwks()).encode())
        await refusal(tokens, token)


async def test_oldest_tokens_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, made = verifier(), [ISSUER.token(f"user {number}") for number in range(4)]
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    for token in made[:3]:
        await tokens.verify(token)
    assert [await is_remembered(tokens, token) for token in made] == [False, True, True, False]
    monkeypatch.setattr(module, "MAX_REMEMBERED_BYTES", len(made[3]))
    await tokens.verify(made[3])
    assert [await is_remembered(tokens, token) for token in made] == [False, False, False, True]


def run(work: Coroutine[Any, Any, Caller]) -> Caller:
    return asyncio.run(work)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
headers = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u"]), json_values)
claims = st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope"]), json_values)
SHARED = verifier()


def verify_or_refuse(token: str) -> None:
    """Verifies a token, which may fail in one way only."""
    try:
        assert run(SHARED.verify(token)).subject.isprintable()
    except ApiError as error:
        code, challenge = error.code, error.challenge
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "invalid_token" in challenge


@given(headers, claims)
def test_garbage_that_the_issuer_signed_is_refused(header: dict[str, Any], garbage: dict[str, Any]) -> None:
    key = ISSUER.keys[0]
    header = {"alg": "ES256", "kid": key.kid} | {name: value for name, value in header.items() if name != "kid"}
    verify_or_refuse(encode(header, ISSUER.claims() | garbage, key.sign))


@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=1, max_size=5).map(
        lambda parts: ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    )
)
def test_garbage_that_is_no_token_is_refused(token: str) -> None:
    verify_or_refuse(token)
