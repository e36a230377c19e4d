"""Lists of products: what they can be filtered and sorted by."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from product.domain import Product
from runtime.errors import invalid_argument
from runtime.pages import Cursor, Position, SortKey


@dataclass(frozen=True, eq=False)
class Sort:
    """A way to sort products. Each way exists once, so two are compared by identity.

    Attributes:
        order_by: Its name in requests and in page tokens.
        sql: The columns to sort by. The id decides between equal products.
        after: The condition for the rows after a position, `%(key)s` and `%(id)s`.
        type: The type of the first sort key.
        key: Returns the first sort key of a product.
    """

    order_by: str
    sql: LiteralString
    after: LiteralString
    type: type[SortKey]
    key: Callable[[Product], SortKey]

    def position(self, product: Product) -> Position:
        """Returns the place of a product in the list."""
        return self.key(product), product.id


def _both_ways(
    field: LiteralString,
    column: LiteralString,
    kind: type[SortKey],
    key: Callable[[Product], SortKey],
    value: LiteralString = "%(key)s",
) -> tuple[Sort, Sort]:
    return (
        Sort(field, f"{column}, id", f"({column}, id) > ({value}, %(id)s)", kind, key),
        Sort(f"{field} desc", f"{column} DESC, id DESC", f"({column}, id) < ({value}, %(id)s)", kind, key),
    )


SORTS = (
    *_both_ways("create_time", "create_time", datetime, lambda product: product.create_time),
    *_both_ways("name", "lower(name)", str, lambda product: product.name, "lower(%(key)s COLLATE pg_c_utf8)"),
    *_both_ways("price", "price_micros", int, lambda product: product.price_micros),
    *_both_ways("star", "star", float, lambda product: product.star),
)
"""Each has an index of its own, with and without a category before it."""

_BY_NAME = {sort.order_by: sort for sort in SORTS}

NEWEST_FIRST = _BY_NAME["create_time desc"]


@dataclass(frozen=True)
class ProductQuery:
    """Which live products a list has, and how it is sorted. An empty field filters nothing."""

    search: str = ""
    category: str = ""
    sort: Sort = NEWEST_FIRST

    def cursor(self, page_token: str) -> Cursor:
        """Returns where a page of this list begins.

        Raises:
            ApiError: INVALID_ARGUMENT if it is not a page token of this query.
        """
        return Cursor.parse(page_token, (self.search, self.category, self.sort.order_by), (self.sort.type, UUID))


@dataclass(frozen=True)
class Listing:
    """A request for a page of products. Equal ones share one read."""

    query: ProductQuery
    page_token: str
    size: int


def parse_order_by(order_by: str) -> Sort:
    """Reads `order_by`: a field, alone or followed by `asc` or `desc`. Empty: the newest product first.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    words = order_by.split(maxsplit=2)
    if not words:
        return NEWEST_FIRST
    field = "create_time" if words[0] == "createTime" else words[0]  # as REST spells it
    direction = " ".join(words[1:]).lower()
    sort = _BY_NAME.get(f"{field} desc" if direction == "desc" else field)
    if sort is None or direction not in ("", "asc", "desc"):
        text = "must be one of name, price, create_time, star, alone or followed by ' desc'"
        raise invalid_argument([("order_by", text)])
    return sort
