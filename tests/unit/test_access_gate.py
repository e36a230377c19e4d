"""The gate: each level with each caller, with and without tokens."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from runtime.access.caller import ANYBODY, NOBODY, Caller
from runtime.access.config import AccessConfig, TokenConfig
from runtime.access.gate import Gate
from runtime.access.rules import Guests, Level, Rule
from runtime.errors import ApiError, unauthenticated, unavailable
from tests.support.access import credential, open_access

CUSTOMER = Caller(subject="ada", scope="ada")
STAFF = Caller(subject="grace", is_staff=True, scope="grace")

PUBLIC_RULE = Rule(Level.PUBLIC)
CUSTOMER_RULE = Rule(Level.CUSTOMER)
GUEST_RULE = Rule(Level.CUSTOMER, Guests.ALLOWED)
TICKET_RULE = Rule(Level.CUSTOMER, Guests.WITH_TICKET)
SECRET_RULE = Rule(Level.CUSTOMER, Guests.WITH_SECRET)
STAFF_RULE = Rule(Level.STAFF)
INTERNAL_RULE = Rule(Level.INTERNAL)
RULES = (PUBLIC_RULE, CUSTOMER_RULE, GUEST_RULE, TICKET_RULE, SECRET_RULE, STAFF_RULE, INTERNAL_RULE)

Headers = tuple[tuple[str, str | bytes], ...]

RIGHT: Headers = credential().metadata()
"""The credential of the shop's own processes."""


def token(name: str) -> Headers:
    return (("authorization", f"Bearer {name}"),)


TICKET: Headers = (("order-ticket", "eyJ"),)
SECRET: Headers = (("cart-secret", "c2VjcmV0"),)


class FakeVerifier:
    """Accepts the tokens `ada` and `grace`."""

    async def verify(self, token: str, max_waiting: int | None = None) -> Caller:
        match token:
            case "ada":
                return CUSTOMER
            case "grace":
                return STAFF
            case "unknown":
                raise unavailable("the keys of the issuer cannot be fetched")
            case _:
                raise unauthenticated("TOKEN_INVALID", "the token is not valid")


def gate(*, tokens: bool = True, guests: bool = True, **changes: Any) -> Gate:
    config: AccessConfig = replace(open_access(), **changes)
    if not tokens:
        return Gate(config, credential(), None)
    config = replace(config, tokens=TokenConfig(issuer="https://issuer", audiences=("shop",), guests=guests))
    return Gate(config, credential(), FakeVerifier())


class Call:
    """The context of a call with these headers."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def invocation_metadata(self) -> Headers:
        return self._headers


async def admitted(gate: Gate, rule: Rule, headers: Headers = ()) -> Caller | tuple[str, str]:
    """Returns the caller, or the code and the reason of the refusal."""
    try:
        return await gate.admission(rule)(Call(headers))  # type: ignore[arg-type]  # all that is asked of a context
    except ApiError as error:
        return error.code.name, error.reason


async def outcomes(gate: Gate, headers: Headers = ()) -> Mapping[Rule, Caller | tuple[str, str]]:
    return {rule: await admitted(gate, rule, headers) for rule in RULES}


TOKEN_REQUIRED = ("UNAUTHENTICATED", "TOKEN_REQUIRED")
NO_CREDENTIAL = ("UNAUTHENTICATED", "CREDENTIAL_REQUIRED")


async def test_caller_without_a_token() -> None:
    assert await outcomes(gate()) == {
        PUBLIC_RULE: NOBODY,
        CUSTOMER_RULE: TOKEN_REQUIRED,
        GUEST_RULE: NOBODY,
        TICKET_RULE: TOKEN_REQUIRED,
        SECRET_RULE: TOKEN_REQUIRED,
        STAFF_RULE: TOKEN_REQUIRED,
        INTERNAL_RULE: NO_CREDENTIAL,
    }


async def test_caller_with_a_ticket() -> None:
    """Whether the ticket is a good one is for the method to decide."""
    assert await outcomes(gate(), TICKET) == {**await outcomes(gate()), TICKET_RULE: NOBODY}


@pytest.mark.parametrize("headers", [SECRET, (*SECRET, *SECRET), (("cart-secret", ""),)])
async def test_caller_with_the_secret_of_a_cart(headers: Headers) -> None:
    """Whether the secret opens a cart is for the method to decide."""
    assert await outcomes(gate(), headers) == {**await outcomes(gate()), SECRET_RULE: NOBODY}


@pytest.mark.parametrize(
    ("rule", "also"),
    [
        (CUSTOMER_RULE, ""),
        (TICKET_RULE, ", or an order's ticket in the header order-ticket"),
        (SECRET_RULE, ", or a cart's secret in the header cart-secret"),
        (STAFF_RULE, ""),
    ],
)
async def test_refusal_names_what_a_guest_may_send_instead(rule: Rule, also: str) -> None:
    """Where there are no guests, it names the token only."""
    for guests in (True, False):
        with pytest.raises(ApiError) as caught:
            await gate(guests=guests).admission(rule)(Call(()))  # type: ignore[arg-type]  # as above
        text = "this method needs a bearer token in the authorization header"
        assert caught.value.text == text + (also if guests else "")


async def test_guests_are_refused_where_there_are_none() -> None:
    closed = {**await outcomes(gate()), **dict.fromkeys((GUEST_RULE, TICKET_RULE, SECRET_RULE), TOKEN_REQUIRED)}
    for headers in ((), TICKET, SECRET):
        assert await outcomes(gate(guests=False), headers) == closed


async def test_customer() -> None:
    assert await outcomes(gate(), token("ada")) == {
        **dict.fromkeys((PUBLIC_RULE, CUSTOMER_RULE, GUEST_RULE, TICKET_RULE, SECRET_RULE), CUSTOMER),
        STAFF_RULE: ("PERMISSION_DENIED", "STAFF_REQUIRED"),
        INTERNAL_RULE: NO_CREDENTIAL,
    }


async def test_staff() -> None:
    assert await outcomes(gate(), token("grace")) == {**dict.fromkeys(RULES, STAFF), INTERNAL_RULE: NO_CREDENTIAL}


@pytest.mark.parametrize(
    "headers",
    [
        token("forged"),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", ""),),
        (("authorization", "ada"),),
        (("authorization", "Basic YWRhOg=="),),
        (("authorization", "Bearer ada grace"),),
        (("authorization", "Bearer ada, Bearer grace"),),
        (*token("ada"), *token("ada")),
        (*token("grace"), *token("forged")),
    ],
)
async def test_invalid_token_is_refused_everywhere(headers: Headers) -> None:
    """Also where none is needed, and also beside a ticket or a cart's secret."""
    refused = {
        **dict.fromkeys(RULES, ("UNAUTHENTICATED", "TOKEN_INVALID")),
        INTERNAL_RULE: NO_CREDENTIAL,
    }
    assert await outcomes(gate(), headers) == refused
    assert await outcomes(gate(), (*TICKET, *SECRET, *headers)) == refused


