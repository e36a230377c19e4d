"""The documentation has what the code has."""

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2
from google.type.money_pb2 import Money
from shop.cart.v1 import cart_pb2
from shop.product.v1 import product_pb2

from order.cart.domain import Reason
from order.cart.parse import purchase
from product.parse import MAX_MASK_PATHS, changes, new_product
from runtime.errors import ApiError
from runtime.money import MAX_PRICE_UNITS
from tests.support.requests import PUBLIC, RequestField, request_fields

ROOT = Path(__file__).resolve().parents[2]


def test_every_variable_that_a_process_reads_is_documented() -> None:
    code = "".join(
        path.read_text()
        for package in ("runtime", "product", "order", "sse", "demo")
        for path in (ROOT / package).rglob("*.py")
    )
    read = set(re.findall(r'env\.[a-z]+\(\s*"([A-Z_]+)"', code))
    assert {"DATABASE_URL", "SSE_MAX_STREAMS", "EVENT_RETENTION_DAYS"} <= read
    documented = set(re.findall(r"`([A-Z_]+)(?:=\w+)?`", (ROOT / "docs" / "configuration.md").read_text()))
    assert read - documented == set()


IN_CODE = {
    "product.price": f"0 to {MAX_PRICE_UNITS:,} units of an ISO 4217 currency",
    "update_mask": f"at most {MAX_MASK_PATHS} paths",
    "expected_total": "not negative, in a currency with a code of three capital letters",
}
"""The limits that no rule of a proto can state."""


def describe(limited: RequestField) -> str:
    """Returns the limit of a field in words; empty if it has none."""
    rules = limited.rules
    if rules.HasField("repeated"):
        return f"{rules.repeated.min_items} to {rules.repeated.max_items} elements"
    if rules.string.uuid:
        return "a UUID"
    if rules.string.max_bytes:
        return f"at most {rules.string.max_bytes:,} bytes"
    if rules.string.max_len:
        least = f"{rules.string.min_len} to" if rules.string.min_len else "at most"
        return f"{least} {rules.string.max_len:,} characters"
    for kind in ("int32", "int64", "double"):
        if rules.HasField(kind):
            numbers: Any = getattr(rules, kind)
            highest = f"{numbers.lte:,.10g}" if numbers.HasField("lte") else ""
            return f"{numbers.gte:,.10g} to {highest}" if highest else f"at least {numbers.gte}"
    if rules.enum.defined_only:
        return "a status, by name"
    return "not 0" if rules.required else IN_CODE.get(limited.path, "")


def limits_table() -> str:
    """Returns the table of docs/api.md: all fields of public requests, by their limits."""
    limits: dict[str, set[str]] = {}
    for limited in request_fields(*PUBLIC):
        limits.setdefault(limited.path, set()).add(describe(limited))
    rows: dict[str, list[str]] = {}
    for limited in request_fields(*PUBLIC):
        method = limited.request.__name__.removesuffix("Request")
        which = f" of {method}" if len(limits[limited.path]) > 1 else ""
        rows.setdefault(describe(limited), []).append(f"`{limited.path}`{which}")
    lines = [f"| {', '.join(dict.fromkeys(paths))} | {limit} |" for limit, paths in rows.items()]
    return "\n".join(["| field | limit |", "| --- | --- |", *lines])


def test_every_request_field_has_a_limit() -> None:
    """All but true or false, of which a request has none: what is unlimited takes memory."""
    unlimited = [limited.path for limited in request_fields(*PUBLIC) if not describe(limited)]
    assert unlimited == []
    texts = [limited for limited in request_fields(*PUBLIC) if limited.field.type == FieldDescriptor.TYPE_STRING]
    assert len(texts) > 40


def test_documented_limits_are_those_of_the_protos() -> None:
    assert limits_table() in (ROOT / "docs" / "api.md").read_text(), f"docs/api.md must have:\n\n{limits_table()}\n"


