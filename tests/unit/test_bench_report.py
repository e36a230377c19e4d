"""Benchmarks write their figures into the documentation, and compare what is comparable."""

from pathlib import Path
from urllib.parse import parse_qs

import pytest

from bench.compare import CASES
from bench.growth import NAME, constant, ratio
from bench.plans import numbered
from bench.profile import failure_reason
from bench.report import ReportError, check, section, write
from bench.rivals.shop import shape
from bench.statements import Statement, deep
from local.settings import REPOSITORY


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- end of a -->\nafter <!-- b --><!-- end of b -->\n")
    return path


def test_figures_between_comments_are_replaced(page: Path) -> None:
    write(page, "a", "new\nlines")
    write(page, "a", "newer")
    assert page.read_text() == ("before\n<!-- a -->\nnewer\n<!-- end of a -->\nafter <!-- b --><!-- end of b -->\n")


@pytest.mark.parametrize("text", ["", "<!-- a -->", "<!-- end of a --><!-- a -->"])
def test_page_without_comments_is_unchanged(page: Path, text: str) -> None:
    page.write_text(text)
    with pytest.raises(ReportError, match="lacks the lines"):
        write(page, "a", "new")
    assert page.read_text() == text


def test_missing_page_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="No such file"):
        check(tmp_path / "page.md", "a")


@pytest.mark.parametrize("name", ["compare", "auth", "carts", NAME])
def test_documentation_has_places_for_figures(name: str) -> None:
    check(REPOSITORY / "docs" / "performance.md", name)


def test_section_names_command_and_conditions() -> None:
    text = section("make bench", "32 connections", "| table |")
    assert text.startswith("`make bench`, 20")
    assert text.endswith("; 32 connections.\n\n| table |")


def statement(buffers: int, deep_buffers: int | None = None, searches: int = 1) -> Statement:
    return Statement(
        case="x",
        rows=1,
        ms=0.1,
        deep_ms=None,
        grows="",
        buffers=buffers,
        deep_buffers=deep_buffers,
        searches=searches,
    )


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        (statement(3), statement(4), True),
        (statement(3), statement(6), False),
        (statement(100), statement(120), True),
        (statement(100), statement(121), False),
        (statement(100), statement(100, 121), False),
        (statement(100), statement(150, searches=50), True),
    ],
)
def test_deeper_index_alone_is_not_growth(small: Statement, large: Statement, expected: bool) -> None:
    assert constant(small, large) is expected


def test_ratio_uses_the_most_expensive_page() -> None:
    assert (ratio(statement(10), statement(12, 30)), ratio(statement(10), statement(12))) == (3.0, 1.2)


def test_deep_page_exists_in_a_small_shop() -> None:
    assert (deep(1_000_000), deep(10_000), deep(20)) == (200_000, 5_000, 20)


def test_named_parameters_become_numbers() -> None:
    assert numbered("SELECT %(a)s %% %(b)s, %(a)s") == ("SELECT $1 % $2, $1", ["a", "b"])


def test_shape_compares_fields_kinds_and_row_counts() -> None:
    assert shape({"a": [{"b": 1}, {"b": 2}], "c": "x"}) == shape({"a": [{"b": 3.5}, {"b": 4}], "c": "y"})
    for other in ({"a": [{"b": 1}], "c": "x"}, {"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": "1"}, {"b": "2"}], "c": "x"}):
        assert shape({"a": [{"b": 1}, {"b": 2}], "c": "x"}) != shape(other)


def test_list_pages_requests_differ() -> None:
    case = CASES["list-pages"]
    asked = {*case.lines, *case.positions}
    assert len(asked) == len(case.lines) + len(case.positions) > 900
    assert all("category" in parse_qs(line) for line in case.lines)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Permission Denied: Try running again with elevated permissions", "py-spy may not inspect processes"),
        ("Error: Operation not permitted (os error 1)\n\nReason:\n", "py-spy may not inspect processes"),
        ("Error: No such process\n", "py-spy failed: Error: No such process"),
        ("", "py-spy failed: without a message"),
    ],
)
def test_failed_sampler_is_reported_in_one_line(words: str, expected: str) -> None:
    assert failure_reason(words).startswith(expected)
    assert "\n" not in failure_reason(words)
