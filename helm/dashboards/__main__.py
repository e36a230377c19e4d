"""Writes the chart's dashboards for Grafana. `--check` changes nothing and fails if a file differs."""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from helm.dashboards.health import health
from helm.dashboards.shop import shop

FOLDER = Path(__file__).parents[1] / "shopping-cart" / "files" / "monitoring"


def dashboards() -> dict[Path, str]:
    """Returns the text of each file."""
    return {FOLDER / "shop.json": _text(shop()), FOLDER / "health.json": _text(health())}


def _text(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=1, separators=(",", ":"), sort_keys=True) + "\n"


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the chart's dashboards for Grafana.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file differs")
    check = parser.parse_args().check
    stale = [path for path, text in dashboards().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"the chart's {path.name} differs from helm/dashboards: run `make generate`", file=sys.stderr)
        else:
            path.write_text(dashboards()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
