"""Rows of the database as dataclasses."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from psycopg import AsyncCursor

Row = TypeVar("Row")


def rows_of(kind: type[Row]) -> Callable[[AsyncCursor[Row]], Callable[[Sequence[Any]], Row]]:
    """A row factory: instances of a dataclass whose fields are the columns, in any sequence.

    As psycopg's `class_row`, which describes every column of every result first, and calls `__init__`, which in a
    frozen dataclass calls once more for each field: together more than it takes to read twenty rows.
    """

    def factory(cursor: AsyncCursor[Row]) -> Callable[[Sequence[Any]], Row]:
        names: tuple[str, ...] = ()
        if (result := cursor.pgresult) and result.nfields:
            names = _names(kind, tuple([result.fname(n) for n in range(result.nfields)]))

        def row(values: Sequence[Any]) -> Row:
            made = object.__new__(kind)
            made.__dict__.update(zip(names, values, strict=True))
            return made

        return row

    return factory


_known: dict[tuple[type[Any], tuple[bytes | None, ...]], tuple[str, ...]] = {}


def _names(kind: type[Any], columns: tuple[bytes | None, ...]) -> tuple[str, ...]:
    """The columns as fields of the dataclass. Raises TypeError if they are not just these."""
    names = _known.get((kind, columns))
    if names is None:
        names = tuple([(column or b"").decode() for column in columns])
        if sorted(names) != sorted(field.name for field in fields(kind)):
            raise TypeError(f"{kind.__name__} has other fields than {', '.join(names)}")
        _known[kind, columns] = names
    return names
