"""Enforces the limits of requests that the protos state as `buf.validate` rules.

The rules of a file become checks when the process starts, so a call walks no descriptors. Only the kinds of rules that
our protos use are supported. Any other rule is refused at start, so no proto states a limit that is not enforced.

`string.max_len` is for a text, which is checked and normalized as in `Violations.text`. `string.max_bytes` is for a
string that only programs read, such as a page token. It is not normalized.
"""

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runtime.validate import NOT_A_UUID, Violations, is_uuid

_FieldCheck = Callable[[Violations, str, Any], None]
"""Checks one field of a message. Takes the violations, the prefix of the field's path, and the message."""

_Rule = tuple[Callable[[Any], object], str]
"""Returns something true if a value is allowed; and what a violation says if it is not."""


class UnsupportedRule(Exception):
    """A proto has a rule that this module does not enforce."""


class Constraints:
    """The rules of all messages of a proto file."""

    def __init__(self, file: FileDescriptor, *, multiline: Collection[str] = ()) -> None:
        """Compiles the rules.

        Args:
            file: The file with the messages.
            multiline: The names of the text fields that may have several lines.

        Raises:
            UnsupportedRule: A message has a rule that is not supported.
        """
        self._multiline = multiline
        self._checks: dict[type[Message], dict[str, _FieldCheck]] = {}
        for descriptor in file.message_types_by_name.values():
            self._compile(descriptor)

    def enforce(self, message: Message) -> None:
        """Raises INVALID_ARGUMENT with all violations of a message. Normalizes its texts in place."""
        violations = Violations()
        for check in self._checks[type(message)].values():
            check(violations, "", message)
        violations.raise_if_any()

    def check(self, violations: Violations, message: Message, prefix: str = "", fields: Set[str] | None = None) -> None:
        """Adds the violations of a message, and of the messages in it, to `violations`.

        Normalizes texts in place. Clears texts and collections that are refused, so no later check reads them.

        Args:
            violations: Receives the violations.
            message: The message to check.
            prefix: What precedes the names of its fields in a violation, such as `product.`.
            fields: The fields to check; None checks all.
        """
        checks = self._checks[type(message)]
        for check in checks.values() if fields is None else [checks[name] for name in checks if name in fields]:
            check(violations, prefix, message)

    def _compile(self, descriptor: Descriptor) -> Mapping[str, _FieldCheck]:
        """Returns the check of each field that has rules, by name."""
        kind = GetMessageClass(descriptor)
        if kind not in self._checks:
            checks = self._checks[kind] = {}
            if descriptor.GetOptions().HasExtension(validate_pb2.message) or any(
                each.GetOptions().HasExtension(validate_pb2.oneof) for each in descriptor.oneofs
            ):
                raise UnsupportedRule(f"{descriptor.full_name}: rules of messages and oneofs are not supported")
            for field in descriptor.fields:
                if check := self._field(field):
                    checks[field.name] = check
        return self._checks[kind]

    def _field(self, field: FieldDescriptor) -> _FieldCheck | None:
        """Returns the check of a field; None if it and the messages in it have no rules."""
        if field.GetOptions().HasExtension(validate_pb2.predefined):
            raise UnsupportedRule(f"{field.full_name}: predefined rules are not supported")
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.is_repeated:
            return self._repeated(field, _set(field, rules, "repeated").get("repeated", validate_pb2.RepeatedRules()))
        if field.message_type and not rules.ListFields():
            checks = tuple(self._compile(field.message_type).values())
            return _nested(field.name, checks) if checks else None
        if rules.string.HasField("max_len"):
            limits = _set(field, _set(field, rules, "string")["string"], "min_len", "max_len")
            if limits.get("min_len", 0) > 1:
                raise UnsupportedRule(f"{field.full_name}: a min_len above 1 is not supported")
            return _text(field.name, limits["max_len"], limits.get("min_len", 0), field.name in self._multiline)
        rule = _value(field, rules)
        return _scalar(field.name, *rule) if rule else None

    def _repeated(self, field: FieldDescriptor, rules: validate_pb2.RepeatedRules) -> _FieldCheck | None:
        limits = _set(field, rules, "min_items", "max_items", "items")
        if not limits:
            return None
        if "max_items" not in limits:
            raise UnsupportedRule(f"{field.full_name}: repeated rules without max_items are not supported")
        low, high = limits.get("min_items", 0), limits["max_items"]
        if rules.items.ignore == validate_pb2.IGNORE_ALWAYS:
            return _collection(field.name, low, high, ())
        if field.message_type:
            return _collection(field.name, low, high, tuple(self._compile(field.message_type).values()), ".")
        rule = _value(field, rules.items)
        return _collection(field.name, low, high, (_element(*rule),) if rule else ())


def _set(field: FieldDescriptor, rules: Message, *supported: str) -> dict[str, Any]:
    """Returns the rules that are set. Raises UnsupportedRule if they are not all supported, or if one is false."""
    found = {rule.name: value for rule, value in rules.ListFields()}
    for name, value in found.items():
        if name not in supported or value is False:
            raise UnsupportedRule(f"{field.full_name}: {name} is not supported here")
    return found


