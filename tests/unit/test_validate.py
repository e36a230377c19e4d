"""Checks of input name every violation at once, and what they let through is safe to store."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ApiError
from runtime.validate import Violations, parse_uuid


def bad_request() -> None:
    with Violations() as check:
        check.uuid("id", "x")
        check.text("name", "", most=10, least=1)
        check.within("stock", -1, 0, 1_000)


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
        assert check.text("name", "  Käse  ", most=4) == "Käse"


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
def test_text_that_passes_has_no_control_characters_and_its_length(value: str, lines: bool) -> None:
    try:
        with Violations() as check:
            passed = check.text("name", value, most=10, least=1, lines=lines)
    except ApiError:
        return
    assert 1 <= len(passed) <= 10
    assert "\0" not in passed
    assert lines or not set(passed) & set("\t\n\r")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 5.1])
def test_a_number_outside_is_refused(value: float) -> None:
    with pytest.raises(ApiError, match="star: must be from 0 to 5"), Violations() as check:
        check.within("star", value, 0, 5)
