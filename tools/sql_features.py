"""Which features of PostgreSQL the shop's SQL uses: `python -m tools.sql_features`.

It reads the migrations and every string of the services that has SQL in it, and looks at each keyword, function, type
and operator. One that is not classified below is an error, so the table in docs/scaling.md cannot miss a feature.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("order", "product", "runtime")

PLAIN = ""
"""What every database that speaks PostgreSQL's language has."""

LISTEN = "LISTEN, NOTIFY"
SNAPSHOTS = "pg_current_snapshot, pg_snapshot, xid8"
ADVISORY = "Advisory locks"
ROW_LOCKS = "FOR NO KEY UPDATE, FOR UPDATE"
SKIP_LOCKED = "SKIP LOCKED"
ON_CONFLICT = "ON CONFLICT"
WRITES_IN_WITH = "Writes in WITH, with RETURNING"
MATERIALIZED = "WITH … MATERIALIZED"
RECURSIVE = "WITH RECURSIVE"
SETTINGS = "set_config, also for one statement (synchronous_commit)"
JSONB = "jsonb and its functions"
RECORDSETS = "jsonb_to_recordset"
ARRAYS = "Arrays, unnest"
ORDINALITY = "WITH ORDINALITY"
LATERAL = "LATERAL"
PARTIAL = "Partial indexes, also unique ones"
EXPRESSIONS = "Indexes of expressions"
TRIGRAMS = "GIN index of trigrams (pg_trgm)"
COLLATION = "COLLATE pg_c_utf8"
NORMALIZE = "normalize, IS NFC NORMALIZED"
CHECKS = "CHECK constraints"
RENAMES = "RENAME CONSTRAINT"
FOREIGN_KEYS = "Foreign keys, ON DELETE CASCADE"
SEQUENCES = "Sequences, identity columns"
FUNCTIONS = "A function in SQL"
UUIDS = "uuid, gen_random_uuid"
CONCURRENTLY = "CREATE INDEX CONCURRENTLY"
STORAGE = "fillfactor, autovacuum settings of a table"
CTID = "ctid"
CATALOGS = "pg_index, pg_attribute, to_regclass"
ACTIVITY = "pg_stat_activity, pg_blocking_pids, pg_terminate_backend"
SERVER = "pg_is_in_recovery, and what a standby says of itself"

KEYWORDS: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "ADD",
            "ALL",
            "ALTER",
            "AND",
            "ANY",
            "AS",
            "AT",
            "BETWEEN",
            "BY",
            "CASE",
            "COLUMN",
            "CONSTRAINT",
            "CREATE",
            "CROSS",
            "DEFAULT",
            "DELETE",
            "DESC",
            "DISTINCT",
            "DO",
            "DROP",
            "ELSE",
            "END",
            "EXISTS",
            "FILTER",
            "FOR",
            "FROM",
            "GROUP",
            "HAVING",
            "IF",
            "IN",
            "INDEX",
            "INSERT",
            "INTO",
            "IS",
            "JOIN",
            "KEY",
            "LEFT",
            "LIKE",
            "LIMIT",
            "NO",
            "NOT",
            "NOTHING",
            "NULL",
            "OF",
            "ON",
            "OR",
            "ORDER",
            "OVER",
            "PARTITION",
            "PRIMARY",
            "SELECT",
            "SET",
            "TABLE",
            "THEN",
            "TIME",
            "TO",
            "UNION",
            "UNIQUE",
            "UPDATE",
            "USING",
            "VALUES",
            "WHEN",
            "WHERE",
            "WITH",
            "ZONE",
        ],
        PLAIN,
    ),
    "ALWAYS": SEQUENCES,
    "ARRAY": ARRAYS,
    "CASCADE": FOREIGN_KEYS,
    "CHECK": CHECKS,
    "COLLATE": COLLATION,
    "CONCURRENTLY": CONCURRENTLY,
    "CONFLICT": ON_CONFLICT,
    "EXTENSION": TRIGRAMS,
    "FUNCTION": FUNCTIONS,
    "GENERATED": SEQUENCES,
    "IDENTITY": SEQUENCES,
    "LANGUAGE": FUNCTIONS,
    "LATERAL": LATERAL,
    "LISTEN": LISTEN,
    "LOCKED": SKIP_LOCKED,
    "MATERIALIZED": MATERIALIZED,
    "NFC": NORMALIZE,
    "NORMALIZED": NORMALIZE,
    "NOTIFY": LISTEN,
    "ORDINALITY": ORDINALITY,
    "RECURSIVE": RECURSIVE,
    "REFERENCES": FOREIGN_KEYS,
    "RENAME": RENAMES,
    "RETURNING": WRITES_IN_WITH,
    "RETURNS": FUNCTIONS,
    "SEQUENCE": SEQUENCES,
    "SKIP": SKIP_LOCKED,
    "VOLATILE": FUNCTIONS,
}

