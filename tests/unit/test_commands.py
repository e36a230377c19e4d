"""The commands that an installation has: the console scripts of pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def run(*command: str | Path, folder: Path) -> str:
    """Returns what a command prints when it is run in a folder."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_console_script_prints_its_usage(script: str, tmp_path: Path) -> None:
    assert run(Path(sys.executable).parent / script, "--help", folder=tmp_path).startswith(f"usage: {script}")


def test_local_shop_starts_from_any_folder(tmp_path: Path) -> None:
    """Our folder `envoy` once hid the package of that name, or was hidden by it, by the folder it was run from."""
    for folder in (tmp_path, ROOT, ROOT / "envoy"):
        assert "usage: shop up" in run(sys.executable, "-m", "local", "up", "--help", folder=folder)


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["repository", "elsewhere"])
def test_import_of_envoy_is_the_installed_package(folder: Path) -> None:
    found = run(sys.executable, "-c", "import envoy; print(envoy.__file__)", folder=folder)
    assert "site-packages" in found
    assert not list((ROOT / "envoy").rglob("*.py"))


def test_image_has_all_commands_except_shop() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for script in set(SCRIPTS) - {"shop"}:
        assert script in text.split("\nFROM", maxsplit=1)[0], f"the Dockerfile's head does not name {script}"
