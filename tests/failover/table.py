"""The table in docs/operations.md, from build/failover.json: `python -m tests.failover.table --write`."""

import json
import sys
from collections import Counter

from bench import report
from bench.table import markdown
from local.settings import REPOSITORY
from tests.failover.row import Row

RESULT = REPOSITORY / "build" / "failover.json"
PAGE = REPOSITORY / "docs" / "operations.md"
PLACE = "failover"
"""The name of the place in docs/operations.md."""

HEADINGS = (
    *("case", "attempted", "acknowledged", "lost", "doubled", "missed", "repeated", "seconds without writes"),
    *("chosen", "promoted", "standby", "client", "errors"),
)


def _cells(row: Row) -> list[str]:
    codes: Counter[str] = Counter()
    for each in row.errors.values():
        codes.update(each)
    numbers = (row.attempted, row.acknowledged, row.lost, row.doubled, row.missed, row.repeated)
    parts = (row.chosen_s, row.promoted_s, row.standby_s, row.client_s)
    return [
        row.case,
        *(str(each) for each in numbers),
        f"{row.seconds_without_writes:.1f}",
        *("" if each is None else f"{each:.1f}" for each in parts),
        ", ".join(f"{code} {number}" for code, number in sorted(codes.items())) or "none",
    ]


def table(rows: list[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    return markdown(HEADINGS, [_cells(row) for row in rows])


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.failover.table --write")
    rows = [Row(**each) for each in json.loads(RESULT.read_text())]
    report.write(PAGE, PLACE, "\n" + table(rows) + "\n")
