"""Who may call what: every method of the descriptors, and what each caller must get from it.

The outcomes are written down here once more, by hand, from what the documentation promises. Nothing of runtime/access
is used, so that a mistake there is not repeated. `python -m tests.support.auth_matrix --write` writes docs/api.md's
table.
"""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from shop.access.v1 import access_pb2

from bench import report
from bench.table import markdown

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"
PLACE = "who may call"
"""The name of the place in docs/api.md."""

CARTS = "shop.cart.v1.CartService"
ORDERS = "shop.order.v1.OrderService"


class Identity(StrEnum):
    """What a caller sends to show who it is."""

    NOBODY = "nothing"
    MALFORMED = "a malformed token"
    OTHER_SCHEME = "another scheme than Bearer"
    TWO_TOKENS = "two tokens"
    EXPIRED = "an expired token"
    NOT_YET_VALID = "a token of the future"
    WRONG_AUDIENCE = "a token for another audience"
    WRONG_ISSUER = "a token of another issuer"
    WRONG_KEY = "a token that another key signed"
    UNKNOWN_KEY = "a token of a key that the issuer does not have"
    ALG_NONE = "a token without a signature"
    ALG_HS256 = "a token signed with the public key as a secret"
    OWNER = "the token of the customer whose order or cart it is"
    ANOTHER_CUSTOMER = "another customer's token"
    STAFF = "a token of staff"
    TICKET = "the ticket of the guest's order that it is"
    OTHER_TICKET = "the ticket of another order"
    FORGED_TICKET = "a forged ticket"
    EXPIRED_TICKET = "an expired ticket"
    STREAM_TICKET = "a stream ticket of the order"
    CUSTOMER_WITH_TICKET = "another customer's token, and the order's ticket"
    BAD_TOKEN_WITH_TICKET = "a malformed token, and the order's ticket"
    CART_SECRET = "the secret of the guest's cart that it is"
    OTHER_SECRET = "the secret of another cart"
    WRONG_SECRET = "a wrong secret of a cart"
    CUSTOMER_WITH_SECRET = "another customer's token, and the cart's secret"
    BAD_TOKEN_WITH_SECRET = "a malformed token, and the cart's secret"
    CREDENTIAL = "the credential of the shop's own processes"
    WRONG_CREDENTIAL = "a wrong credential"


BAD_TOKENS = {
    Identity.MALFORMED: "TOKEN_INVALID",
    Identity.OTHER_SCHEME: "TOKEN_INVALID",
    Identity.TWO_TOKENS: "TOKEN_INVALID",
    Identity.EXPIRED: "TOKEN_EXPIRED",
    Identity.NOT_YET_VALID: "TOKEN_INVALID",
    Identity.WRONG_AUDIENCE: "TOKEN_INVALID",
    Identity.WRONG_ISSUER: "TOKEN_INVALID",
    Identity.WRONG_KEY: "TOKEN_INVALID",
    Identity.UNKNOWN_KEY: "TOKEN_INVALID",
    Identity.ALG_NONE: "TOKEN_INVALID",
    Identity.ALG_HS256: "TOKEN_INVALID",
    Identity.BAD_TOKEN_WITH_TICKET: "TOKEN_INVALID",
    Identity.BAD_TOKEN_WITH_SECRET: "TOKEN_INVALID",
}
"""Who sends a token that no method accepts, and the reason."""

CUSTOMERS = (
    *(Identity.OWNER, Identity.ANOTHER_CUSTOMER),
    *(Identity.CUSTOMER_WITH_TICKET, Identity.CUSTOMER_WITH_SECRET),
)

TICKETS = (
    *(Identity.TICKET, Identity.OTHER_TICKET, Identity.FORGED_TICKET, Identity.EXPIRED_TICKET),
    *(Identity.STREAM_TICKET, Identity.CUSTOMER_WITH_TICKET, Identity.BAD_TOKEN_WITH_TICKET),
)
"""Who is about the order of a guest, and not of a customer."""

SECRETS = (
    *(Identity.CART_SECRET, Identity.OTHER_SECRET, Identity.WRONG_SECRET),
    *(Identity.CUSTOMER_WITH_SECRET, Identity.BAD_TOKEN_WITH_SECRET),
)
"""Who is about the cart of a guest, and not of a customer."""

