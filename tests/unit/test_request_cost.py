"""However large a request is, a service refuses or reads it in no time: its other calls wait meanwhile."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from runtime.errors import ApiError
from tests.support.requests import PARSERS

MAX_SECONDS = 0.02
"""Of CPU. Letter by letter, a text of a megabyte takes several times as long."""

LONG_TEXTS = ("é" * 500_000, " " * 1_000_000, "a " * 500_000, "\u0301\u0316" * 250_000, '"' * 1_000_000)
MANY = 100_000


def grown(message: Message, root: Message) -> Iterator[tuple[str, Message]]:
    """The request once for each text in it that can be long, and for each collection that can be large."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                value.add()
                yield from grown(value[0], root)
                for _ in range(MANY):
                    value.add()
            else:
                if field.type == FieldDescriptor.TYPE_STRING:
                    value.append(LONG_TEXTS[0])
                    yield f"{field.full_name} with a long text", root
                value.extend([1 if field.type == FieldDescriptor.TYPE_ENUM else "x"] * MANY)
            yield f"many {field.full_name}", root
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            value.SetInParent()
            yield from grown(value, root)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for text in LONG_TEXTS:
                setattr(message, field.name, text)
                yield f"{field.full_name} of {len(text)} × {text[:2]!r}", root
            message.ClearField(field.name)


@pytest.mark.parametrize(("kind", "readers"), PARSERS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_large_request_costs_nothing(kind: type[Message], readers: list[Callable[[Any], Any]]) -> None:
    request = kind()
    slow = []
    for what, message in grown(request, request):
        started = time.thread_time()
        for read in readers:
            try:
                read(message)
            except ApiError:
                continue
        if (taken := time.thread_time() - started) > MAX_SECONDS:
            slow.append(f"{what}: {taken * 1000:.0f} ms")
    assert not slow
