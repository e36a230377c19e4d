"""Conditions and keys of clients, in a message or in HTTP headers."""

from typing import Any, cast

import pytest

from runtime.errors import ApiError
from runtime.headers import Context, expected_etag, header_values, request_key, version_of

KEY = "123e4567-e89b-42d3-a456-426614174000"
OTHER = "123e4567-e89b-42d3-a456-426614174001"


class Call:
    """The context of a call, of which only the metadata exists."""

    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self._metadata = metadata
        self.reads = 0

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        self.reads += 1
        return self._metadata


def call(*metadata: tuple[str, Any]) -> Context:
    return cast("Context", Call(*metadata))


def test_metadata_is_converted_once_for_each_call() -> None:
    """Of two calls at the same time, none gets the other's."""
    ada, bob = Call(("authorization", "Bearer ada"), ("order-ticket", "t")), Call(("authorization", "Bearer bob"))
    for each, name, values in (
        (ada, "authorization", ["Bearer ada"]),
        (ada, "order-ticket", ["t"]),
        (ada, "if-match", []),
        (bob, "order-ticket", []),
        (bob, "authorization", ["Bearer bob"]),
    ):
        assert header_values(cast("Context", each), name) == values
    assert (ada.reads, bob.reads) == (1, 1)


@pytest.mark.parametrize("value", ['"7"', 'W/"7"', "7", ' "7" '])
def test_etag_is_accepted_in_both_forms(value: str) -> None:
    assert expected_etag(call(("if-match", value)), "") == "7"
    assert expected_etag(call(), value) == "7"
    assert expected_etag(call(("if-match", value)), "7") == "7"


def test_missing_condition_allows_any_etag() -> None:
    assert expected_etag(call(), "") == expected_etag(call(("if-match", "*")), "") == ""
    assert expected_etag(call(("if-match", "*")), "7") == "7"


@pytest.mark.parametrize("values", [('""',), ("",), ('"1", "2"',), ('"1"', '"2"'), ("*", '"1"')])
def test_if_match_that_is_not_one_etag_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ApiError, match="If-Match: must be one etag"):
        expected_etag(call(*(("if-match", value) for value in values)), "")


@pytest.mark.parametrize("etag", ['""', "W/", 'W/""', " "])
def test_etag_without_content_is_refused(etag: str) -> None:
    with pytest.raises(ApiError, match="etag: must be an etag"):
        expected_etag(call(), etag)


def test_two_different_etags_are_refused() -> None:
    with pytest.raises(ApiError, match="etag: differs from the If-Match header"):
        expected_etag(call(("if-match", '"99"')), "1")


def test_idempotency_key_may_be_in_field_or_header() -> None:
    assert request_key(call(), "") is None
    assert str(request_key(call(), KEY)) == str(request_key(call(("idempotency-key", f'"{KEY}"')), "")) == KEY
    assert str(request_key(call(("idempotency-key", KEY)), KEY)) == KEY
    with pytest.raises(ApiError, match="request_id: differs from the Idempotency-Key header"):
        request_key(call(("idempotency-key", OTHER)), KEY)
    with pytest.raises(ApiError, match="Idempotency-Key: must be a UUID"):
        request_key(call(("idempotency-key", "once")), "")


@pytest.mark.parametrize("values", [(KEY, KEY), (KEY, OTHER), ("", KEY)])
def test_repeated_idempotency_key_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ApiError, match="Idempotency-Key: must be sent once"):
        request_key(call(*(("idempotency-key", value) for value in values)), KEY)


@pytest.mark.parametrize("value", ["", " ", '""'])
def test_empty_idempotency_key_is_refused(value: str) -> None:
    """Its sender relies on a key, and each retry would place another order."""
    with pytest.raises(ApiError, match="Idempotency-Key: must be a UUID"):
        request_key(call(("idempotency-key", value)), "")


@pytest.mark.parametrize(
    ("etag", "version"), [("", None), ("7", 7), ("07", 0), ("-7", 0), ("7.0", 0), ("٧", 0), ("x", 0), ("9" * 19, 0)]
)
def test_only_an_etag_of_ours_is_a_version(etag: str, version: int | None) -> None:
    """No resource has version 0, so the condition is never met."""
    assert version_of(etag) == version
