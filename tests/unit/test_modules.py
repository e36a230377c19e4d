"""What every module of production code has in common. Who may import whom is checked by import-linter."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("demo", "local", "order", "product", "runtime", "sse")
MAX_LINES = 350
"""A longer file has more than one reason to change."""


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no code"
    return found


def calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls that run when a module is imported."""
    if isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__"):
        return
    if isinstance(node, ast.Call):
        yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside: list[ast.AST] = [*node.decorator_list, node.args]
    else:
        inside = [] if isinstance(node, ast.Lambda) else list(ast.iter_child_nodes(node))
    for each in inside:
        yield from calls_at_import(each)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_connects_to_nothing(package: str) -> None:
    """The top level of a module only defines. It opens, starts and runs nothing."""
    busy = {"open", "connect", "start", "run", "insecure_channel", "server", "channel", "urlopen", "Popen"}
    for path in modules(package):
        for call in calls_at_import(ast.parse(path.read_text())):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            assert name not in busy, f"{path.relative_to(ROOT)}:{call.lineno} calls {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_file_has_at_most_350_lines(package: str) -> None:
    for path in modules(package):
        assert len(path.read_text().splitlines()) <= MAX_LINES, path