def _value(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> _Rule | None:
    """Returns the rule for a single value; None if it has none."""
    found = _set(field, rules, "ignore", *_KINDS)
    ignore = found.pop("ignore", validate_pb2.IGNORE_UNSPECIFIED)
    if not found:
        return None
    if len(found) > 1 or ignore not in (validate_pb2.IGNORE_UNSPECIFIED, validate_pb2.IGNORE_IF_ZERO_VALUE):
        raise UnsupportedRule(f"{field.full_name}: this combination of rules is not supported")
    ((kind, rule),) = found.items()
    allows, problem = _KINDS[kind](field, rule)
    if ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return lambda value: not value or allows(value), problem
    return allows, problem


def _string(field: FieldDescriptor, rules: validate_pb2.StringRules) -> _Rule:
    limits = _set(field, rules, "uuid", "max_bytes")
    if limits.keys() == {"uuid"}:
        return is_uuid, NOT_A_UUID
    if limits.keys() == {"max_bytes"}:
        limit: int = limits["max_bytes"]
        problem = f"must be at most {limit:,} bytes"
        return lambda value: len(value) <= limit and (value.isascii() or len(value.encode()) <= limit), problem
    raise UnsupportedRule(f"{field.full_name}: this combination of rules is not supported")


def _number(field: FieldDescriptor, rules: Message) -> _Rule:
    return _range(field, _set(field, rules, "gte", "lte"))


def _duration(field: FieldDescriptor, rules: validate_pb2.DurationRules) -> _Rule:
    limits = _set(field, rules, "gte", "lte")
    allows, problem = _range(field, {name: _seconds(limit) for name, limit in limits.items()})
    return lambda value: allows(_seconds(value)), f"{problem} seconds"


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1_000_000_000


def _enum(field: FieldDescriptor, rules: validate_pb2.EnumRules) -> _Rule:
    limits = _set(field, rules, "defined_only", "not_in")
    if field.enum_type is None or "defined_only" not in limits:
        raise UnsupportedRule(f"{field.full_name}: an enum without defined_only is not supported")
    excluded = limits.get("not_in", ())
    allowed = {value.number: value.name for value in field.enum_type.values if value.number not in excluded}
    return allowed.__contains__, f"must be one of {', '.join(name for number, name in allowed.items() if number)}"


def _required(field: FieldDescriptor, _: bool) -> _Rule:
    if field.type not in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
        raise UnsupportedRule(f"{field.full_name}: required is supported for integers only")
    return bool, "must not be 0"


_KINDS: Mapping[str, Callable[[FieldDescriptor, Any], _Rule]] = {
    "string": _string,
    "int32": _number,
    "int64": _number,
    "double": _number,
    "duration": _duration,
    "enum": _enum,
    "required": _required,
}


def _range(field: FieldDescriptor, limits: Mapping[str, float]) -> _Rule:
    """Returns the rule for a range. `limits` has `gte`, `lte` or both."""
    if not limits:
        raise UnsupportedRule(f"{field.full_name}: a range without a limit is not supported")
    if "lte" not in limits:
        low = limits["gte"]
        return partial(operator.le, low), f"must be at least {low:,.10g}" if low else "must not be negative"
    low, high = limits.get("gte", -math.inf), limits["lte"]
    problem = f"must be from {low:,.10g} to {high:,.10g}" if "gte" in limits else f"must be at most {high:,.10g}"
    return lambda value: low <= value <= high, problem


def _text(name: str, max_length: int, min_length: int, multiline: bool) -> _FieldCheck:
    def check(violations: Violations, prefix: str, message: Any) -> None:
        value = getattr(message, name)
        if not value and not min_length:
            return
        # Most texts are as short and plain as this: there is nothing to normalize or to refuse.
        if len(value) <= max_length and value.isascii() and value.isprintable() and value == value.strip() != "":
            return
        text = violations.text(prefix + name, value, max_length=max_length, min_length=min_length, multiline=multiline)
        if text != value:
            setattr(message, name, text)

    return check


def _scalar(name: str, allows: Callable[[Any], object], problem: str) -> _FieldCheck:
    def check(violations: Violations, prefix: str, message: Any) -> None:
        if not allows(getattr(message, name)):
            violations.add(prefix + name, problem)

    return check


def _element(allows: Callable[[Any], object], problem: str) -> _FieldCheck:
    def check(violations: Violations, path: str, value: Any) -> None:
        if not allows(value):
            violations.add(path, problem)

    return check


def _nested(name: str, checks: Sequence[_FieldCheck]) -> _FieldCheck:
    def check(violations: Violations, prefix: str, message: Any) -> None:
        nested, prefix = getattr(message, name), f"{prefix}{name}."
        for each in checks:
            each(violations, prefix, nested)

    return check


def _collection(name: str, low: int, high: int, checks: Sequence[_FieldCheck], separator: str = "") -> _FieldCheck:
    problem = f"must have {low} to {high} elements" if low else f"must have at most {high} elements"
    paths = [f"{name}[{index}]{separator}" for index in range(high)]  # made once, not for each request

    def check(violations: Violations, prefix: str, message: Any) -> None:
        elements = getattr(message, name)
        if not low <= len(elements) <= high:
            violations.add(prefix + name, f"{problem}, not {len(elements):,}")
            del elements[:]
        elif checks:
            for element, suffix in zip(elements, paths, strict=False):
                path = prefix + suffix
                for each in checks:
                    each(violations, path, element)

    return check
