"""Rows of the database become dataclasses whose fields have the annotated types."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from runtime.rows import instance, rows_of


class Color(StrEnum):
    RED = "RED"


@dataclass(frozen=True)
class Part:
    name: str


@dataclass(frozen=True)
class Thing:
    number: int
    color: Color
    other: Color | None
    parts: list[Part]


class Result:
    """A cursor and its result, as far as a row factory uses them."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns
        self.nfields = len(columns)
        self.pgresult = self

    def fname(self, number: int) -> bytes:
        return self.columns[number].encode()


def read(kind: type[Any], columns: tuple[str, ...], values: tuple[object, ...]) -> Any:
    cursor: Any = Result(*columns)
    return rows_of(kind)(cursor)(values)


COLUMNS = ("parts", "number", "other", "color")


def test_row_has_the_types_of_its_fields() -> None:
    thing = read(Thing, COLUMNS, ([{"name": "a"}, {"name": "b"}], 7, None, "RED"))
    assert thing == Thing(7, Color.RED, None, [Part("a"), Part("b")])
    assert type(thing.color) is Color
    assert read(Thing, COLUMNS, ([], 7, "RED", "RED")).other is Color.RED


def test_unknown_member_is_refused() -> None:
    with pytest.raises(KeyError):
        read(Thing, COLUMNS, ([], 7, None, "BLUE"))


@pytest.mark.parametrize("columns", [("number",), (*COLUMNS, "more")])
def test_columns_must_be_the_fields(columns: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match="Thing has other fields than"):
        read(Thing, columns, ())


def test_instance_equals_one_that_was_constructed() -> None:
    assert instance(Part, {"name": "a"}) == Part("a")
