"""Every method of every proto says who may call it, and each level was reviewed."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from shop.access.v1 import access_pb2

from runtime.access.rules import FOREIGN, Guests, Level, NoRuleError, Rule, rule_in, rule_of
from runtime.guard import Guarded
from tests.support.access import open_gate
from tests.support.auth_matrix import methods, our_files, table

ROOT = Path(__file__).resolve().parents[2]

REVIEWED = {
    "shop.cart.v1.CartService": {
        "CreateCart": "CUSTOMER ALLOWED",
        "GetCart": "CUSTOMER WITH_SECRET",
        "GetMyCart": "CUSTOMER",
        "AddCartItem": "CUSTOMER WITH_SECRET",
        "SetCartItem": "CUSTOMER WITH_SECRET",
        "ClearCart": "CUSTOMER WITH_SECRET",
        "DeleteCart": "CUSTOMER WITH_SECRET",
        "MergeCart": "CUSTOMER",
        "CheckoutCart": "CUSTOMER WITH_SECRET",
    },
    "shop.order.v1.OrderService": {
        "CreateOrder": "CUSTOMER ALLOWED",
        "GetOrder": "CUSTOMER WITH_TICKET",
        "ListOrders": "CUSTOMER",
        "ProcessOrder": "STAFF",
        "DeliverOrder": "STAFF",
        "ReceiveOrder": "STAFF",
        "CancelOrder": "CUSTOMER",
        "StreamOrderStatus": "CUSTOMER WITH_TICKET",
        "CreateOrderTicket": "CUSTOMER WITH_TICKET",
    },
    "shop.order.v1.StatusFeedService": {
        "FollowOrders": "INTERNAL",
        "AuthorizeStream": "INTERNAL",
    },
    "shop.product.v1.ProductService": {
        "CreateProduct": "STAFF",
        "GetProduct": "PUBLIC",
        "BatchGetProducts": "PUBLIC",
        "ListProducts": "PUBLIC",
        "UpdateProduct": "STAFF",
        "DeleteProduct": "STAFF",
        "UndeleteProduct": "STAFF",
        "ListCategories": "PUBLIC",
        "AdjustStock": "STAFF",
    },
    "shop.product.v1.StockService": {
        "ReserveStock": "INTERNAL",
        "ConfirmReservation": "INTERNAL",
        "ReleaseReservation": "INTERNAL",
        "BatchReserveStock": "INTERNAL",
        "BatchConfirmReservations": "INTERNAL",
        "BatchReleaseReservations": "INTERNAL",
        "ListExpiredReservations": "INTERNAL",
        "BatchGetReservations": "INTERNAL",
        "ListReservations": "INTERNAL",
        "BatchGetOffers": "INTERNAL",
        "PairDatabases": "INTERNAL",
    },
    "grpc.health.v1.Health": {"Check": "PUBLIC", "Watch": "PUBLIC"},
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": "PUBLIC"},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": "PUBLIC"},
}
"""Who may call each method, as somebody has reviewed it."""

REVIEW = """the levels of methods are not those that were reviewed. Before you change this table, check each method:
- PUBLIC: does everybody on the internet need it, and does it show nothing of any customer?
- CUSTOMER: does its store compare the owner, and is what belongs to another NOT_FOUND? What may guests do?
- STAFF: does no customer need it?
- INTERNAL: is its service one that the edge does not route?
Then add a request to tests/support/auth_requests.py, and run `python -m tests.support.auth_matrix --write`."""


def served() -> dict[str, dict[str, str]]:
    """Returns the levels as the servers enforce them."""
    found: dict[str, dict[str, str]] = {}
    for method in methods():
        rule = rule_of(method.path)
        text = rule.level if rule.guests is Guests.NO else f"{rule.level} {rule.guests}"
        found.setdefault(method.service, {})[method.name] = text
    return found


def test_every_level_was_reviewed() -> None:
    assert served() == REVIEWED, REVIEW


def test_every_proto_is_found() -> None:
    """Otherwise the other tests would pass over its methods."""
    protos = {str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")}
    assert {file.name for file in our_files()} == protos


def test_rules_are_those_of_the_options() -> None:
    """The matrix reads the options by itself."""
    for method in methods():
        assert rule_of(method.path) == Rule(Level(method.level), Guests(method.guests)), method.full_name


def test_rules_of_foreign_services_are_for_those_only() -> None:
    """A service of ours there would not be asked for its options."""
    assert not [service for service in FOREIGN if service.startswith("shop.")]


def test_documented_table_is_that_of_the_descriptors() -> None:
    documented = (ROOT / "docs" / "api.md").read_text()
    assert table() in documented, "run `python -m tests.support.auth_matrix --write`"


def described(level: int, guests: int = 0) -> MethodDescriptor:
    """Returns a method with these options; without any if the level is 0."""
    file = descriptor_pb2.FileDescriptorProto(name="new.proto", package="new", syntax="proto3")
    file.message_type.add(name="Nothing")
    method = file.service.add(name="New").method.add(name="Call", input_type=".new.Nothing", output_type=".new.Nothing")
    if level:
        option: Any = method.options.Extensions[access_pb2.access]
        option.level, option.guests = level, guests
    pool = DescriptorPool()
    for needed in (descriptor_pb2.DESCRIPTOR, access_pb2.DESCRIPTOR):
        pool.AddSerializedFile(needed.serialized_pb)
    pool.Add(file)
    return pool.FindMethodByName("new.New.Call")


def test_method_without_a_level_has_no_rule() -> None:
    with pytest.raises(NoRuleError, match=r"new\.New\.Call lacks the option shop\.access\.v1\.access"):
        rule_in(described(0))


@pytest.mark.parametrize("level", ["PUBLIC", "STAFF", "INTERNAL"])
def test_guests_are_for_customer_methods_only(level: str) -> None:
    number = access_pb2.Access.Level.Value(level)
    assert rule_in(described(number)) == Rule(Level(level))
    for guests in (access_pb2.Access.ALLOWED, access_pb2.Access.WITH_TICKET, access_pb2.Access.WITH_SECRET):
        with pytest.raises(NoRuleError, match="`guests` is for methods of the level CUSTOMER"):
            rule_in(described(number, guests))


@pytest.mark.parametrize("service", ["shop.order.v1.OrderService", "new.New"])
async def test_method_without_a_rule_cannot_be_served(service: str) -> None:
    """The process does not start."""
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    with pytest.raises(NoRuleError, match=f"/{service}/Unknown has no descriptor"):
        Guarded(grpc.aio.server(), open_gate()).add_registered_method_handlers(service, {"Unknown": handler})
