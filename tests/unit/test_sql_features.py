"""The table of SQL features in docs/scaling.md has all that the shop's SQL uses."""

import re
from pathlib import Path

import pytest

from tools import sql_features
from tools.sql_features import CALLED, KEYWORDS, OPERATORS, TYPES, UnknownError, classified, features, words

SCALING = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text()


def rows() -> list[list[str]]:
    lines = SCALING.split("| feature ", 1)[1].splitlines()[2:]
    table = lines[: lines.index("")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_has_each_feature_that_is_in_use() -> None:
    assert set(features()) <= {row[0] for row in rows()}


def test_the_table_has_no_feature_that_nothing_is_classified_as() -> None:
    assert {row[0] for row in rows()} == classified()


def test_each_cell_has_a_source_or_says_that_there_is_none() -> None:
    sources = set(re.findall(r"^\[([A-Z]\d+)\]: https://", SCALING, re.MULTILINE))
    for feature, *cells in rows():
        assert len(cells) == 5
        for cell in cells:
            cited = set(re.findall(r"\[([A-Z]\d+)\]", cell))
            assert cited <= sources, (feature, cell)
            assert cited or re.search(r"^not |needs PostgreSQL|other ", cell), (feature, cell)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT id::uuid FROM t", ("uuid", TYPES)),
        ("SELECT pg_notify('a', 'b')", ("pg_notify", CALLED)),
        ("MERGE INTO t USING s ON true", ("MERGE", KEYWORDS)),
        ("CREATE TABLE t (\n    id uuid PRIMARY KEY,\n    span tstzrange NOT NULL\n)", ("tstzrange", TYPES)),
        ("SELECT * FROM jsonb_to_recordset(%(rows)s) AS given (id uuid, at date)", ("date", TYPES)),
        ("ALTER TABLE t ADD COLUMN place point", ("point", TYPES)),
        ("SELECT a @> b FROM t", ("@>", OPERATORS)),
        ("SELECT a ->> 'b' FROM t", ("->>", OPERATORS)),
    ],
)
def test_words_of_a_statement_are_found(sql: str, expected: tuple[str, object]) -> None:
    assert expected in list(words(sql))


def test_a_word_that_is_not_classified_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_features, "statements", lambda: [("a.py", "SELECT pg_notify( LITERAL )")])
    with pytest.raises(UnknownError, match=r"pg_notify \(a\.py\)"):
        features()
