"""What `make version-set` and `make release` do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import release

ROOT = release.ROOT

ELSEWHERE = re.compile(
    r"CHANGELOG\.md|requirements/.*\.txt|bench/rivals/go/go\.(mod|sum)|tests/cluster/previous\.py|third_party/.*"
)
"""Files that name released versions, or versions of other projects."""

NEW = ".".join(("98", "7", "6"))
"""A version that no file has, this one included."""


def tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files in which a version may stand."""
    for name in tracked():
        if not ELSEWHERE.fullmatch(name) or name == release.CHANGELOG:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def mentions(tree: Path, version: str) -> list[str]:
    """The lines of all files that contain a version, as `file:line: text`."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(version)}(?![\w.]*\d)")
    found: list[str] = []
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_file() and not ELSEWHERE.fullmatch(name):
            lines = path.read_text(errors="replace").splitlines()
            found += [f"{name}:{number}: {line}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    return found


def test_version_set_leaves_no_old_version(tree: Path) -> None:
    old = release.current(tree)
    places = len(mentions(tree, old))
    release.set_version(tree, NEW)
    assert mentions(tree, old) == []
    assert len(mentions(tree, NEW)) == places


def test_version_set_writes_project_chart_and_image(tree: Path) -> None:
    release.set_version(tree, f"{NEW}-rc.1")
    assert release.current(tree) == f"{NEW}-rc.1"
    chart = yaml.safe_load((tree / "helm" / "shopping-cart" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (f"{NEW}-rc.1", f"{NEW}-rc.1")
    assert f"ARG VERSION={NEW}-rc.1\n" in (tree / "Dockerfile").read_text()


def test_version_set_can_be_undone(tree: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    old = release.current(tree)
    release.set_version(tree, f"{NEW}-rc.1")
    release.set_version(tree, old)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3+build", "1.02.3", "1.2.3\n", ""])
def test_version_set_refuses_what_is_no_version(tree: Path, version: str) -> None:
    with pytest.raises(release.ReleaseError, match="is not a version"):
        release.set_version(tree, version)


def test_notes_are_the_section_of_one_version(tmp_path: Path) -> None:
    sections = ["# Changelog", "## [Unreleased]", "## [1.1.0] - 2026-01-02", "### Added", "- B."]
    sections += ["## [1.0.0] - 2026-01-01", "- A."]
    (tmp_path / release.CHANGELOG).write_text("\n\n".join(sections) + "\n")
    assert release.notes(tmp_path, "1.1.0") == "### Added\n\n- B."
    assert release.notes(tmp_path, "1.0.0") == "- A."
    with pytest.raises(release.ReleaseError, match="no section"):
        release.notes(tmp_path, "1.1")


def test_changelog_has_a_section_for_what_follows() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / release.CHANGELOG).read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    dated = re.compile(rf"\[{release.VERSION.pattern}\] - \d{{4}}-\d\d-\d\d")
    assert all(dated.fullmatch(heading) for heading in headings[1:])
    assert len(headings) > 1


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit, with version 1.0.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.0.0"\n')
    (tmp_path / release.CHANGELOG).write_text("## [1.0.0] - 2026-01-01\n\n- A.\n")
    settings = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*settings, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    for key, value in (("user.name", "Somebody"), ("user.email", "somebody@example.com")):
        subprocess.run(["git", "config", key, value], cwd=tmp_path, check=True)
    return tmp_path


def test_release_tags_a_clean_checkout_once(repository: Path) -> None:
    assert release.tag(repository) == "v1.0.0"
    with pytest.raises(release.ReleaseError, match="exists already"):
        release.tag(repository)


def test_release_refuses_uncommitted_changes(repository: Path) -> None:
    (repository / "new").write_text("")
    with pytest.raises(release.ReleaseError, match="uncommitted"):
        release.tag(repository)


def test_release_refuses_a_version_without_notes(repository: Path) -> None:
    (repository / release.CHANGELOG).write_text("## [Unreleased]\n")
    with pytest.raises(release.ReleaseError, match="no section"):
        release.tag(repository)
