"""What pip installs: in the image, nothing else of this checkout is there."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    """A checkout works without: Python finds the folder there, and in the image it does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    find = project["tool"]["setuptools"]["packages"]["find"]
    programs = {name.partition(".")[0] for name in project["project"]["scripts"].values()} | {"runtime"}
    needed = {
        ".".join(path.parent.relative_to(folder).parts)
        for folder, top in [*((ROOT, each) for each in programs), (ROOT / "proto", "shop")]
        for path in (folder / top).rglob("*.py")
    }
    assert {"runtime", "runtime.access", "shop.order.v1", "sse.gateway"} <= needed
    assert [name for name in sorted(needed) if not any(fnmatch(name, each) for each in find["include"])] == []