@pytest.mark.parametrize("units", [MAX_PRICE_UNITS, MAX_PRICE_UNITS + 1])
def test_documented_limit_of_a_price_is_enforced(units: int) -> None:
    product = product_pb2.Product(name="Oak table")
    product.price.currency_code, product.price.units = "EUR", units
    product.star = 6  # so that there is always an error to read
    with pytest.raises(ApiError) as caught:
        new_product(product)
    refused = "product.price.units: must be from 0 to 1,000,000,000" in caught.value.text
    assert refused is (units > MAX_PRICE_UNITS)


@pytest.mark.parametrize(
    ("money", "refused"),
    [
        (Money(currency_code="EUR", units=12, nanos=500_000_000), set()),
        (Money(currency_code="EUR", units=2**63 - 1, nanos=999_999_999), set()),
        (Money(currency_code="EUR", units=-1), {"expected_total.units"}),
        (Money(currency_code="EUR", nanos=-1), {"expected_total.nanos"}),
        (Money(currency_code="eur", units=1), {"expected_total.currency_code"}),
        (Money(units=1), {"expected_total.currency_code"}),
    ],
)
def test_documented_limit_of_a_total_is_enforced(money: Money, refused: set[str]) -> None:
    request = cart_pb2.CheckoutCartRequest(expected_total=money)
    with pytest.raises(ApiError) as caught:
        purchase(request, "")
    (violations,) = caught.value.details
    assert isinstance(violations, error_details_pb2.BadRequest)
    assert {each.field for each in violations.field_violations} == {"id", "etag", *refused}


@pytest.mark.parametrize("number", [MAX_MASK_PATHS, MAX_MASK_PATHS + 1])
def test_documented_limit_of_a_mask_is_enforced(number: int) -> None:
    request = product_pb2.UpdateProductRequest()
    request.update_mask.paths.extend(["variant"] * number)
    with pytest.raises(ApiError) as caught:
        changes(request)
    refused = "update_mask: must have at most 50 paths, not 51" in caught.value.text
    assert refused is (number > MAX_MASK_PATHS)


INTERNAL_REASONS = {"RESERVATION_MISMATCH", "RESERVATION_NOT_FOUND"}
"""Reasons between the services, which no client sees."""


def test_every_reason_of_an_error_is_documented() -> None:
    code = "".join(
        path.read_text() for package in ("runtime", "product", "order") for path in (ROOT / package).rglob("*.py")
    )
    reasons = set(re.findall(r'reason="([A-Z_]+)"', code)) - INTERNAL_REASONS
    assert {"ORDER_EXPIRED", "CART_CHANGED", "PRICE_CHANGED"} <= reasons
    _, _, errors = (ROOT / "docs" / "api.md").read_text().partition("## Which errors can I get?")
    assert reasons - set(re.findall(r"`([A-Z_]+)`", errors)) == set()


def test_every_problem_of_a_cart_is_documented() -> None:
    carts = (ROOT / "docs" / "api.md").read_text().partition("## How do carts work?")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", carts)) == set(Reason)


LOGGED = {
    "expired holds are left alone": "order/jobs/expired_holds.py",
    "expired holds could not be settled, such as that of order": "order/jobs/expired_holds.py",
    "carts are shown with what is known": "order/cart/changes.py",
    "the status tailer has no connection": "order/live/tailer.py",
    "the database accepts writes again": "runtime/readiness.py",
    "waits for locks that others hold": "runtime/migrate.py",
    "a prepared statement is missing": "runtime/driver_errors.py",
    "does not exist, but has stock": "order/jobs/comparison.py",
    "has lost its reservation": "order/jobs/comparison.py",
    "NOT RESERVED": "order/jobs/report.py",
}
"""Log lines and reports that the runbook quotes, each with the module that writes it."""


@pytest.mark.parametrize("line", LOGGED)
def test_quoted_log_line_is_the_one_written(line: str) -> None:
    documents = " ".join(
        " ".join((ROOT / "docs" / name).read_text().split()) for name in ("operations.md", "configuration.md")
    )
    assert line in documents
    assert line in (ROOT / LOGGED[line]).read_text()
