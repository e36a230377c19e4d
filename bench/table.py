"""The results of a comparison: rows of a table, and objects in a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.load import Load

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SHOP = "shop"
CEILING = "empty"
FASTAPI = "fastapi"


@dataclass(frozen=True)
class Round:
    """One round of one system. CPU seconds are by process."""

    load: Load
    cpu_s_per_1000: Mapping[str, float]

    @property
    def cpu(self) -> float:
        """CPU seconds for 1,000 requests, of all processes together."""
        return sum(self.cpu_s_per_1000.values())


@dataclass(frozen=True, kw_only=True)
class Result:
    """The medians of the rounds of one system in one case."""

    case: str
    system: str
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    cpu_by_process: Mapping[str, float]
    ratio_to_ceiling: float | None
    """Requests per second, divided by those of an empty RPC through the same Envoy in the same round."""
    ratio_to_fastapi: float | None


def _ratio(ours: Sequence[Round], theirs: Sequence[Round] | None) -> float | None:
    if not theirs:
        return None
    return round(median(a.load.rps / b.load.rps for a, b in zip(ours, theirs, strict=True)), 2)


def summarise(case: str, found: Mapping[str, Sequence[Round]]) -> list[Result]:
    """Returns a result for each system. Ratios compare rounds of the same number."""
    return [
        Result(
            case=case,
            system=system,
            rps=round(median(each.load.rps for each in rounds), 1),
            p50_ms=round(median(each.load.p50_ms for each in rounds), 1),
            p99_ms=round(median(each.load.p99_ms for each in rounds), 1),
            cpu_s_per_1000=round(median(each.cpu for each in rounds), 2),
            cpu_by_process={
                part: round(median(each.cpu_s_per_1000[part] for each in rounds), 2)
                for part in rounds[0].cpu_s_per_1000
            },
            ratio_to_ceiling=_ratio(rounds, found.get(CEILING)),
            ratio_to_fastapi=_ratio(rounds, found.get(FASTAPI)),
        )
        for system, rounds in found.items()
    ]


HEAD = (
    "case",
    "system",
    "requests/s",
    "to empty RPC",
    "to FastAPI",
    "p50 ms",
    "p99 ms",
    "CPU s per 1,000",
    "by process",
)


def _row(result: Result) -> tuple[str, ...]:
    ratios = ("–" if each is None else f"{each:.2f}" for each in (result.ratio_to_ceiling, result.ratio_to_fastapi))
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in result.cpu_by_process.items() if seconds >= 0.01)
    return (
        *(result.case, result.system, f"{result.rps:,.0f}", *ratios),
        *(f"{result.p50_ms:,.1f}", f"{result.p99_ms:,.1f}", f"{result.cpu_s_per_1000:.2f}", parts),
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown with aligned columns."""
    lines = [head, ["---"] * len(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width, "-" if cell == "---" else " ") for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown."""
    return markdown(HEAD, [_row(each) for each in results])


def save(results: "Sequence[DataclassInstance]", path: Path) -> None:
    """Writes the results to a file as a JSON list of objects."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