OPENS_GUESTS_CART = (Identity.CART_SECRET, Identity.CUSTOMER_WITH_SECRET)


@dataclass(frozen=True)
class Mode:
    """How a shop is configured."""

    tokens: bool = True
    """AUTH_MODE=jwt."""
    guests: bool = True
    """AUTH_GUESTS=true."""


@dataclass(frozen=True)
class Outcome:
    """What a caller gets."""

    code: str
    reason: str = ""


OK = Outcome("OK")
NO_TOKEN = Outcome("UNAUTHENTICATED", "TOKEN_REQUIRED")
NO_CART = Outcome("NOT_FOUND", "CART_NOT_FOUND")


@dataclass(frozen=True)
class Method:
    """One method, as the descriptors have it."""

    service: str
    """The full name of its service."""
    name: str
    level: str
    """As in access.proto. Methods that are not ours are PUBLIC."""
    guests: str
    descriptor: MethodDescriptor
    """Its types, and whether they are streams."""

    @property
    def full_name(self) -> str:
        """As in `shop.order.v1.OrderService.GetOrder`."""
        return f"{self.service}.{self.name}"

    @property
    def path(self) -> str:
        """The path of a call."""
        return f"/{self.service}/{self.name}"

    @property
    def is_streaming(self) -> bool:
        """Whether it returns a stream of responses."""
        return bool(self.descriptor.server_streaming)

    @property
    def names_an_order(self) -> bool:
        """Whether it is about one order, which the request names."""
        return self.service == ORDERS and bool({"id", "order_id"} & set(self.descriptor.input_type.fields_by_name))

    @property
    def names_a_cart(self) -> bool:
        """Whether it is about one cart, which the request names and the caller opens."""
        return self.service == CARTS and "id" in self.descriptor.input_type.fields_by_name


@cache
def our_files() -> tuple[FileDescriptor, ...]:
    """Returns all our protos: whatever is generated in proto/shop."""
    paths = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto" / "shop").rglob("*_pb2.py"))
    modules = (importlib.import_module(".".join(path.with_suffix("").parts)) for path in paths)
    return tuple(module.DESCRIPTOR for module in modules)


@cache
def methods() -> tuple[Method, ...]:
    """Returns every method that a process of the shop serves."""
    ours = (
        _method(method)
        for file in our_files()
        for service in file.services_by_name.values()
        for method in service.methods
    )
    return (*ours, *_foreign_methods())


def _method(descriptor: MethodDescriptor) -> Method:
    access = descriptor.GetOptions().Extensions[access_pb2.access]
    level, guests = access_pb2.Access.Level.Name(access.level), access_pb2.Access.Guests.Name(access.guests)
    return Method(descriptor.containing_service.full_name, descriptor.name, level, guests, descriptor)


def named(full_name: str) -> Method:
    """Returns a method by its full name."""
    (found,) = (method for method in methods() if method.full_name == full_name)
    return found


def _foreign_methods() -> Iterator[Method]:
    """Yields the methods of the services whose protos are not ours."""
    health, reflection = health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR
    for file, name in (
        (health, "grpc.health.v1.Health"),
        (reflection, "grpc.reflection.v1alpha.ServerReflection"),
        # The messages of v1 are those of v1alpha.
        (reflection, "grpc.reflection.v1.ServerReflection"),
    ):
        service: Any = file.services_by_name[name.rpartition(".")[2]]  # its stub has a type of its own
        for method in service.methods:
            yield Method(name, method.name, "PUBLIC", "GUESTS_UNSPECIFIED", method)


def expected(method: Method, identity: Identity, mode: Mode) -> Outcome:
    """Returns what a service must answer when it is called directly."""
    if method.level == "INTERNAL":
        return _internal(identity)
    if not mode.tokens:
        return _cart_of_guests_only(method, identity) if method.service == CARTS else OK
    if identity in BAD_TOKENS:
        return Outcome("UNAUTHENTICATED", BAD_TOKENS[identity])
    if method.service == CARTS:
        return _cart(method, identity, mode)
    if method.level == "PUBLIC" or identity is Identity.STAFF:
        return OK
    if method.level == "STAFF":
        if identity in CUSTOMERS:
            return Outcome("PERMISSION_DENIED", "STAFF_REQUIRED")
        return NO_TOKEN
    assert method.level == "CUSTOMER", f"{method.full_name} has the level {method.level}"
    if identity in CUSTOMERS:
        return _customer(method, identity, mode)
    return _guest(method, identity, mode)