CALLED: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "abs",
            "bool_and",
            "clock_timestamp",
            "coalesce",
            "count",
            "decode",
            "extract",
            "format",
            "greatest",
            "least",
            "length",
            "lower",
            "lpad",
            "make_interval",
            "max",
            "min",
            "now",
            "nullif",
            "string_to_array",
            "sum",
            "to_char",
        ],
        PLAIN,
    ),
    "array_agg": ARRAYS,
    "gen_random_uuid": UUIDS,
    "gin": TRIGRAMS,
    **dict.fromkeys(
        ["jsonb_agg", "jsonb_array_elements", "jsonb_array_length", "jsonb_build_object", "jsonb_typeof"], JSONB
    ),
    "jsonb_to_recordset": RECORDSETS,
    "next_order_number": FUNCTIONS,
    "nextval": SEQUENCES,
    "normalize": NORMALIZE,
    "pg_blocking_pids": ACTIVITY,
    **dict.fromkeys(["pg_current_snapshot", "pg_current_xact_id", "pg_snapshot_xip", "pg_snapshot_xmax"], SNAPSHOTS),
    **dict.fromkeys(["pg_backend_pid", "pg_terminate_backend"], ACTIVITY),
    **dict.fromkeys(
        [
            "pg_is_in_recovery",
            "pg_last_wal_receive_lsn",
            "pg_last_wal_replay_lsn",
            "pg_logical_emit_message",
            "pg_last_xact_replay_timestamp",
            "pg_current_wal_lsn",
            "pg_postmaster_start_time",
            "pg_wal_lsn_diff",
        ],
        SERVER,
    ),
    "pg_try_advisory_lock": ADVISORY,
    **dict.fromkeys(["current_setting", "set_config"], SETTINGS),
    "to_regclass": CATALOGS,
    "unnest": ARRAYS,
}

TYPES: Mapping[str, str] = {
    **dict.fromkeys(
        ["bigint", "boolean", "bytea", "double", "float8", "integer", "interval", "numeric", "text", "timestamptz"],
        PLAIN,
    ),
    "jsonb": JSONB,
    "pg_lsn": SERVER,
    "pg_snapshot": SNAPSHOTS,
    "regclass": CATALOGS,
    "uuid": UUIDS,
    "xid8": SNAPSHOTS,
}

OPERATORS: Mapping[str, str] = {
    **dict.fromkeys(("<", ">", "<=", ">=", "<>", "=>", "||"), PLAIN),
    "->": JSONB,
    "->>": JSONB,
}

PATTERNS: Mapping[str, str] = {
    r"\bFOR (NO KEY )?UPDATE\b": ROW_LOCKS,
    r"\bCREATE (UNIQUE )?INDEX [^;]*\bWHERE\b": PARTIAL,
    r"\bCREATE (UNIQUE )?INDEX [^;]*\((lower|[^;]*, lower)\(": EXPRESSIONS,
    r"\bfillfactor\b|\bautovacuum_": STORAGE,
    r"\bctid\b": CTID,
    r"\bpg_(index|attribute)\b": CATALOGS,
    r"\bpg_stat_activity\b": ACTIVITY,
}
"""What is more than a word."""

_SQL = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|FROM|WHERE|AND|ORDER BY|LISTEN|NOTIFY|CREATE|ALTER|DROP|EXISTS"
    r"|VALUES|FOR NO KEY|SKIP LOCKED|COLLATE|RETURNING|LIMIT|JOIN|->>)(?!\w)"
)
"""A string with one of these words has SQL in it."""

_HOLE = " HOLE "
"""Stands for what an f-string inserts."""

