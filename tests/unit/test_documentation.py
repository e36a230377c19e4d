"""What processes can be told stands in the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READ = re.compile(r'env\.(?:text|choice|integer|seconds|port)\(\s*"([A-Z_]+)"')


def test_every_variable_that_a_process_reads_is_in_the_operations_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    read = {
        name
        for package in ("demo", "order", "product", "runtime", "sse")
        for path in (ROOT / package).rglob("*.py")
        for name in READ.findall(path.read_text())
    }
    assert len(read) > 15
    assert sorted(name for name in read if f"`{name}`" not in page) == []
