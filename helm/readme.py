"""Writes the tables of values into the chart's README, from the comments of values.yaml.

A key's comment is the lines directly above it. `## …` begins a section. `--check` changes nothing and fails if the
README is out of date.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "shopping-cart"
BEGIN, END = "<!-- values: python helm/readme.py -->", "<!-- end of values -->"
KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):(.*)")


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Yields the path and the comment of each commented key.

    A section's title is a path that begins with `#`, with an empty comment.
    """
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        key = KEY.fullmatch(line)
        if stripped.startswith("## "):
            yield "#" + stripped[3:], ""
        elif stripped.startswith("#"):
            above.append(stripped[1:].strip())
            continue
        elif key:
            path = [(indent, name) for indent, name in path if indent < len(key[1])] + [(len(key[1]), key[2])]
            if above:
                yield ".".join(name for _, name in path), " ".join(above)
        above = []


def default(values: Any, path: str) -> str:
    """Returns the value at a path, as JSON."""
    for name in path.split("."):
        values = values[name]
    return json.dumps(values, ensure_ascii=False)


def table(text: str) -> str:
    """Returns the text of values.yaml as Markdown: a table of keys, defaults and comments for each section."""
    values = yaml.safe_load(text)
    lines: list[str] = []
    for path, comment in comments(text):
        if path.startswith("#"):
            lines += ["", f"### {path[1:]}", "", "| key | default | description |", "| --- | --- | --- |"]
        else:
            lines.append(f"| `{path}` | `{default(values, path)}` | {comment.replace('|', '&#124;')} |")
    return "\n".join(lines).strip()


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the table of values into the chart's README.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the table is out of date")
    options = parser.parse_args()
    readme = CHART / "README.md"
    old = readme.read_text()
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n\n{table((CHART / 'values.yaml').read_text())}\n\n{END}{after}"
    if options.check:
        if new != old:
            print("helm/shopping-cart/README.md is not up to date: run `make generate`", file=sys.stderr)
            return 1
        return 0
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
