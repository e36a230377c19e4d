"""The type checker refuses SQL that is put together at run time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CALLS = """\
from runtime.database import Database


async def find(database: Database, name: str) -> None:
    await database.fetch("literal", "SELECT * FROM product WHERE name = %(name)s", {"name": name}, Row)
    await database.fetch("sum", "SELECT * FROM product WHERE name = '" + name + "'", {}, Row)
    await database.fetch("format", f"SELECT * FROM product WHERE name = '{name}'", {}, Row)
    await database.fetch("percent", "SELECT * FROM product WHERE name = '%s'" % name, {}, Row)


class Row:
    name: str
"""


@pytest.fixture
def errors(tmp_path: Path) -> list[int]:
    """Returns the lines of CALLS in which the project's type checker finds an error."""
    (tmp_path / "calls.py").write_text(CALLS)
    settings = {"include": ["."], "extraPaths": [str(ROOT), str(ROOT / "proto")], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return sorted(each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error")


def test_sql_that_is_no_literal_is_refused(errors: list[int]) -> None:
    """f-strings, sums and formatted strings could carry a client's text into SQL."""
    lines = CALLS.splitlines()
    assert [lines[line - 1].split('"')[1] for line in errors] == ["sum", "format", "percent"]
