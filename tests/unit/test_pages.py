"""Pages: tokens are URL-safe, exact, and bound to their query; a page fits into a response."""

import base64
import re
from datetime import UTC, datetime
from uuid import UUID

import grpc
import pytest
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from runtime import pages
from runtime.errors import ApiError
from runtime.pages import Cursor, SortKey

QUERY = ("search", "category", "name desc")
ID = UUID("00000000-0000-4000-8000-000000000000")
TIMES = st.datetimes(timezones=st.just(UTC))


def token(*keys: SortKey, query: tuple[str, ...] = QUERY) -> str:
    return Cursor(query, ()).token(keys)


def forged(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.integers(),
    st.floats(allow_nan=False),
    TIMES,
    st.uuids(),
)
def test_keys_survive_a_token_exactly(text: str, number: int, fraction: float, time: datetime, identity: UUID) -> None:
    keys = (text, number, fraction, time, identity)
    written = token(*keys)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", written)
    assert Cursor.parse(written, QUERY, (str, int, float, datetime, UUID)).after == keys


@pytest.mark.parametrize("other", [("search", "category", "name"), ("searc", "hcategory", "name desc"), ()])
def test_token_of_another_query_is_rejected(other: tuple[str, ...]) -> None:
    with pytest.raises(ApiError, match="different query") as caught:
        Cursor.parse(token(1), other, (int,))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("types", [(), (str,), (float,), (bool,), (int, int), (UUID,)])
def test_keys_of_other_types_are_rejected(types: tuple[type[SortKey], ...]) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        Cursor.parse(token(1), QUERY, types)


@pytest.mark.parametrize("text", ["[" * 2_000, "[" * 100_000, "null", "[]", "9" * 5_000, '["' + "x" * 9_000 + '"]'])
def test_forged_token_is_rejected(text: str) -> None:
    with pytest.raises(ApiError, match="page token"):
        Cursor.parse(forged(text), QUERY, (int,))


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_key_that_postgresql_cannot_store_is_rejected(key: str) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        Cursor.parse(token(key), QUERY, (str,))


@pytest.mark.parametrize("microseconds", [10**18, -(10**30), 10**400])
def test_time_that_is_too_far_away_is_rejected(microseconds: int) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        Cursor.parse(token(microseconds), QUERY, (datetime,))


def test_token_of_an_older_release_is_valid() -> None:
    """During a rollout, a client may get one page from the older release and the next one from this release."""
    older = forged(f'["54bd6bed67dfdb38",1795399384567891,"{ID}"]')
    expected = (datetime(2026, 11, 23, 2, 3, 4, 567891, UTC), ID)
    assert Cursor.parse(older, QUERY, (datetime, UUID)).after == expected
    assert token(*expected) == older


def test_time_may_be_text_with_a_time_zone() -> None:
    """Lists of expired holds have it so."""
    written = token("2026-11-23T04:03:04.567891+02:00", ID)
    expected = (datetime(2026, 11, 23, 2, 3, 4, 567891, UTC), ID)
    assert Cursor.parse(written, QUERY, (datetime, UUID)).after == expected


@pytest.mark.parametrize("text", ["", "1", "2026-11-23T02:03:04", "0001-01-01T00:00:00+23:00"])
def test_text_that_is_no_time_is_rejected(text: str) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        Cursor.parse(token(text), QUERY, (datetime,))


def test_empty_token_is_the_first_page() -> None:
    assert Cursor.parse("", QUERY, (str,)).after is None


def test_batch_that_is_too_large_says_how_many_fit() -> None:
    large = [wrappers_pb2.BytesValue(value=b"x" * 1_000_000)] * 4
    pages.check_batch_fits("ids", large[:3])
    with pytest.raises(ApiError, match="ids: the response would be too large; request at most 3 at a time"):
        pages.check_batch_fits("ids", large)


def test_longest_name_fits_into_a_token() -> None:
    keys = ("\U0001f381" * 200, ID)
    assert Cursor.parse(token(*keys), QUERY, (str, UUID)).after == keys


def test_page_ends_before_it_is_too_large() -> None:
    """But never before its first row: the list would not go on."""
    large = wrappers_pb2.BytesValue(value=b"x" * 1_000_000)
    assert pages.count_fitting([large] * 100) == 3
    assert pages.count_fitting([wrappers_pb2.BytesValue(value=b"x" * 5_000_000)] * 2) == 1
    assert pages.count_fitting([]) == 0
    assert pages.count_fitting([wrappers_pb2.BytesValue()] * 100) == 100


@given(st.text())
def test_random_text_is_rejected_as_a_token(text: str) -> None:
    if text:
        with pytest.raises(ApiError):
            Cursor.parse(text, QUERY, (int,))


@pytest.mark.parametrize(("requested", "size"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_page_size_is_lowered_to_the_maximum(requested: int, size: int) -> None:
    assert pages.page_size(requested) == size