async def test_unknown_keys_are_unavailable() -> None:
    for rule in RULES[:-1]:
        assert await admitted(gate(), rule, token("unknown")) == ("UNAVAILABLE", "")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_scheme_is_case_insensitive(scheme: str) -> None:
    assert await admitted(gate(), CUSTOMER_RULE, (("authorization", f"{scheme} ada"),)) == CUSTOMER


@pytest.mark.parametrize(
    "headers", [(), token("ada"), token("forged"), (("authorization", "Basic x"),), TICKET, SECRET]
)
async def test_everybody_may_call_if_no_tokens_are_verified(headers: Headers) -> None:
    assert await outcomes(gate(tokens=False), headers) == {
        **dict.fromkeys(RULES, ANYBODY),
        INTERNAL_RULE: NO_CREDENTIAL,
    }


@pytest.mark.parametrize("tokens", [False, True])
async def test_credential_opens_internal_methods_and_nothing_else(tokens: bool) -> None:
    assert await outcomes(gate(tokens=tokens), RIGHT) == {**await outcomes(gate(tokens=tokens)), INTERNAL_RULE: NOBODY}


WRONG: list[Headers] = [
    (("x-shop-credential", "x" * 64),),
    (("x-shop-credential", ""),),
    (("x-shop-credential", str(RIGHT[0][1])[:-1]),),
    (("x-shop-credential", str(RIGHT[0][1]) + " "),),
    (("x-shop-credential", b"\xff" * 64),),
    (("x-shop-credential", "ä" * 64),),
    (*RIGHT, *RIGHT),
    (*RIGHT, ("x-shop-credential", "x" * 64)),
]


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("headers", WRONG)
async def test_wrong_credential_is_denied(headers: Headers, tokens: bool) -> None:
    denied = ("PERMISSION_DENIED", "CREDENTIAL_REQUIRED")
    assert await admitted(gate(tokens=tokens), INTERNAL_RULE, headers) == denied
    assert await admitted(gate(tokens=tokens), INTERNAL_RULE, (*token("grace"), *headers)) == denied


async def test_missing_credential_is_accepted_during_an_upgrade() -> None:
    """A wrong one is not, and it ends by itself."""
    now = datetime.now(UTC)
    upgrading = gate(optional_until=now + timedelta(minutes=1))
    assert await admitted(upgrading, INTERNAL_RULE) == NOBODY
    assert await admitted(upgrading, INTERNAL_RULE, WRONG[0]) == ("PERMISSION_DENIED", "CREDENTIAL_REQUIRED")
    assert await admitted(gate(optional_until=now), INTERNAL_RULE) == NO_CREDENTIAL


async def test_gateway_names_callers_if_no_tokens_are_verified() -> None:
    named = gate(tokens=False, caller_header="x-shop-caller")
    assert await admitted(named, GUEST_RULE) == ANYBODY
    assert await admitted(named, GUEST_RULE, (("x-shop-caller", "ada"),)) == Caller(is_staff=True, scope="ada")
    twice: Headers = (("x-shop-caller", "ada"), ("x-shop-caller", "grace"))
    assert await admitted(named, GUEST_RULE, twice) == ("INVALID_ARGUMENT", "")
    assert await admitted(named, INTERNAL_RULE, (("x-shop-caller", "ada"),)) == NO_CREDENTIAL


async def test_passed_on_token_is_identified() -> None:
    """The sidecar passes on what its client sent."""
    assert await gate().identify([]) == NOBODY
    assert await gate().identify(["Bearer ada"]) == CUSTOMER
    assert await gate(tokens=False).identify(["Bearer forged"]) == ANYBODY
    for wrong in (["Bearer forged"], ["Bearer ada", "Bearer ada"], [""]):
        with pytest.raises(ApiError) as caught:
            await gate().identify(wrong)
        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_refusals_quote_nothing_that_was_sent() -> None:
    sent: Headers = (
        ("authorization", "Basic c2VjcmV0"),
        ("x-shop-credential", "s" * 40),
        ("order-ticket", "eyJ-secret"),
        ("cart-secret", "hidden"),
    )
    for rule in RULES:
        with pytest.raises(ApiError) as caught:
            await gate().admission(rule)(Call(sent))  # type: ignore[arg-type]  # as above
        for value in ("c2VjcmV0", "ssss", "eyJ-", "hidden"):
            assert value not in str(caught.value.status())
