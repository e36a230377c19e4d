"""What the documents name is there: links, headings, files and make targets."""

import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"^(?:    |`)make ([a-z][a-z-]*)|`make ([a-z][a-z-]*)", re.MULTILINE)

MADE = ("build/", "dist/")
"""Folders that commands make."""


def documents() -> list[str]:
    found = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.md")]
    return sorted(name for name in found if not name.startswith((".venv/", ".state/", "build/", "third_party/")))


DOCUMENTS = documents()


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    made: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", path.read_text())):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        taken = [other for other in (slug, *(f"{slug}-{number}" for number in range(1, 20))) if other not in made]
        made.add(taken[0])
    return made


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def top_folders() -> set[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True)
    return {name.partition("/")[0] for name in done.stdout.splitlines() if "/" in name}


def broken_links(document: Path) -> list[str]:
    text = CODE.sub("", FENCE.sub("", document.read_text()))
    broken: list[str] = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_and_anchors_resolve(document: str) -> None:
    assert broken_links(ROOT / document) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_make_targets_exist(document: str) -> None:
    named = {first or second for first, second in COMMAND.findall((ROOT / document).read_text())}
    assert named - targets() == set()


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_documented_paths_exist(document: str) -> None:
    """Code spans that begin with a folder of the repository. The CHANGELOG names files of its time."""
    missing: list[str] = []
    for span in CODE.findall(FENCE.sub("", (ROOT / document).read_text())):
        if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", span) or span.startswith(MADE) or "/" not in span:
            continue
        if span.partition("/")[0] in top_folders() and not list(ROOT.glob(span.rstrip("/"))):
            missing.append(span)
    assert missing == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "# A `title`, again\n[a](#a-title-again) [b](#none) [c](page.md) [d](gone.md) [e](https://example.com)\n"
    )
    assert broken_links(document) == ["#none", "gone.md"]
