"""Rows of the database as dataclasses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from psycopg import AsyncCursor

Row = TypeVar("Row")

Conversion = Callable[[Any], Any]


@dataclass(frozen=True)
class _Layout:
    """How the columns of a result become the fields of a dataclass."""

    names: tuple[str, ...]
    """The fields in the sequence of the columns."""
    conversions: tuple[tuple[str, Conversion], ...]
    """The fields whose type the driver does not know."""


def instance(kind: type[Row], values: Mapping[str, Any]) -> Row:
    """Returns a dataclass with these fields.

    It does not call `__init__`, which makes a call for each field of a frozen dataclass, and takes several times as
    long.
    """
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


def rows_of(kind: type[Row]) -> Callable[[AsyncCursor[Row]], Callable[[Sequence[Any]], Row]]:
    """Returns a row factory: instances of a dataclass whose fields are the columns, in any sequence.

    A text becomes a StrEnum if the field is one, and a JSON array of objects becomes a list of dataclasses.

    It replaces psycopg's `class_row`, which describes every column of every result first, and calls `__init__`:
    together that takes longer than reading twenty rows.
    """

    def factory(cursor: AsyncCursor[Row]) -> Callable[[Sequence[Any]], Row]:
        names: tuple[str, ...] = ()
        conversions: tuple[tuple[str, Conversion], ...] = ()
        if (result := cursor.pgresult) and result.nfields:
            layout = _layout(kind, tuple([result.fname(n) for n in range(result.nfields)]))
            names, conversions = layout.names, layout.conversions

        def row(values: Sequence[Any]) -> Row:
            made = object.__new__(kind)
            attributes = made.__dict__
            attributes.update(zip(names, values, strict=True))
            for name, convert in conversions:
                attributes[name] = convert(attributes[name])
            return made

        return row

    return factory


_known: dict[tuple[type[Any], tuple[bytes | None, ...]], _Layout] = {}


def _layout(kind: type[Any], columns: tuple[bytes | None, ...]) -> _Layout:
    """Returns the layout of a result. Raises TypeError if its columns are not exactly the dataclass's fields."""
    layout = _known.get((kind, columns))
    if layout is None:
        names = tuple([(column or b"").decode() for column in columns])
        if sorted(names) != sorted(field.name for field in fields(kind)):
            raise TypeError(f"{kind.__name__} has other fields than {', '.join(names)}")
        hints = get_type_hints(kind)
        found = {name: _conversion(hints[name]) for name in names}
        layout = _Layout(names, tuple((name, convert) for name, convert in found.items() if convert))
        _known[kind, columns] = layout
    return layout


def _conversion(hint: Any) -> Conversion | None:
    """Returns what makes a value of the annotated type from the driver's value; None if the driver does it."""
    arguments = get_args(hint)
    if get_origin(hint) is list and isinstance(element := arguments[0], type) and is_dataclass(element):
        return lambda values: [instance(element, each) for each in values]
    for each in arguments or (hint,):
        if isinstance(each, type) and issubclass(each, StrEnum):
            members: dict[str | None, StrEnum | None] = {member.value: member for member in each}
            if type(None) in arguments:
                members[None] = None
            return members.__getitem__
    return None


async def fetch_rows(cursor: AsyncCursor[Row]) -> list[Row]:
    """Returns the rows of a statement that has run; none if it returns no rows."""
    result = cursor.pgresult
    return await cursor.fetchall() if result and result.nfields else []
