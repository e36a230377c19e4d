"""Which alerts a fault fires: the chart's rules, by promtool, over what a recorder has seen.

Alerts look at minutes, and faults last for seconds here. So time is stretched: each second counts as `Pace.stretch`
seconds, also in what a process says of itself in seconds since something happened (AGES). The intervals of background
work are shorter by as much. Timeouts of calls and connections are not, and seem longer to the rules. How long a call
takes, shares and counts are as measured.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.faults.recorder import Recording, Target
from tests.monitoring import rules

AGES = re.compile(r"shop_(.*_age|carts_purge_lag|jobs_interval)_seconds")
"""The metrics that say how long ago something happened, or how often it should."""

TAILER_AGE = "shop_tailer_age_seconds"

BEGAN = 'min by (alertname) (min_over_time(timestamp(ALERTS{alertstate="%s"})[1d:%ds]))'
"""When each alert reached a state first."""


@dataclass(frozen=True)
class Fired:
    """What the rules make of a recording."""

    firing: dict[str, float]
    """When each alert that fired did so first, in the rules' seconds since the start of the recording."""
    pending: dict[str, float]
    """Likewise, when its condition was true first."""


def fired(recording: Recording, folder: Path, *, stays: int = 0) -> Fired:
    """Evaluates the rules.

    Args:
        recording: What was scraped.
        folder: Where promtool's input is kept.
        stays: Seconds of the rules' time after the recording, in which all is as it was at its end.
    """
    step = recording.pace.step
    more = stays // step
    end = f"{(recording.ticks + more) * step}s"
    # promtool shows what it has got only if something else was expected.
    wrong = [{"labels": "{}", "value": -1}]
    queries = [
        {"expr": BEGAN % (state, step), "eval_time": end, "exp_samples": wrong} for state in ("firing", "pending")
    ]
    case = {"interval": f"{step}s", "input_series": _input(recording, more), "promql_expr_test": queries}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recording.json"
    file.write_text(
        json.dumps({"rule_files": [str(rules.ALERTS)], "evaluation_interval": f"{step}s", "tests": [case]}, indent=1)
    )
    done = rules.run("test", "rules", file)
    answers = re.findall(r"^ *got: *(.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(answers) == len(queries), done.stdout + done.stderr
    return Fired(*(_times(each) for each in answers))


def _times(answer: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r'\{alertname="(\w+)"\} ([-+.\dE]+)', answer)}


def _input(recording: Recording, more: int) -> list[dict[str, str]]:
    """Returns the samples in promtool's notation, the last one `more` times again.

    A shop that has no edge counts as one whose edge is up.
    """
    names = set().union(*(rules.metrics(rule["expr"]) for rule in rules.rules()))
    series = []
    for (name, labels), samples in recording.series(names).items():
        factor = 1
        if AGES.fullmatch(name):
            factor = recording.pace.tailer if name == TAILER_AGE else recording.pace.stretch
        values: list[str] = []
        last: float | None = None
        for tick in range(recording.ticks):
            value = samples.get(tick)
            # After a scrape that failed, or that had no such sample, Prometheus takes a series for gone.
            values.append(f"{value * factor:.12g}" if value is not None else "_" if last is None else "stale")
            last = value
        values.append(f"{values[-1]}+0x{more}" if last is not None else f"_x{more}")
        pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in labels)
        series.append({"series": f"{name}{{{pairs}}}", "values": " ".join(values)})
    if not any(target.component == "gateway" for target in recording.scrapes):
        series += [_edge_is_up(name, recording) for name in ("process_uptime_seconds", "envoy_server_uptime")]
    return series


def _edge_is_up(name: str, recording: Recording) -> dict[str, str]:
    labels = Target("gateway", "shop-gateway-0", 0).labels()
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{pairs}}}", "values": f"1+{recording.pace.step}x{recording.ticks}"}
