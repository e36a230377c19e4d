"""Requests are checked as the API's comments say, and one answer names everything that is wrong."""

from typing import Any

import pytest
from google.rpc import error_details_pb2
from shop.order.v1 import order_pb2

from order import parse
from runtime.errors import ApiError
from tests.support.order import A, B, create_request


def violations(error: ApiError) -> dict[str, str]:
    bad = error.details[0]
    assert isinstance(bad, error_details_pb2.BadRequest)
    return {each.field: each.description for each in bad.field_violations}


def refused_fields(message: order_pb2.CreateOrderRequest) -> set[str]:
    with pytest.raises(ApiError) as caught:
        parse.draft(message)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    return set(violations(caught.value))


def test_everything_but_items_is_optional() -> None:
    draft = parse.draft(create_request({A: 2}))
    assert [(str(line.product_id), line.quantity) for line in draft.lines] == [(A, 2)]
    assert draft.customer_email == ""


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([], "items"),
        ([(A, 0)], "items[0].quantity"),
        ([(A, -1)], "items[0].quantity"),
        ([("abc", 1)], "items[0].product_id"),
        ([("", 1)], "items[0].product_id"),
        ([(A, 1), (A, 2)], "items[1].product_id"),
        ([(A, 1), (A.upper(), 2)], "items[1].product_id"),
        ([(f"00000000-0000-4000-8000-{n:012}", 1) for n in range(51)], "items"),
    ],
)
def test_bad_items_are_refused(items: list[tuple[str, int]], field: str) -> None:
    message = order_pb2.CreateOrderRequest(
        items=[order_pb2.CreateOrderItem(product_id=key, quantity=quantity) for key, quantity in items]
    )
    assert refused_fields(message) == {field}


@pytest.mark.parametrize(
    "email",
    ["ada", "@example.com", "ada@", "a@b@c", "ada lovelace@example.com", "a" * 251 + "@b.c", "ada@example.com\u200b",
     "a\u00adda@example.com", "ada\ufeff@example.com", "ada@\u3164.com", "ada\ufe0f@example.com", "\u2060@example.com"],
)  # fmt: skip
def test_an_email_must_look_like_one(email: str) -> None:
    assert refused_fields(create_request(customer={"email": email})) == {"customer.email"}


@pytest.mark.parametrize(
    "email", ["ada@localhost", " ada@example.com ", "Ada+list@EXAMPLE.com", "дана@пример.бел", "अदा@उदाहरण.भारत"]
)
def test_unusual_emails_are_accepted(email: str) -> None:
    assert parse.draft(create_request(customer={"email": email})).customer_email == email.strip()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"customer": {"name": "x" * 201}}, "customer.name"),
        ({"customer": {"phone": "1" * 33}}, "customer.phone"),
        ({"customer": {"name": "a\0b"}}, "customer.name"),
        ({"shipping_address": "x" * 1001}, "shipping_address"),
        ({"payment_method": "x" * 65}, "payment_method"),
        ({"payment_method": "CARD\nCASH"}, "payment_method"),
        ({"notes": "x" * 2001}, "notes"),
        ({"notes": "a\0b"}, "notes"),
    ],
)
def test_texts_are_bounded_and_free_of_control_characters(fields: dict[str, Any], field: str) -> None:
    assert refused_fields(create_request(**fields)) == {field}


def test_an_address_and_notes_may_have_lines() -> None:
    assert parse.draft(create_request(notes="one\ntwo", shipping_address="a\nb")).notes == "one\ntwo"


def test_all_violations_of_an_order_are_reported() -> None:
    message = create_request({A: 0, "b": -1}, customer={"email": "x"}, notes="\0")
    assert refused_fields(message) == {
        "items[0].quantity",
        "items[1].quantity",
        "items[1].product_id",
        "customer.email",
        "notes",
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"status": 99}, "status"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "zzz"}, "page_token"),
        ({"customer_email": "a\0"}, "customer_email"),
        ({"customer_email": "ada"}, "customer_email"),
        ({"customer_email": "ada shop@example.com"}, "customer_email"),
        ({"number": "x" * 65}, "number"),
    ],
)
def test_a_bad_listing_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse.listing(order_pb2.ListOrdersRequest(**fields))
    assert set(violations(caught.value)) == {field}


def test_a_stream_cannot_resume_after_a_negative_version() -> None:
    with pytest.raises(ApiError, match="after_version"):
        parse.stream(order_pb2.StreamOrderStatusRequest(order_id=B, after_version=-1))
