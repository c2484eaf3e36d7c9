"""A question's answer: a table as Markdown and JSON that says where, when and with what it was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from bench import paths


class Spread(NamedTuple):
    """Where repeated measurements lie."""

    median: float
    least: float
    lower: float
    upper: float
    greatest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the least, the quartiles and the greatest."""
    if len(values) == 1:
        return Spread(*[values[0]] * 5)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, min(values), lower, upper, max(values))


@dataclass
class Table:
    """One question's answer.

    Attributes:
        question: What was asked, in a sentence.
        columns: The names of the columns, with their units.
        rows: A dict a row, by column.
        notes: What a reader must know: the protocol, what was expected, what is left out.
        packages: The distributions whose versions matter.
        versions: Versions of what ran elsewhere, by distribution.
        samples: Every measured value, kept in the JSON alone.
    """

    question: str
    columns: list[str]
    rows: list[dict[str, Any]]
    notes: list[str]
    packages: list[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)

    def publish(self, name: str, *, device: str = "cpu", quick: bool = False) -> str:
        """Print the table and, unless the run was a quick one, write `<name>.md` and `<name>.json`.

        Args:
            name: The question's file name in bench/results/; a GPU's results carry the GPU's name behind it.
            device: Where the work was done.
            quick: Whether this was a smoke run, whose figures mean nothing.

        Returns:
            The Markdown.
        """
        setting = {"date": datetime.now(UTC).date().isoformat()} | machine(device)
        setting["versions"] = _versions(self.packages, self.versions)
        page = self.markdown(setting)
        print(page)
        if not quick:
            stem = name if device == "cpu" else f"{name}.{slug(setting['device'])}"
            whole = {"question": self.question, "setting": setting, "rows": self.rows, "notes": self.notes}
            paths.RESULTS.mkdir(exist_ok=True)
            (paths.RESULTS / f"{stem}.json").write_text(json.dumps(whole | {"samples": self.samples}, indent=1) + "\n")
            (paths.RESULTS / f"{stem}.md").write_text(page)
        return page

    def markdown(self, setting: Mapping[str, Any]) -> str:
        """Return the table with its setting and notes."""
        head = [f"# {self.question}", ""]
        body = [_line(self.columns), _line(["---"] * len(self.columns))]
        body += [_line([_cell(row.get(column)) for column in self.columns]) for row in self.rows]
        tail = ["", *(f"- {note}" for note in self.notes)]
        tail += [f"- {key}: {_cell(value)}" for key, value in setting.items()]
        return "\n".join([*head, *body, *tail]) + "\n"


def machine(device: str = "cpu") -> dict[str, str]:
    """Describe the machine without naming it."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", paths.SCRATCH], capture_output=True, text=True, check=True
    ).stdout.strip()
    described = {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "file system": kind,
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
    }
    if device.startswith("cuda"):
        import torch

        described = {"device": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda)} | described
    return described


def slug(text: str) -> str:
    """Return a text as it may stand in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _versions(packages: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    here = {name: _version(name) for name in packages}
    found = {"python": platform.python_version(), **here, **elsewhere}
    return ", ".join(f"{name} {at}" for name, at in found.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from the source tree"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    """Write a cell; floats keep three digits, or all in front of the point."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
