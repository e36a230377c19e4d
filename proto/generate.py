"""Generates the Python code of the protos and the edge's descriptor set; with --check, says what is out of date.

    python proto/generate.py [--check]

Generated code is checked in, so that nobody needs a compiler to run the shop, and a review sees what changed. So are
Google's protos that ours import, in `third_party/googleapis`: whoever clones the repository can compile ours with them.
They are those of the googleapis-common-protos package, which has their Python code.
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
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
DESCRIPTORS = ROOT.parent / "envoy" / "shop.binpb"

GOOGLEAPIS = ROOT.parent / "third_party" / "googleapis"

# The last one has google/protobuf, which every compiler brings along.
INCLUDES = [ROOT, GOOGLEAPIS, Path(grpc_tools.__path__[0]) / "_proto"]

# By path, since a virtual environment that is not activated is not on PATH.
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

# Not imported by ours, but sent in the details of errors: Envoy can only show what it knows.
ALSO_DESCRIBED = ["google/rpc/error_details.proto"]


def installed(name: str) -> Path:
    """A proto of the googleapis-common-protos package."""
    return Path(str(distribution("googleapis-common-protos").locate_file(name)))


def compile_all(target: Path) -> None:
    """Writes all generated Python under `target`, laid out as the protos are."""
    protos = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("shop/**/*.proto"))]
    outputs = ("--python_out={}", "--grpc_python_out={}", "--mypy_out=quiet:{}", "--mypy_grpc_out=quiet:{}")
    run([*(each.format(target) for each in outputs), *protos])


def describe_all(target: Path) -> None:
    """Writes the descriptor set, without source info: comments are no business of the edge's."""
    protos = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("shop/**/*.proto"))]
    run([f"--descriptor_set_out={target}", "--include_imports", *protos, *ALSO_DESCRIBED])
    described = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    target.write_bytes(described.SerializeToString(deterministic=True))


def run(arguments: list[str]) -> None:
    status = protoc.main(["protoc", *PLUGINS, *(f"-I{path}" for path in INCLUDES), *arguments])
    if status:
        raise SystemExit(f"protoc failed with status {status}")


def generated(folder: Path) -> Iterator[Path]:
    """The generated Python under `folder`, relative to it; not the bytecode that running it leaves beside it."""
    for path in sorted(folder.glob("shop/**/*_pb2*")):
        if path.suffix in (".py", ".pyi"):
            yield path.relative_to(folder)


def stale() -> list[str]:
    """The checked-in files that differ from what would be generated, or that nothing generates any more."""
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
        (ROOT / name).unlink()  # of a proto that is gone, nothing stays
    for name in VENDORED:
        (GOOGLEAPIS / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed(name), GOOGLEAPIS / name)
    compile_all(ROOT)
    describe_all(DESCRIPTORS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
