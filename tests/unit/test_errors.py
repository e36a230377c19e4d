"""Errors fit into what gRPC sends, however much is wrong."""

from urllib.parse import quote

import pytest
from grpc import StatusCode

from runtime.errors import DETAILS_KEY, ApiError, invalid_argument, unavailable, with_reason
from runtime.refusals import join_first

SOFT_LIMIT = 8 * 1024
"""Bytes of metadata beyond which grpc begins to refuse calls."""


def sent(error: ApiError) -> int:
    """Bytes of the trailers: grpc-message is percent-encoded, binary metadata goes as base64."""
    ((key, value),) = error.trailers()
    assert key == DETAILS_KEY
    return len(quote(error.text)) + len(value) * 4 // 3 + 200


@pytest.mark.parametrize("letter", ["x", "%", "ä", "\u4e2d", "\U0001f381"])
def test_any_error_fits_into_the_trailers(letter: str) -> None:
    text = letter * 300
    assert sent(invalid_argument([(f"items[{n}].product_id", text[:90]) for n in range(1_000)])) < SOFT_LIMIT
    assert (
        sent(with_reason(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", text * 50, product_id="p")) < SOFT_LIMIT
    )


def test_first_violations_are_listed_and_others_counted() -> None:
    error = invalid_argument([(f"ids[{n}]", "is bad") for n in range(12)])
    assert error.text.endswith("ids[9]: is bad; and 2 more")
    assert [row.field for row in error.details[0].field_violations] == [f"ids[{n}]" for n in range(10)]  # type: ignore[attr-defined]  # a BadRequest


def test_short_text_is_unchanged() -> None:
    assert with_reason(StatusCode.FAILED_PRECONDITION, "REASON", "as it is: ä").text == "as it is: ä"
    assert join_first(["a", "b"], 2) == "a; b"


@pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (1.0, "1"), (1.5, "2")])
def test_retry_info_is_a_retry_after_header_too(seconds: float, header: str) -> None:
    """In whole seconds, and never too early."""
    assert dict(unavailable("try again", seconds).trailers())["retry-after"] == header


def test_lasting_error_has_no_retry_after() -> None:
    assert "retry-after" not in dict(with_reason(StatusCode.FAILED_PRECONDITION, "REASON", "no").trailers())
