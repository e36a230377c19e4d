"""Golden renders of the documented sets of values. `make generate` writes them."""

from pathlib import Path
from typing import Any

import yaml

from tests.chart import tools
from tests.chart.sets import SETS


def path(name: str) -> Path:
    return Path(__file__).parent / "golden" / f"{name}.yaml"


def text(name: str) -> str:
    """Returns the objects by kind and name, without random values, files and checksums.

    Other tests cover the files.
    """
    rendered = tools.objects(*SETS[name])
    for each in rendered:
        _simplify(each)
    return yaml.safe_dump_all(rendered, sort_keys=True, width=120)


def _simplify(item: dict[str, Any]) -> None:
    if "helm.sh/hook" in item["metadata"].get("annotations", {}):
        item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] = "(depends on Helm's version)"
    if item["kind"] == "ConfigMap":
        for part in ("data", "binaryData"):
            item[part] = dict.fromkeys(item.get(part, {}), "(file)")
    if item["kind"] == "Secret":
        generated = {key: "(generated)" for key, value in item["data"].items() if len(value) > 40}
        item["data"] |= generated
    annotations = item.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {})
    if "checksum/config" in annotations:
        annotations["checksum/config"] = "(checksum)"


if __name__ == "__main__":
    for each in SETS:
        path(each).write_text(text(each))
