"""The protos compile as they are in a clone, for clients in other languages."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted(path.relative_to(ROOT) for path in (ROOT / "proto" / "shop").rglob("*.proto"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone has of it: nothing that a build makes, and no cache of anything downloaded."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    for folder in ("proto", "third_party"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.py*", "__pycache__"))
    return tmp_path


def run(clone: Path, *command: str | Path) -> None:
    done = subprocess.run(
        command, cwd=clone, env={"HOME": str(clone), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def described(path: Path) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    return {each.name: each for each in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file}


def test_buf_builds_a_clone(clone: Path) -> None:
    run(clone, Path(sysconfig.get_path("scripts")) / "buf", "build", "-o", "all.binpb")
    assert {str(path.relative_to("proto")) for path in PROTOS} <= set(described(clone / "all.binpb"))


def test_protoc_compiles_a_clone(clone: Path) -> None:
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    includes = ["-I", "proto", "-I", "third_party/googleapis", "-I", "third_party/protovalidate"]
    run(clone, *protoc, *includes, "--include_imports", "-oall.binpb", *PROTOS)
    for name, file in described(clone / "all.binpb").items():
        if name.startswith("shop/"):
            _, service, version, _ = name.split("/")
            assert file.options.go_package == f"shop/{service}/{version};{service}{version}"
            assert file.options.java_package == file.package == f"shop.{service}.{version}"
            assert file.options.java_multiple_files
            assert re.fullmatch(r"[A-Z]\w+Proto", file.options.java_outer_classname)


IMPORTED = {"shop/access/v1", "shop/order/v1"}
"""The Go packages that others of ours import. docs/api.md has an option for each."""


def test_go_packages_import_no_others_of_ours() -> None:
    """So generated Go works below any path in a client's module, with the options that docs/api.md shows."""
    for path in PROTOS:
        for imported in re.findall(r'^import "(shop/.+)/[^/]+\.proto"', (ROOT / path).read_text(), re.MULTILINE):
            assert imported in IMPORTED or str(path.parent) == f"proto/{imported}"
