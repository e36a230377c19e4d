"""Generates the Python code of the protos and the edge's descriptor set.

    python proto/generate.py [--check]

Generated code is checked in, so that the shop runs without a compiler and a review shows what changed. The protos that
ours import are checked in too, so that a clone compiles without a download:

- `third_party/googleapis` is copied from the googleapis-common-protos package, which has the Python code.
- `third_party/protovalidate` is `buf/validate/validate.proto` of protovalidate v1.2.2, unchanged. The package of that
  name has no code for our protobuf runtime, so it is generated beside ours.
"""

import argparse
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
DESCRIPTORS = ROOT.parent / "envoy" / "shop.binpb"

GOOGLEAPIS = ROOT.parent / "third_party" / "googleapis"
PROTOVALIDATE = ROOT.parent / "third_party" / "protovalidate"

# The last one has google/protobuf, which is part of every compiler.
INCLUDES = [ROOT, GOOGLEAPIS, PROTOVALIDATE, Path(grpc_tools.__path__[0]) / "_proto"]

# By path, because a virtual environment that is not activated is not on PATH.
PLUGINS = [
    f"--plugin={name}={Path(sysconfig.get_path('scripts')) / name}"
    for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
]

VENDORED = [
    "google/api/annotations.proto",
    "google/api/field_behavior.proto",
    "google/api/http.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "google/type/money.proto",
]

VALIDATION = "buf/validate/validate.proto"

KEPT_OPTIONS = (annotations_pb2.http, field_behavior_pb2.field_behavior)
"""The options in Envoy's descriptor set."""

# Our protos do not import it, but errors have it in their details, and Envoy shows only messages that it knows.
ALSO_DESCRIBED = ["google/rpc/error_details.proto"]


def installed(name: str) -> Path:
    """Returns the path of a proto of the googleapis-common-protos package."""
    return Path(str(distribution("googleapis-common-protos").locate_file(name)))


def compile_all(target: Path) -> None:
    """Writes all generated Python under `target`, laid out as the protos are."""
    messages = (f"--python_out={target}", f"--mypy_out=quiet:{target}")
    services = (f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}")
    run([*messages, *services, *our_protos()])
    run([*messages, VALIDATION])


def our_protos() -> list[str]:
    """Returns the paths of our protos, relative to ROOT."""
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("shop/**/*.proto"))]


def describe_all(target: Path) -> None:
    """Writes the descriptor set for Envoy, without comments and validation rules.

    Envoy does not enforce the rules, and their proto would make the set three times as large.
    """
    run([f"--descriptor_set_out={target}", "--include_imports", *our_protos(), *ALSO_DESCRIBED])
    described = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in [each for each in described.file if each.name == VALIDATION]:
        described.file.remove(file)
    for file in described.file:
        if VALIDATION in file.dependency:
            file.dependency.remove(VALIDATION)
    described.DiscardUnknownFields()  # protobuf knows the options of imported modules only, which are KEPT_OPTIONS
    target.write_bytes(described.SerializeToString(deterministic=True))


def run(arguments: list[str]) -> None:
    """Runs protoc with our plugins and include paths.

    Raises:
        SystemExit: protoc failed.
    """
    command = ["protoc", *PLUGINS, *(f"-I{path}" for path in INCLUDES), *arguments]
    status = int(protoc.main(command))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - no types
    if status:
        raise SystemExit(f"protoc failed with status {status}")


def generated(folder: Path) -> Iterator[Path]:
    """Yields the paths of the generated Python files in `folder`, relative to it, without bytecode."""
    for package in ("buf", "shop"):
        for path in sorted(folder.glob(f"{package}/**/*_pb2*")):
            if path.suffix in (".py", ".pyi"):
                yield path.relative_to(folder)


def stale() -> list[str]:
    """Returns the checked-in files that differ from the generated ones, or that are no longer generated."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        compile_all(fresh)
        describe_all(fresh / DESCRIPTORS.name)
        made, there = set(generated(fresh)), set(generated(ROOT))
        wrong = [
            str(Path(ROOT.name) / name)
            for name in sorted(made | there)
            if name not in made & there or (fresh / name).read_bytes() != (ROOT / name).read_bytes()
        ]
        wrong += [
            str((GOOGLEAPIS / name).relative_to(ROOT.parent))
            for name in VENDORED
            if not (GOOGLEAPIS / name).exists() or (GOOGLEAPIS / name).read_bytes() != installed(name).read_bytes()
        ]
        if not DESCRIPTORS.exists() or (fresh / DESCRIPTORS.name).read_bytes() != DESCRIPTORS.read_bytes():
            wrong.append(str(DESCRIPTORS.relative_to(ROOT.parent)))
        return wrong


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Generate code from the protos.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something is out of date")
    if parser.parse_args().check:
        wrong = stale()
        if wrong:
            print(f"out of date, run `make generate`: {', '.join(wrong)}", file=sys.stderr)
        return 1 if wrong else 0
    for name in generated(ROOT):
        (ROOT / name).unlink()  # so that no code of a deleted proto remains
    for name in VENDORED:
        (GOOGLEAPIS / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed(name), GOOGLEAPIS / name)
    compile_all(ROOT)
    describe_all(DESCRIPTORS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
