"""The pods of a render."""

from typing import Any

from tests.chart import tools

WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")


def pods(*arguments: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Returns `Kind/name`, metadata and spec of every pod of a render. `arguments` are those of `helm template`."""
    found = []
    for each in tools.objects(*arguments):
        if each["kind"] in WORKLOADS:
            template = each if each["kind"] == "Pod" else each["spec"]["template"]
            found.append((f"{each['kind']}/{each['metadata']['name']}", template["metadata"], template["spec"]))
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the containers of a pod, init containers first."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def spec(name: str, *arguments: str) -> dict[str, Any]:
    """Returns the spec of the only pod whose `Kind/name` begins with `name`."""
    [found] = (spec for pod, _, spec in pods(*arguments) if pod.startswith(name))
    return found


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a container's variables by name; None for one without a value."""
    return {each["name"]: each.get("value") for each in container["env"]}
