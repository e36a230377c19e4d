"""The documentation has what the code has."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

import order.parse
import product.parse
from runtime.errors import ApiError

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


def limits() -> Iterator[tuple[str, int]]:
    """The fields of the table in docs/api.md, each with its limit."""
    table = (ROOT / "docs" / "api.md").read_text().split("| field | at most |")[1].split("\n\n")[0]
    for names, limit in re.findall(r"^\| (`.+`) \| ([0-9,]+)", table, re.MULTILINE):
        for name in re.findall(r"`([a-z_.]+)`", names):
            yield name, int(limit.replace(",", ""))


READERS: dict[str, tuple[type[Message], Callable[[Any], Any]]] = {
    "product": (product_pb2.CreateProductRequest, lambda message: product.parse.new_product(message.product)),
    "search": (product_pb2.ListProductsRequest, product.parse.listing),
    "category": (product_pb2.ListProductsRequest, product.parse.listing),
    "ids": (product_pb2.BatchGetProductsRequest, product.parse.batch_ids),
    "update_mask": (product_pb2.UpdateProductRequest, product.parse.changes),
    "customer_email": (order_pb2.ListOrdersRequest, order.parse.listing),
    "number": (order_pb2.ListOrdersRequest, order.parse.listing),
}


def violations(field: str, size: int) -> str:
    """What a request with a field of that size is told."""
    kind, read = READERS.get(field.split(".", maxsplit=1)[0], (order_pb2.CreateOrderRequest, order.parse.draft))
    message: Any = kind()
    *path, last = field.split(".")
    parent = message
    for each in path:
        parent = getattr(parent, each)
    value = getattr(parent, last)
    if last == "update_mask":
        value.paths.extend(["name"] * size)
    elif last == "items":
        for _ in range(size):
            value.add()
    elif last == "ids":
        value.extend(["x"] * size)
    elif isinstance(value, str):
        setattr(parent, last, {"image_uri": "/" + "a" * (size - 1)}.get(last) or _filled(last, size))
    else:
        setattr(parent, last, size)
    try:
        read(message)
    except ApiError as error:
        return error.text
    return ""


def _filled(field: str, size: int) -> str:
    return "a" * (size - 2) + "@b" if "email" in field else "a" * size


@pytest.mark.parametrize(("field", "limit"), list(limits()))
def test_every_documented_limit_is_the_one_enforced(field: str, limit: int) -> None:
    named = re.compile(rf"(^|; ){re.escape(field)}: must (have 1 to|have at most|be at most|be from)")
    assert named.search(violations(field, limit + 1))
    assert not named.search(violations(field, limit))
