"""Stands in for helm and kubectl: notes what they are asked to do, in the folder STATE. It needs no cluster."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

STATE = Path(os.environ["STATE"])


def merge(into: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Merges values as Helm does."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def options(arguments: list[str], name: str) -> list[str]:
    return [arguments[index + 1] for index, each in enumerate(arguments) if each == name]


def helm(arguments: list[str]) -> None:
    """Keeps the values of the release in values.yaml."""
    kept = STATE / "values.yaml"
    if arguments[:2] == ["get", "values"]:
        sys.stdout.write(kept.read_text())
        return
    assert arguments[0] in {"install", "upgrade"}, arguments
    values = yaml.safe_load(kept.read_text()) if "--reuse-values" in arguments else {}
    for file in options(arguments, "--values"):
        merge(values, yaml.safe_load(Path(file).read_text()))
    kept.write_text(yaml.safe_dump(values))


def kubectl(arguments: list[str]) -> None:
    """Appends each object that is applied to objects.jsonl, and each command to commands.txt."""
    with (STATE / "commands.txt").open("a") as commands:
        commands.write(" ".join(arguments) + "\n")
    if "apply" in arguments:
        with (STATE / "objects.jsonl").open("a") as objects:
            for file in options(arguments, "--filename"):
                text = sys.stdin.read() if file == "-" else Path(file).read_text()
                objects.writelines(json.dumps(each) + "\n" for each in yaml.safe_load_all(text) if each)
    elif "pod" in arguments:
        [selector] = options(arguments, "--selector")
        sys.stdout.write(f"pod/{selector.partition('=')[2].partition(',')[0]}-1\n")
    elif "exec" in arguments and "--stdin" in arguments:
        sys.stdin.read()


{"helm": helm, "kubectl": kubectl}[sys.argv[1]](sys.argv[2:])