_NAMED = {"AS", "INTO", "TABLE", "ON", "REFERENCES", "RECURSIVE", "KEY", "CONFLICT", "ANY", "IN"}
"""Words after which a name with a parenthesis is no function."""


class UnknownError(Exception):
    """The SQL has something that is not classified. The message is for people."""


def _strings(path: Path) -> Iterator[str]:
    """Yields the strings of a Python file, without docstrings and without what is logged."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "log_")):
            skipped |= {id(each) for each in ast.walk(node)}
        elif isinstance(node, ast.JoinedStr) and id(node) not in skipped:
            skipped |= {id(each) for each in node.values}
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else _HOLE for each in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def statements() -> Iterator[tuple[str, str]]:
    """Yields all SQL with the file that has it, without comments and the contents of literals."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for text in _strings(path):
                if _SQL.search(text) and "(?" not in text:  # not a regular expression
                    yield str(path.relative_to(ROOT)), _bare(text)
        for path in sorted((ROOT / package / "migrations").glob("*.sql")):
            yield str(path.relative_to(ROOT)), _bare(path.read_text())


def _bare(text: str) -> str:
    without_comments = re.sub(r"--.*", "", text).replace("$$", " ")
    return re.sub(r"E?'(?:[^']|'')*'", " LITERAL ", without_comments).replace("%%", "%")


def words(sql: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yields the keywords, functions, types and operators of a statement, each with the table that classifies it."""
    for word in re.findall(r"\b[A-Z][A-Z_]*\b", sql):
        if word not in ("HOLE", "LITERAL", "UTC"):
            yield word, KEYWORDS
    named = r"\b(?:TABLE(?: IF NOT EXISTS)?|INTO|ON|AS|REFERENCES|RECURSIVE)\s+([a-z_0-9]+)"
    tables = set(re.findall(named, sql))
    for before, word in re.findall(r"(\w+)?\s*\b([a-z_][a-z_0-9]*)\s*\(", sql):
        if before not in _NAMED and word not in tables and word not in TYPES:
            yield word, CALLED
    for word in re.findall(r"::\s*([a-z_0-9]+)", sql):
        yield word, TYPES
    for columns in re.findall(r"(?:\bTABLE(?: IF NOT EXISTS)?\s+\w+|\bAS\s+\w+)\s*\(((?:[^()]|\([^()]*\))*)\)", sql):
        for column in re.split(r",(?![^(]*\))", columns):
            if found := re.match(r"\s*[a-z_]+\s+([a-z0-9_]+)", column):
                yield found.group(1), TYPES
    for word in re.findall(r"\bADD COLUMN\s+\w+\s+([a-z0-9_]+)", sql):
        yield word, TYPES
    for operator in re.findall(r"(?<![\w%<>=|@#?&~-])(?:[<>=|@#?&~]|->)[<>=|@#?&~]*", sql.replace("::", " ")):
        if operator != "=":
            yield operator, OPERATORS


def classified() -> set[str]:
    """Returns all features that something can be classified as."""
    return {each for known in (KEYWORDS, CALLED, TYPES, OPERATORS, PATTERNS) for each in known.values() if each}


def features() -> dict[str, str]:
    """Returns the features that are in use, each with a file that uses it.

    Raises:
        UnknownError: A statement has something that is not classified.
    """
    found: dict[str, str] = {}
    unknown: dict[str, set[str]] = defaultdict(set)
    for path, sql in statements():
        for word, known in words(sql):
            if word not in known:
                unknown[word].add(path)
            elif feature := known[word]:
                found.setdefault(feature, path)
        for pattern, feature in PATTERNS.items():
            if re.search(pattern, sql):
                found.setdefault(feature, path)
    if unknown:
        listed = "; ".join(f"{word} ({', '.join(sorted(paths))})" for word, paths in sorted(unknown.items()))
        raise UnknownError(f"classify in tools/sql_features.py, and add to docs/scaling.md what is new: {listed}")
    return found


def main() -> int:
    """Prints the features. Returns the exit status."""
    try:
        found = features()
    except UnknownError as error:
        print(f"sql_features: {error}", file=sys.stderr)
        return 1
    for feature, path in sorted(found.items()):
        print(f"{feature}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
