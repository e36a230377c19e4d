"""The architecture, held by a test: who may import whom, and that nothing connects at import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"demo", "local", "order", "product", "runtime", "sse"}

MAY_IMPORT = {
    "runtime": set[str](),
    "product": {"runtime"},
    "order": {"runtime"},
    "sse": {"runtime"},
    "demo": {"runtime"},
    "local": {"runtime"},
}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no code"
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """The calls that an import makes: all but those in a function's body and under `if __name__ == "__main__"`."""
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


def test_every_package_has_its_rule() -> None:
    assert set(MAY_IMPORT) == OURS


@pytest.mark.parametrize("package", sorted(OURS))
def test_a_package_imports_only_what_it_may(package: str) -> None:
    for path in modules(package):
        used = {name.split(".")[0] for name in imports(path)} & OURS - {package}
        assert used <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {used - MAY_IMPORT[package]}"


@pytest.mark.parametrize("service", ["product", "order"])
def test_a_store_knows_no_service_and_a_domain_no_database_or_transport(service: str) -> None:
    """Envoy → service → domain → store: arrows point one way."""
    stores = [path for path in modules(service) if path.stem.endswith("store")]
    assert stores
    for path in stores:
        assert not [name for name in imports(path) if "service" in name or name.split(".")[0] in ("grpc", "shop")], path
    domains = [path for path in modules(service) if path.stem in ("domain", "reservation")]
    assert domains
    for path in domains:
        for name in imports(path):
            assert name.split(".")[0] not in ("grpc", "psycopg", "psycopg_pool", "shop", "google"), f"{path}: {name}"
            assert not {"store", "service"} & set(name.split(".")), f"{path} imports {name}"


@pytest.mark.parametrize("package", sorted(OURS))
def test_nothing_connects_at_import(package: str) -> None:
    """A module's top level defines; it opens, starts and runs nothing."""
    busy = {"open", "connect", "start", "run", "insecure_channel", "server", "channel", "urlopen", "Popen"}
    for path in modules(package):
        for call in calls_at_import(ast.parse(path.read_text())):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            assert name not in busy, f"{path.relative_to(ROOT)}:{call.lineno} calls {name}"


def test_files_stay_short_enough_to_have_one_reason_to_change() -> None:
    for package in OURS:
        for path in modules(package):
            assert len(path.read_text().splitlines()) <= 400, path
