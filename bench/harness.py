"""Measuring side by side: interleaved repetitions, the machine's limit in the same run, a table that says where.

A case is a function that does the work once and returns the seconds of each named phase, so that it can
leave out what is not asked about (making a folder, removing a file).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lamina.progress import track

Case = Callable[[], Mapping[str, float]]

RESULTS = Path(__file__).parent / "results"
SCRATCH = Path(__file__).parents[1] / "target" / "bench"


def interleave(cases: Mapping[str, Case], repetitions: int, description: str) -> dict[str, dict[str, list[float]]]:
    """Run every case `repetitions` times in the order ABCABC and return the seconds by case and phase.

    A drift of the machine (heat, a neighbor, a filling disk) then hits all cases alike.
    """
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    rounds = [name for _ in range(repetitions) for name in cases]
    for name in track(rounds, description):
        for phase, value in cases[name]().items():
            seconds[name].setdefault(phase, []).append(value)
    return seconds


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the least and the greatest."""
    return statistics.median(values), min(values), max(values)


@dataclass
class Table:
    """One question's answer.

    Attributes:
        question: What was asked, in a sentence.
        columns: The names of the columns, with their units.
        rows: A dict a row, by column.
        notes: What a reader must know: the protocol, what is left out.
        packages: The distributions whose versions matter.
        samples: Every measured value, kept in the JSON alone.
    """

    question: str
    columns: list[str]
    rows: list[dict[str, Any]]
    notes: list[str]
    packages: list[str]
    samples: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str) -> Path:
        """Write `<name>.md` and `<name>.json` into bench/results/ and print the former."""
        setting = {"date": datetime.now(UTC).date().isoformat()} | machine() | {"versions": versions(self.packages)}
        RESULTS.mkdir(exist_ok=True)
        whole = {"question": self.question, "setting": setting, "rows": self.rows, "notes": self.notes}
        (RESULTS / f"{name}.json").write_text(json.dumps(whole | {"samples": self.samples}, indent=1) + "\n")
        page = RESULTS / f"{name}.md"
        page.write_text(self.markdown(setting))
        print(page.read_text())
        return page

    def markdown(self, setting: Mapping[str, Any]) -> str:
        """Return the table with its setting and notes."""
        head = [f"# {self.question}", ""]
        body = [_line(self.columns), _line(["---"] * len(self.columns))]
        body += [_line([_cell(row.get(column)) for column in self.columns]) for row in self.rows]
        tail = ["", *(f"- {note}" for note in self.notes)]
        tail += [f"- {key}: {_cell(value)}" for key, value in setting.items()]
        return "\n".join([*head, *body, *tail]) + "\n"


def machine() -> dict[str, str]:
    """Describe the machine without naming it."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    SCRATCH.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", SCRATCH], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "file system": kind,
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def versions(packages: Sequence[str]) -> str:
    """List the versions of Python and of the packages."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from the source tree"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