def _internal(identity: Identity) -> Outcome:
    if identity is Identity.CREDENTIAL:
        return OK
    code = "PERMISSION_DENIED" if identity is Identity.WRONG_CREDENTIAL else "UNAUTHENTICATED"
    return Outcome(code, "CREDENTIAL_REQUIRED")


def _cart(method: Method, identity: Identity, mode: Mode) -> Outcome:
    """Whose cart it is may use it. Staff are customers here."""
    assert method.level == "CUSTOMER", f"{method.full_name} has the level {method.level}"
    is_signed_in = identity in CUSTOMERS or identity is Identity.STAFF
    if not method.names_a_cart:
        if method.name == "MergeCart" and is_signed_in and not mode.guests:
            return NO_CART  # no guest has one
        return OK if is_signed_in or (method.guests == "ALLOWED" and mode.guests) else NO_TOKEN
    if identity is Identity.OWNER or (mode.guests and identity in OPENS_GUESTS_CART):
        return OK
    return NO_CART if is_signed_in or (mode.guests and identity in SECRETS) else NO_TOKEN


def _cart_of_guests_only(method: Method, identity: Identity) -> Outcome:
    """Where no tokens are verified, everybody is a guest, whose secret is the only thing that opens a cart."""
    if method.guests == "GUESTS_UNSPECIFIED":
        return Outcome("FAILED_PRECONDITION", "NOT_SIGNED_IN")
    return OK if not method.names_a_cart or identity in OPENS_GUESTS_CART else NO_CART


def _customer(method: Method, identity: Identity, mode: Mode) -> Outcome:
    if not method.names_an_order or identity is Identity.OWNER:
        return OK
    if identity is Identity.CUSTOMER_WITH_TICKET and method.guests == "WITH_TICKET":
        return OK if mode.guests else Outcome("UNAUTHENTICATED", "TICKET_INVALID")
    return Outcome("NOT_FOUND", "ORDER_NOT_FOUND")


def _guest(method: Method, identity: Identity, mode: Mode) -> Outcome:
    if not mode.guests or method.guests == "GUESTS_UNSPECIFIED":
        return NO_TOKEN
    if method.guests == "ALLOWED":
        return OK
    match identity:
        case Identity.TICKET:
            return OK
        case Identity.OTHER_TICKET:
            return Outcome("NOT_FOUND", "ORDER_NOT_FOUND")
        case Identity.FORGED_TICKET:
            return Outcome("UNAUTHENTICATED", "TICKET_INVALID")
        case Identity.EXPIRED_TICKET:
            return Outcome("UNAUTHENTICATED", "TICKET_EXPIRED")
        case Identity.STREAM_TICKET:
            return OK if method.is_streaming else Outcome("UNAUTHENTICATED", "TICKET_INVALID")
        case _:
            return NO_TOKEN


HTTP = {"OK": 200, "NOT_FOUND": 404, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "FAILED_PRECONDITION": 400}
"""The HTTP status of each code that the matrix has."""

COLUMNS = {
    "no token": Identity.NOBODY,
    "the order's ticket": Identity.TICKET,
    "its stream ticket": Identity.STREAM_TICKET,
    "the cart's secret": Identity.CART_SECRET,
    "customer": Identity.OWNER,
    "another customer": Identity.ANOTHER_CUSTOMER,
    "staff": Identity.STAFF,
}
"""The columns of docs/api.md's table."""


def table() -> str:
    """Returns docs/api.md's table: what each caller gets from each method that the edge routes."""
    rows = [
        [method.name, *(_cell(expected(method, identity, Mode())) for identity in COLUMNS.values())]
        for method in methods()
        if method.level != "INTERNAL" and method.service.startswith("shop.")
    ]
    return markdown(["method", *COLUMNS], rows)


def _cell(outcome: Outcome) -> str:
    return "yes" if outcome == OK else f"{HTTP[outcome.code]} `{outcome.reason}`"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.support.auth_matrix --write")
    report.write(PAGE, PLACE, f"\n{table()}\n")
