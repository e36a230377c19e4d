"""The limits that the protos state are the ones that the services enforce; no other rule can be stated."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from product.domain import MAX_SLUG_LENGTH, MAX_STOCK, WRITABLE
from product.parse import CONSTRAINTS
from runtime.constraints import Constraints, UnsupportedRule
from runtime.errors import ApiError
from runtime.validate import Violations
from tests.support.requests import INTERNAL, PARSERS, PUBLIC, RequestField, max_length, request_fields

NOT_READ = {
    (product_pb2.CreateProductRequest, "product.etag"),  # a new product has no version yet
    (product_pb2.UpdateProductRequest, "product.stock"),  # AdjustStock changes it
}

LIMITED = [
    field
    for field in request_fields(*PUBLIC, *INTERNAL)
    if field.rules.ListFields() and (field.request, field.path) not in NOT_READ
]

FORMATS = {"customer.email": "{}@b", "customer_email": "{}@b", "product.image_uri": "/{}"}
"""What else the value of a text must have to be accepted."""


def samples(limited: RequestField) -> Iterator[tuple[Any, bool]]:
    """Yields values at the limits of a field and beyond them, each with whether it is allowed."""
    rules = limited.rules
    if text := rules.string:
        if text.uuid:
            yield from [("12345678-1234-1234-1234-123456789abc", True), ("12345678", False)]
            yield "", rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE
        shape = FORMATS.get(limited.path, "{}")
        for size in filter(None, (text.max_len, text.max_bytes)):
            for length in (size, size + 1):
                yield shape.format("a" * (length - len(shape.format("")))), length == size
        if text.max_bytes:
            yield "é" * text.max_bytes, False
        if text.min_len:
            yield "", False
    for kind in ("int32", "int64", "double"):
        for bound, beyond in (("gte", -1), ("lte", 1)):
            if rules.HasField(kind) and getattr(rules, kind).HasField(bound):
                value = getattr(getattr(rules, kind), bound)
                yield from [(value, True), (value + beyond, False)]
    if rules.required:
        yield from [(1, True), (-1, True), (0, False)]
    if rules.HasField("enum"):
        assert limited.field.enum_type
        yield from [(value.number, True) for value in limited.field.enum_type.values]
        yield 99, False
    if rules.HasField("duration"):
        for limit, beyond in ((rules.duration.gte, -1), (rules.duration.lte, 1)):
            yield from [((limit.seconds, 0), True), ((limit.seconds + beyond, 0), False)]
    if rules.HasField("repeated"):
        for size in (rules.repeated.min_items - 1, rules.repeated.min_items, rules.repeated.max_items):
            if size >= 0:
                yield size, size >= rules.repeated.min_items
        yield rules.repeated.max_items + 1, False


def with_value(limited: RequestField, value: Any) -> Any:
    """Returns a request in which nothing but the field is set."""
    request: Any = limited.request()
    *parents, name = limited.path.split(".")
    message = request
    for parent in parents:
        message = getattr(message, parent.removesuffix("[]"))
        message = message.add() if parent.endswith("[]") else message
    if limited.field.is_repeated:
        for _ in range(value):
            if limited.field.message_type:
                getattr(message, name).add()
            else:
                getattr(message, name).append("x" if limited.field.type == FieldDescriptor.TYPE_STRING else 1)
    elif limited.field.message_type:
        message.ttl.seconds, message.ttl.nanos = value
    else:
        setattr(message, name, value)
    if limited.request is product_pb2.UpdateProductRequest and name in WRITABLE:
        request.update_mask.paths.append(name)
    return request


def violations(request: Any) -> dict[str, str]:
    """Returns the fields that are refused in a request, each with what is wrong with it."""
    found: dict[str, str] = {}
    for parse in PARSERS[type(request)]:
        try:
            parse(request)
        except ApiError as error:
            bad = error.details[0]
            assert isinstance(bad, error_details_pb2.BadRequest)
            found = {each.field: each.description for each in bad.field_violations} | found
    return found


A_LIMIT = re.compile("must (be a UUID|be at (most|least)|be from|be one of [A-Z]|have|not be (empty|negative|0$))")


@pytest.mark.parametrize("limited", LIMITED, ids=lambda each: f"{each.request.__name__}.{each.path}")
def test_limit_in_proto_is_enforced(limited: RequestField) -> None:
    path = limited.path.replace("[]", "[0]")
    checked = list(samples(limited))
    assert not all(allowed for _, allowed in checked), "a rule without a sample that breaks it proves nothing"
    for value, allowed in checked:
        found = violations(with_value(limited, value))
        assert (path in found and bool(A_LIMIT.match(found[path]))) is not allowed, (value, found)


def test_every_request_has_a_parser() -> None:
    services = (*PUBLIC, *INTERNAL)
    assert {kind.DESCRIPTOR.full_name for kind in PARSERS} == {
        method.input_type.full_name for service in services for method in service.methods
    }


def test_elements_are_checked_and_named_by_index() -> None:
    request = product_pb2.BatchGetProductsRequest(ids=["12345678-1234-1234-1234-123456789abc", "x"])
    assert violations(request).keys() == {"ids[1]"}


@pytest.mark.parametrize("star", [float("nan"), float("inf"), -0.1, 5.1])
def test_number_outside_its_range_is_refused(star: float) -> None:
    with pytest.raises(ApiError, match=r"product\.star: must be from 0 to 5"), Violations() as found:
        CONSTRAINTS.check(found, product_pb2.Product(star=star), "product.", {"star"})


def test_text_is_normalized_in_place() -> None:
    product = product_pb2.Product(name="  Cafe\u0301 ")
    CONSTRAINTS.check(Violations(), product, fields={"name"})
    assert product.name == "Caf\u00e9"


def test_refused_value_is_cleared() -> None:
    """So that a later check does not read a megabyte."""
    request = order_pb2.CreateOrderRequest(notes="x" * 1_000_000)
    request.items.extend([order_pb2.CreateOrderItem()] * 1_000)
    with pytest.raises(ApiError):
        Constraints(order_pb2.DESCRIPTOR).enforce(request)
    assert (request.notes, len(request.items)) == ("", 0)


def test_domain_has_the_limits_of_the_protos() -> None:
    """The domain does not read protos, so it has its own copy of what it needs."""
    stock = product_pb2.Product.DESCRIPTOR.fields_by_name["stock"].GetOptions().Extensions[validate_pb2.field]
    assert stock.int64.lte == MAX_STOCK
    assert max_length(product_pb2.Product, "slug") == MAX_SLUG_LENGTH


def compile_rules(kind: str, rules: str, label: str = "optional") -> None:
    """Compiles the rules of a message with one field."""
    file = text_format.Parse(
        f"""
        name: "test.proto" package: "test" syntax: "proto3" dependency: "buf/validate/validate.proto"
        message_type {{
          name: "Request"
          field {{
            name: "field" number: 1 type: TYPE_{kind}
            label: LABEL_{label.upper()}
            options {{ [buf.validate.field] {{ {rules} }} }}
          }}
        }}""",
        descriptor_pb2.FileDescriptorProto(),
    )
    pool = descriptor_pool.DescriptorPool()
    for name in ("descriptor", "duration", "field_mask", "timestamp"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(f"google/protobuf/{name}.proto").serialized_pb)
    pool.AddSerializedFile(validate_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    Constraints(pool.FindFileByName("test.proto"))


@pytest.mark.parametrize(
    ("kind", "rules", "label"),
    [
        ("STRING", "string { email: true }", "optional"),
        ("STRING", "string { max_len: 5 pattern: 'x' }", "optional"),
        ("STRING", "string { min_len: 2 max_len: 5 }", "optional"),
        ("STRING", "string { min_len: 1 }", "optional"),
        ("STRING", "string { uuid: true max_bytes: 36 }", "optional"),
        ("STRING", "string { max_len: 5 } ignore: IGNORE_IF_ZERO_VALUE", "optional"),
        ("STRING", "string { uuid: true } ignore: IGNORE_ALWAYS", "optional"),
        ("STRING", "required: true", "optional"),
        ("STRING", "cel { id: 'x' expression: 'true' }", "optional"),
        ("INT32", "int32 { gt: 0 }", "optional"),
        ("INT32", "int32 { in: 1 }", "optional"),
        ("INT32", "int32 { }", "optional"),
        ("INT32", "required: false", "optional"),
        ("STRING", "string { uuid: false }", "optional"),
        ("INT32", "int32 { gte: 1 } required: true", "optional"),
        ("BOOL", "bool { const: true }", "optional"),
        ("STRING", "repeated { unique: true max_items: 5 }", "repeated"),
        ("STRING", "repeated { min_items: 1 }", "repeated"),
        ("STRING", "repeated { max_items: 5 items { string { email: true } } }", "repeated"),
    ],
)
def test_rule_that_is_not_enforced_is_refused_at_start(kind: str, rules: str, label: str) -> None:
    with pytest.raises(UnsupportedRule, match=r"test\.Request\.field"):
        compile_rules(kind, rules, label)


@pytest.mark.parametrize("rules", ["string { uuid: true }", "string { max_len: 5 }", "string { max_bytes: 5 }"])
def test_rule_that_is_enforced_is_accepted(rules: str) -> None:
    compile_rules("STRING", rules)
