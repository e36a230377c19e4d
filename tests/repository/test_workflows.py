"""The workflows are valid, pin what they run, and call the same make targets as .ci/run."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.chart import tools

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def make_targets(text: str) -> set[str]:
    """The targets of the make commands in a script or a workflow, whose comments do not count."""
    code = re.sub(r"(^|\s)#.*", "", text)
    calls = re.findall(r"^(?:.*run: |\s*)make ((?:--\w+ )?[a-z][a-z -]*)", code, re.MULTILINE)
    named = {word for call in calls for word in call.split() if not word.startswith("-")}
    return named | set(re.findall(r"tests: ([a-z]+)", code))


def test_actionlint_accepts_the_workflows() -> None:
    # What it may call besides differs between machines.
    command = [tools.require(tools.actionlint), "-shellcheck=", "-pyflakes=", *map(str, WORKFLOWS)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_unless_a_job_says_why(workflow: Path) -> None:
    text = workflow.read_text()
    assert "\npermissions:\n  contents: read\n" in text
    assert re.findall(r": write(?! # \w)", text) == []


@pytest.mark.parametrize("script", [*WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_make_targets_of_ci_exist(script: Path) -> None:
    exist = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = make_targets(script.read_text())
    assert named
    assert named - exist == set()


def test_ci_runs_every_python_of_the_classifiers() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = [each.rpartition(" ")[2] for each in classifiers if each.startswith("Programming Language")]
    assert re.findall(r'python: "([\d.]+)"', (ROOT / ".github" / "workflows" / "ci.yml").read_text()) == promised


def test_ci_calls_the_targets_of_the_local_script() -> None:
    local = make_targets((ROOT / ".ci" / "run").read_text())
    assert {"check", "coverage", "test-races", "test-faults", "test-abuse"} <= local
    assert local - make_targets((ROOT / ".github" / "workflows" / "ci.yml").read_text()) == set()
