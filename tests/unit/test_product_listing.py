"""Lists of products: how they can be sorted, where a page begins, and how words are searched."""

from uuid import UUID

import pytest

from product.listing import SORTS, ProductQuery, parse_order_by
from product.search import like_patterns
from runtime.errors import ApiError
from tests.support.example import ID, NOW, PRODUCT


@pytest.mark.parametrize("order_by", ["create_time", "name", "price", "star"])
def test_position_survives_its_token_exactly(order_by: str) -> None:
    """To the microsecond: a rounded key would skip rows or repeat them."""
    query = ProductQuery(sort=parse_order_by(f"  {order_by}   desc "))
    position = query.sort.position(PRODUCT)
    assert tuple(map(type, position)) == (query.sort.type, UUID)
    expected = {"create_time": NOW, "name": "Steel watch", "price": 12_500_000, "star": 4.5}[order_by]
    assert position == (expected, ID)
    assert query.cursor(query.cursor("").token(position)).after == position


@pytest.mark.parametrize(
    ("order_by", "text"),
    [
        ("", "create_time desc"),
        ("createTime", "create_time"),
        ("createTime desc", "create_time desc"),
        ("price DESC", "price desc"),
        ("  price\tDesc ", "price desc"),
        ("name asc", "name"),
        ("name ASC", "name"),
    ],
)
def test_order_by_is_read_in_every_spelling(order_by: str, text: str) -> None:
    assert parse_order_by(order_by).order_by == text


@pytest.mark.parametrize(
    "order_by",
    ["create_Time", "CREATETIME", "NAME", "name desc asc", "name,price", "-name", "desc"],
)
def test_order_by_of_no_field_is_rejected(order_by: str) -> None:
    with pytest.raises(ApiError, match="order_by: must be one of"):
        parse_order_by(order_by)


def test_words_become_patterns_longest_first() -> None:
    """Those that the trigram index cannot find are separate."""
    assert like_patterns("of Gold  of 50%_\\ golden") == (["%golden%", "%Gold%"], ["%50\\%\\_\\\\%", "%of%"])
    assert like_patterns("a-b-c gw-0815 größ 手机 x_yz") == (
        ["%gw-0815%", "%größ%"],
        ["%a-b-c%", "%x\\_yz%", "%手机%"],
    )
    assert like_patterns(" \t\n") == ([], [])


def test_sorts_have_different_names() -> None:
    assert {sort.order_by for sort in SORTS} == {
        field + direction for field in ("create_time", "name", "price", "star") for direction in ("", " desc")
    }
