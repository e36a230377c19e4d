"""Tickets: signed, each for one order, for one purpose, and for a time."""

import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from order.tickets import Kind, TicketConfig, Tickets
from runtime.access import secret
from runtime.config import ConfigError, Env
from runtime.errors import ApiError
from tests.support.access import credentials
from tests.support.secret_folder import SecretFolder

ORDER = UUID("123e4567-e89b-42d3-a456-426614174000")
BOTH = (Kind.ORDER, Kind.STREAM)


def tickets(folder: Path, **variables: str) -> Tickets:
    return Tickets(TicketConfig.from_env(Env({"TICKET_KEYS": str(folder), **variables})))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretFolder:
    monkeypatch.setattr(secret, "READ_INTERVAL", 0)
    return SecretFolder(tmp_path)


def reason(made: Tickets, ticket: str, *kinds: Kind) -> str:
    with pytest.raises(ApiError) as caught:
        made.read(ticket, kinds or BOTH)
    assert caught.value.code.name == "UNAUTHENTICATED"
    assert len(ticket) < 8 or ticket not in caught.value.text
    return caught.value.reason


def signed(folder: SecretFolder, header: dict[str, Any] | None = None, **claims: Any) -> str:
    known = {"aud": "order", "sub": str(ORDER), "exp": int(time.time()) + 60}
    wanted = {name: value for name, value in (known | claims).items() if value is not None}
    return jwt.encode(wanted, folder.read(), "HS256", headers=header)


def test_ticket_opens_its_order(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    for kind in BOTH:
        ticket = made.issue(kind, ORDER)
        assert made.read(ticket.text, [kind]) == ORDER
        assert made.read(ticket.text, BOTH) == ORDER
        assert len(ticket.text) < 250, "it is part of URLs"


@pytest.mark.parametrize(("kind", "ttl"), [(Kind.ORDER, 30 * 86_400), (Kind.STREAM, 3_600)])
def test_ticket_expires_after_its_ttl(folder: SecretFolder, kind: Kind, ttl: float) -> None:
    expires = tickets(folder.path).issue(kind, ORDER).expire_time.timestamp()
    assert abs(expires - time.time() - ttl) < 5


def test_ttl_can_be_configured(folder: SecretFolder) -> None:
    made = tickets(folder.path, AUTH_GUEST_TICKET_TTL="7200", AUTH_STREAM_TICKET_TTL="60")
    left = [made.issue(kind, ORDER).expire_time.timestamp() - time.time() for kind in BOTH]
    assert [round(each, -1) for each in left] == [7200, 60]


def test_ticket_of_another_kind_is_invalid(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    assert reason(made, made.issue(Kind.STREAM, ORDER).text, Kind.ORDER) == "TICKET_INVALID"
    assert reason(made, made.issue(Kind.ORDER, ORDER).text, Kind.STREAM) == "TICKET_INVALID"


def test_expired_ticket_says_so_only_if_genuine(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    expired = signed(folder, exp=int(time.time()) - 1)
    assert reason(made, expired) == "TICKET_EXPIRED"
    assert reason(made, expired[:-8] + "AAAAAAAA") == "TICKET_INVALID"


@pytest.mark.parametrize(
    "claims", [{"exp": None}, {"sub": None}, {"aud": None}, {"aud": "shop"}, {"sub": "x"}, {"sub": 1}, {"exp": "soon"}]
)
def test_ticket_with_other_claims_is_invalid(folder: SecretFolder, claims: dict[str, Any]) -> None:
    if claims == {"sub": 1}:
        body = jwt.encode({"aud": "order", "exp": int(time.time()) + 60}, folder.read(), "HS256")
        assert reason(tickets(folder.path), body) == "TICKET_INVALID"
        return
    assert reason(tickets(folder.path), signed(folder, **claims)) == "TICKET_INVALID"


def test_unsigned_and_foreign_tickets_are_invalid(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    claims = {"aud": "order", "sub": str(ORDER), "exp": int(time.time()) + 60}
    unsigned = jwt.encode(claims, "", "none")
    foreign = jwt.encode(claims, "x" * 64, "HS256")
    other_algorithm = jwt.encode(claims, folder.read(), "HS512")
    # A parser of JSON fails on so many brackets, and with an error of its own.
    nested = urlsafe_b64encode(b"[" * 9_000).decode() + ".AAAA.AAAA"
    for ticket in (unsigned, foreign, other_algorithm, nested, "", ".", "..", "a.b.c", "\x00", "\ud800"):
        assert reason(made, ticket) == "TICKET_INVALID"


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda data: urlsafe_b64encode(data).decode() + "..x"))
def test_garbage_is_invalid(ticket: str) -> None:
    assert reason(tickets(credentials()), ticket) == "TICKET_INVALID"


def test_tickets_outlive_change_of_keys_in_three_steps(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    old = made.issue(Kind.ORDER, ORDER).text
    folder.add()
    assert made.read(made.issue(Kind.ORDER, ORDER).text, BOTH) == ORDER
    folder.exchange()
    new = made.issue(Kind.ORDER, ORDER).text
    assert [made.read(each, BOTH) for each in (old, new)] == [ORDER, ORDER]
    folder.remove()
    assert made.read(new, BOTH) == ORDER
    assert reason(made, old) == "TICKET_INVALID"


def test_replaced_key_ends_all_tickets(folder: SecretFolder) -> None:
    made = tickets(folder.path)
    old = made.issue(Kind.ORDER, uuid4()).text
    folder.replace()
    assert reason(made, old) == "TICKET_INVALID"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "TICKET_KEYS is missing: a folder with the file `current`"),
        ({"TICKET_KEYS": "/nowhere"}, "TICKET_KEYS: cannot read /nowhere/current: No such file or directory"),
        ({"AUTH_STREAM_TICKET_TTL": "1h"}, "AUTH_STREAM_TICKET_TTL must be a number of seconds, not '1h'"),
        ({"AUTH_GUEST_TICKET_TTL": "1"}, "AUTH_GUEST_TICKET_TTL must be from 60 to 3.1536e+08 seconds, not 1"),
    ],
)
def test_wrong_setting_is_one_line(folder: SecretFolder, variables: dict[str, str], message: str) -> None:
    if variables and "TICKET_KEYS" not in variables:
        variables = {"TICKET_KEYS": str(folder.path), **variables}
    with pytest.raises(ConfigError) as caught:
        Tickets(TicketConfig.from_env(Env(variables)))
    assert str(caught.value) == message
