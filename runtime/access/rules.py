"""Which method is open to whom, from the descriptors: the option `shop.access.v1.access` of each method."""

from dataclasses import dataclass
from enum import StrEnum

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from shop.access.v1 import access_pb2


class Level(StrEnum):
    """Who may call a method. access.proto describes the levels."""

    PUBLIC = "PUBLIC"
    CUSTOMER = "CUSTOMER"
    STAFF = "STAFF"
    INTERNAL = "INTERNAL"


class Guests(StrEnum):
    """Whether guests may call a method for customers."""

    NO = "GUESTS_UNSPECIFIED"
    ALLOWED = "ALLOWED"
    WITH_TICKET = "WITH_TICKET"
    WITH_SECRET = "WITH_SECRET"  # noqa: S105 - a value of the contract


@dataclass(frozen=True)
class Rule:
    """Who may call a method."""

    level: Level
    guests: Guests = Guests.NO


class NoRuleError(Exception):
    """A method does not say who may call it, so it cannot be served."""


FOREIGN: dict[str, Rule] = {
    "grpc.health.v1.Health": Rule(Level.PUBLIC),
    "grpc.reflection.v1.ServerReflection": Rule(Level.PUBLIC),
    "grpc.reflection.v1alpha.ServerReflection": Rule(Level.PUBLIC),
}
"""The rules of services whose protos are not ours, by service."""


def rule_of(method: str) -> Rule:
    """Returns the rule of a method.

    Args:
        method: The full name of the method, as in `/shop.order.v1.OrderService/GetOrder`.

    Raises:
        NoRuleError: The method is unknown, or its descriptor has no level.
    """
    service, _, name = method.removeprefix("/").partition("/")
    if service in FOREIGN:
        return FOREIGN[service]
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        raise NoRuleError(f"{method} has no descriptor") from None
    return rule_in(descriptor)


def rule_in(descriptor: MethodDescriptor) -> Rule:
    """Returns the rule in the options of a method. Raises NoRuleError if there is none, or one that makes no sense."""
    access = descriptor.GetOptions().Extensions[access_pb2.access]
    if access.level == access_pb2.Access.LEVEL_UNSPECIFIED:
        raise NoRuleError(f"{descriptor.full_name} lacks the option shop.access.v1.access")
    level = Level(access_pb2.Access.Level.Name(access.level))
    guests = Guests(access_pb2.Access.Guests.Name(access.guests))
    if guests is not Guests.NO and level is not Level.CUSTOMER:
        raise NoRuleError(f"{descriptor.full_name}: `guests` is for methods of the level CUSTOMER")
    return Rule(level, guests)
