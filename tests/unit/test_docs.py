"""The documentation has what the code has."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_variable_that_a_process_reads_is_documented() -> None:
    code = "".join(
        path.read_text()
        for package in ("runtime", "product", "order", "sse", "demo")
        for path in (ROOT / package).glob("*.py")
    )
    read = set(re.findall(r'env\.[a-z]+\(\s*"([A-Z_]+)"', code))
    assert {"DATABASE_URL", "SSE_MAX_STREAMS", "EVENT_RETENTION_DAYS"} <= read
    documented = set(re.findall(r"`([A-Z_]+)(?:=\w+)?`", (ROOT / "docs" / "operations.md").read_text()))
    assert read - documented == set()
