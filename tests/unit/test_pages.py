"""Page tokens are URL-safe, exact, and bound to the query that began them."""

import base64
import re

import grpc
import pytest
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from runtime import pages
from runtime.errors import ApiError

QUERY = ("search", "category", "name desc")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(), st.floats(allow_nan=False))
def test_keys_survive_a_token_exactly(text: str, number: int, fraction: float) -> None:
    token = pages.encode(QUERY, [text, number, fraction])
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert pages.decode(QUERY, token, (str, int, float)) == [text, number, fraction]


@pytest.mark.parametrize("other", [("search", "category", "name"), ("searc", "hcategory", "name desc"), ()])
def test_a_token_of_another_query_is_refused(other: tuple[str, ...]) -> None:
    with pytest.raises(ApiError, match="another query") as caught:
        pages.decode(other, pages.encode(QUERY, [1]), (int,))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("types", [(), (str,), (float,), (bool,), (int, int)])
def test_keys_of_other_types_are_refused(types: tuple[type, ...]) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        pages.decode(QUERY, pages.encode(QUERY, [1]), types)


@pytest.mark.parametrize("text", ["[" * 2_000, "[" * 100_000, "null", "[]", "9" * 5_000, '["' + "x" * 9_000 + '"]'])
def test_a_forged_token_is_refused_and_never_another_error(text: str) -> None:
    token = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    with pytest.raises(ApiError, match="page token"):
        pages.decode(QUERY, token, (int,))


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_key_that_is_no_text_of_the_database_is_refused(key: str) -> None:
    with pytest.raises(ApiError, match="not a valid page token"):
        pages.decode(QUERY, pages.encode(QUERY, [key]), (str,))


def test_batch_that_is_too_large_says_how_many_fit() -> None:
    large = [wrappers_pb2.BytesValue(value=b"x" * 1_000_000)] * 4
    pages.whole("ids", large[:3])
    with pytest.raises(ApiError, match="ids: the response would be too large; ask for at most 3 at a time"):
        pages.whole("ids", large)


def test_the_longest_name_fits_into_a_token() -> None:
    keys: list[pages.Key] = ["\U0001f381" * 200, "00000000-0000-4000-8000-000000000000"]
    assert pages.decode(QUERY, pages.encode(QUERY, keys), (str, str)) == keys


def test_a_page_ends_before_it_is_too_large_for_a_client() -> None:
    """But never before its first row: the list would not go on."""
    large = wrappers_pb2.BytesValue(value=b"x" * 1_000_000)
    assert pages.fitting([large] * 100) == 3
    assert pages.fitting([wrappers_pb2.BytesValue(value=b"x" * 5_000_000)] * 2) == 1
    assert pages.fitting([]) == 0
    assert pages.fitting([wrappers_pb2.BytesValue()] * 100) == 100


@given(st.text())
def test_nonsense_is_refused_and_never_another_error(token: str) -> None:
    with pytest.raises(ApiError):
        pages.decode(QUERY, token, (int,))


@pytest.mark.parametrize(("asked", "given_"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_a_page_that_is_too_large_is_made_smaller(asked: int, given_: int) -> None:
    assert pages.page_size(asked) == given_
