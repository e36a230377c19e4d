"""Checks of input name every violation at once, and what they let through is safe to store."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ApiError
from runtime.validate import Violations, parse_uuid


def bad_request() -> None:
    with Violations() as check:
        check.uuid("id", "x")
        check.text("name", "", max_length=10, min_length=1)
        check.add("stock", "must be from 0 to 1,000")


def test_all_violations_are_in_one_answer() -> None:
    with pytest.raises(ApiError) as caught:
        bad_request()
    assert caught.value.text.count("; ") == 2
    for part in ("id: must be a UUID", "name: must not be empty", "stock: must be from 0 to 1,000"):
        assert part in caught.value.text


def test_another_error_in_the_block_is_not_hidden() -> None:
    check = Violations()
    check.add("name", "is bad")
    with pytest.raises(KeyError), check:
        raise KeyError


def test_a_block_without_violations_passes() -> None:
    with Violations() as check:
        assert check.text("name", "  Käse  ", max_length=4) == "Käse"


@given(st.uuids())
def test_any_uuid_is_read_in_either_case(value: UUID) -> None:
    assert parse_uuid("id", str(value)) == parse_uuid("id", str(value).upper()) == value


@pytest.mark.parametrize(
    "value", ["", "x", "{123e4567-e89b-42d3-a456-426614174000}", "123e4567e89b42d3a456426614174000", "١" * 36]
)
def test_a_uuid_in_another_form_is_refused(value: str) -> None:
    with pytest.raises(ApiError, match="id: must be a UUID"):
        parse_uuid("id", value)


@given(st.text(max_size=30), st.booleans())
def test_text_that_passes_has_no_control_characters_and_its_length(value: str, multiline: bool) -> None:
    try:
        with Violations() as check:
            passed = check.text("name", value, max_length=10, min_length=1, multiline=multiline)
    except ApiError:
        return
    assert 1 <= len(passed) <= 10
    assert "\0" not in passed
    assert multiline or not set(passed) & set("\t\n\r")


class Unread(str):
    """A text that nobody may look into."""

    __slots__ = ()

    def strip(self, *_: Any) -> str:
        raise AssertionError("read before it was measured")

    def __iter__(self) -> Any:
        raise AssertionError("read before it was measured")


def test_text_is_measured_before_it_is_read() -> None:
    with pytest.raises(ApiError, match="name: must be at most 200 characters, not 1,000,000"), Violations() as check:
        check.text("name", Unread("x" * 1_000_000), max_length=200, min_length=1)


def passed(value: str, *, max_length: int = 20, min_length: int = 1, multiline: bool = False) -> str:
    with Violations() as check:
        return check.text("name", value, max_length=max_length, min_length=min_length, multiline=multiline)


@pytest.mark.parametrize(
    "value",
    ["\u3164", "\u2800", "\u115f", "\u1160", "\uffa0", "\u034f", "\u17b5", "\u0301", "\u200b", "\u00a0", "\ufeff",
     "\u2060", "\u180e", "\ue000", "\u00ad", "\ufe0f", "\U000e0100", "\u2800 \u3164\u0301"],
)  # fmt: skip
def test_text_without_visible_characters_is_refused(value: str) -> None:
    with pytest.raises(ApiError, match="name: must not be empty"):
        passed(value)
    assert passed(f"{value}a"), "beside something visible it may be"


@pytest.mark.parametrize("value", ["a", "-", "é", "क्", "👩\u200d🚀", "می\u200cخواهم", "한", "\U0001f381"])
def test_text_of_any_script_is_accepted(value: str) -> None:
    assert passed(value) == value


@pytest.mark.parametrize("value", ["a\u2028b", "a\u2029b", "a\nb", "a\tb", "a\u0085b", "a\u202eb", "a\u2066b"])
def test_single_line_has_no_line_breaks(value: str) -> None:
    with pytest.raises(ApiError, match="must not contain control characters or line breaks"):
        passed(value)


def test_several_lines_may_have_any_line_break() -> None:
    assert passed("a\nb\tc\r\nd\u2028e\u2029f", multiline=True) == "a\nb\tc\r\nd\u2028e\u2029f"


def test_text_is_kept_in_nfc_and_counted_so() -> None:
    assert passed("Cafe\u0301", max_length=4) == "Caf\u00e9"
    with pytest.raises(ApiError, match="at most 4 characters, not 8"):
        passed("\u0958" * 4, max_length=4)  # which Unicode composes no more


def test_marks_that_would_take_long_to_sort_are_refused() -> None:
    assert passed("a" + "\u0316\u0301" * 15, max_length=100)
    with pytest.raises(ApiError, match="more than 30 combining marks in a row"):
        passed("a" + "\u0301\u0316" * 16, max_length=100)
