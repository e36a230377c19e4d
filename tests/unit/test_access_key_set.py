"""Only keys that can be used are used, and a bad key does not make the others unusable."""

import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.access.config import ALGORITHMS
from runtime.access.key_set import MAX_KEYS, KeySet, KeySetError, parse_key_set
from tests.support.oidc import SigningKey, new_key

GOOD = new_key("ES256", kid="good")
RSA = new_key("RS256", kid="rsa")


def parsed(*jwks: object, algorithms: tuple[str, ...] = ALGORITHMS, known: KeySet | None = None) -> KeySet:
    return parse_key_set(json.dumps({"keys": jwks}).encode(), algorithms, known or KeySet())


def without(key: SigningKey, *members: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in (key.jwk() | more).items() if name not in members}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_key_of_each_algorithm_is_used(algorithm: str) -> None:
    key = new_key(algorithm, kid="one") if algorithm.startswith("E") else SigningKey(algorithm, RSA.private, "one")
    (used,) = parsed(key.jwk()).keys
    assert (used.kid, used.algorithms, dict(used.jwk)) == ("one", (algorithm,), key.jwk())


def test_key_without_alg_has_the_allowed_algorithms_that_fit() -> None:
    keys = parsed(without(RSA, "alg"), without(GOOD, "alg"), algorithms=("RS256", "ES384", "ES256", "PS256")).keys
    assert [key.algorithms for key in keys] == [("RS256", "PS256"), ("ES256",)]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("key", "no object"),
        ({}, "type of key"),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "bad"}, "type of key"),
        ({"kty": ["RSA"]}, "type of key"),
        (without(GOOD, kid=7), "kid"),
        (without(GOOD, use="enc"), "not for signatures"),
        (without(GOOD, use=None), "not for signatures"),
        (without(GOOD, key_ops=["encrypt"]), "not for verifying"),
        (without(GOOD, key_ops="verify"), "not for verifying"),
        (without(GOOD, crv="P-384"), "does not fit"),
        (without(GOOD, "alg", crv="P-384"), "AUTH_ALGORITHMS"),
        (without(GOOD, "alg", crv="secp256k1"), "type of key"),
        (without(GOOD, "crv"), "type of key"),
        (without(GOOD, alg="RS256"), "does not fit"),
        (without(GOOD, alg="none"), "does not fit"),
        (without(GOOD, alg="HS256"), "does not fit"),
        (without(GOOD, alg=["ES256"]), "does not fit"),
        (without(GOOD, "y"), "malformed"),
        (without(GOOD, y=7), "malformed"),
        (without(GOOD, y="!"), "malformed"),
        (without(GOOD, y=GOOD.jwk()["x"]), "malformed"),
        (without(RSA, "n", x5c=["MIIB"]), "malformed"),
        (without(RSA, e="AA"), "malformed"),
        (without(RSA, d="AQAB"), "private key"),
        (new_key("RS256", bits=1024).jwk(), "below 2048 bits"),
        (new_key("ES384").jwk(), "AUTH_ALGORITHMS"),
    ],
)
def test_unusable_key_is_ignored_and_the_others_are_used(bad: object, problem: str) -> None:
    key_set = parsed(bad, without(GOOD, kid="other"), algorithms=("RS256", "ES256"))
    assert [key.kid for key in key_set.keys] == ["other"]
    (reason,) = key_set.ignored
    assert problem in reason


def test_set_without_a_usable_key_is_rejected() -> None:
    """An issuer without keys is a fault of the issuer: what was known is better."""
    with pytest.raises(KeySetError, match="no key"):
        parsed(new_key("RS256", bits=1024).jwk())


def test_published_set_has_nothing_but_public_usable_keys() -> None:
    named, nameless = without(RSA, x5t="abc", x5c=["MIIB"]), without(GOOD, "kid", "alg", "use")
    key_set = parsed(named, nameless, {"kty": "oct", "k": "c2VjcmV0"})
    published = json.loads(key_set.to_json())["keys"]
    assert published == [
        RSA.jwk(),
        {"kty": "EC", "use": "sig"} | {name: GOOD.jwk()[name] for name in ("crv", "x", "y")},
    ]
    assert len(jwt.PyJWKSet(published).keys) == 2


def test_token_may_be_signed_with_the_key_it_names_or_a_nameless_one() -> None:
    nameless = new_key("ES256", kid=None)
    key_set = parsed(GOOD.jwk(), new_key("ES256", kid="other").jwk(), nameless.jwk(), RSA.jwk())
    assert [key.kid for key in key_set.candidates("ES256", "good")] == ["good", None]
    assert [key.kid for key in key_set.candidates("ES256", "unknown")] == [None]
    assert [key.kid for key in key_set.candidates("ES256", None)] == ["good", "other", None]
    assert [key.kid for key in key_set.candidates("RS256", "good")] == []


def test_same_key_stays_the_same_object_and_a_gone_one_is_marked() -> None:
    first = parsed(GOOD.jwk(), RSA.jwk())
    second = parsed(without(GOOD, nonsense=1), known=first)
    assert second.keys == first.keys[:1]
    assert [key.in_use for key in first.keys] == [True, False]


def test_key_whose_name_or_algorithm_changes_is_another_key() -> None:
    first = parsed(GOOD.jwk())
    second = parsed(without(GOOD, kid="renamed"), known=first)
    assert second.keys[0] is not first.keys[0]
    assert not first.keys[0].in_use


def test_number_of_keys_is_limited() -> None:
    many = [without(GOOD, kid=f"key {number}") for number in range(MAX_KEYS + 1)]
    assert len(parsed(*many).keys) == MAX_KEYS


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops", "d"])


@given(st.sampled_from([GOOD, RSA]), st.dictionaries(members, values, max_size=3))
def test_garbage_in_a_key_never_raises_anything_else(key: SigningKey, garbage: dict[str, Any]) -> None:
    key_set = parsed(key.jwk() | garbage, without(GOOD, kid="other"))
    assert "other" in [key.kid for key in key_set.keys]


@given(values | st.fixed_dictionaries({"keys": values}))
def test_garbage_in_place_of_a_set_is_rejected(document: object) -> None:
    with pytest.raises(KeySetError):
        parse_key_set(json.dumps(document).encode(), ALGORITHMS, KeySet())


@pytest.mark.parametrize("text", [b"", b"\xff", b"{", b"[" * 100_000, b"1" * 5000])
def test_text_that_is_not_json_is_rejected(text: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_key_set(text, ALGORITHMS, KeySet())
