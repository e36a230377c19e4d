"""The cost of the services' own statements: PostgreSQL's plans, with the buffers that they read and their time.

Buffers are pages of 8 KiB. Unlike time, they are the same on every machine, however busy it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, LiteralString, NoReturn

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer

RUNS_BEFORE = 6
"""Runs that are not measured. PostgreSQL plans a prepared statement for its parameters five times, and may then choose
one plan for all parameters."""

RUNS = 5

SLOW_MS = 100.0
"""Milliseconds. A statement that takes longer runs only twice."""

_PARAMETER = re.compile(r"%\((\w+)\)s|%%")


@dataclass(frozen=True)
class Cost:
    """The median cost of a statement."""

    buffers: int
    ms: float
    plan: Mapping[str, Any]


class Planned(Exception):
    """Ends the call of a store whose statement was measured. Not an error."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost


class Plans:
    """Stands for a service's Database, and measures the statements that a store gives it.

    A statement is prepared as the service would prepare it, runs several times, and is rolled back each time. Then it
    raises Planned.
    """

    def __init__(self, conninfo: str, settings: Mapping[str, str] | None = None) -> None:
        # The driver must not prepare statements by itself: at a rollback it would drop ours, too.
        self._connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
        for name, value in (settings or {}).items():
            self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    def close(self) -> None:
        self._connection.close()

    def indexes(self) -> dict[str, int]:
        """Returns how many indexes each table has."""
        rows = self._connection.execute(
            "SELECT relname, count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid GROUP BY 1"
        ).fetchall()
        return dict(rows)

    async def fetch(
        self,
        name: LiteralString,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[object],
        *,
        idempotent: bool = True,
        replan: bool = False,
    ) -> NoReturn:
        raise Planned(self.cost(query, params, replan=replan))

    async def fetch_one(
        self,
        name: LiteralString,
        query: LiteralString,
        params: Mapping[str, object],
        row: type[object],
        *,
        idempotent: bool = True,
    ) -> NoReturn:
        raise Planned(self.cost(query, params))

    def cost(self, query: LiteralString, params: Mapping[str, object], *, replan: bool = False) -> Cost:
        """Runs a statement and returns its cost. With `replan`, PostgreSQL plans it again for each run."""
        text, names = numbered(query)
        values = [params[name] for name in names]
        types = [self._type(value) for value in values]
        mode = "force_custom_plan" if replan else "auto"
        self._connection.execute("SELECT set_config('plan_cache_mode', %s, false)", (mode,))
        declared = f"({', '.join(types)})" if types else ""
        self._connection.execute(f"PREPARE measured {declared} AS {text}".encode())
        try:
            runs = [self._run(values)]
            if runs[0].ms < SLOW_MS:
                runs = [self._run(values) for _ in range(RUNS_BEFORE + RUNS)][RUNS_BEFORE:]
            else:
                runs = [self._run(values)]
        finally:
            self._connection.execute("DEALLOCATE measured")
        return Cost(round(median(run.buffers for run in runs)), median(run.ms for run in runs), runs[-1].plan)

    def _run(self, values: list[object]) -> Cost:
        given = sql.SQL(", ").join(sql.Literal(value) for value in values)
        command = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE measured {}").format(
            sql.SQL("({})").format(given) if values else sql.SQL("")
        )
        with self._connection.transaction(force_rollback=True):
            found = self._connection.execute(command).fetchone()
        assert found, "EXPLAIN has one row"
        (explained,) = found[0]
        plan = explained["Plan"]
        return Cost(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], explained["Execution Time"], plan)

    def _type(self, value: object) -> str:
        """Returns the type that the driver gives a parameter."""
        if value is None:
            return "unknown"
        oid = Transformer(self._connection).get_dumper(value, PyFormat.AUTO).oid
        found = self._connection.execute("SELECT %s::oid::regtype::text", (oid,)).fetchone()
        assert found
        return "unknown" if found[0] == "-" else str(found[0])


def numbered(query: str) -> tuple[str, list[str]]:
    """Returns a statement with PostgreSQL's numbered parameters instead of the driver's named ones, and their names."""
    names: list[str] = []

    def number(match: "re.Match[str]") -> str:
        name = match.group(1)
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PARAMETER.sub(number, query), names


def describe(plan: Mapping[str, Any], depth: int = 0) -> str:
    """Returns a plan as an indented list, for people."""
    what = " ".join(str(plan[key]) for key in ("Node Type", "Index Name", "Relation Name") if key in plan)
    removed = f", {plan['Rows Removed by Filter']} filtered" if "Rows Removed by Filter" in plan else ""
    buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    line = f"{'  ' * depth}{what}: {plan['Actual Rows']} rows x {plan['Actual Loops']}{removed}, {buffers} buffers"
    return "\n".join([line, *(describe(each, depth + 1) for each in plan.get("Plans", ()))])
