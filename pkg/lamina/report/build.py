"""The report: from runs on disk to one page of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import DamagedError, LaminaError, NotFoundError
from lamina.extras import need
from lamina.progress import track
from lamina.report.learnt import learnt_section
from lamina.report.metrics import metrics_section
from lamina.report.norms import norms_section
from lamina.report.overview import description_of, overview_section, title_of
from lamina.report.page import write_page
from lamina.report.principal import principal_section
from lamina.report.storage import storage_section
from lamina.report.weights import weights_section

if TYPE_CHECKING:
    from lamina.runs import Run, Runs

_SECTIONS = {
    "runs": overview_section,
    "metrics": metrics_section,
    "layers": principal_section,
    "norms": norms_section,
    "weights": weights_section,
    "examples": learnt_section,
    "storage": storage_section,
}


def report(runs: Run | Runs | Iterable[Run], path: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Write a page of pictures about one run or several: one HTML file that opens without a network.

    A section appears when the runs hold what it shows: metrics over steps (mean and range over runs); the last
    hidden layer on its two leading principal directions at four steps, colored by the examples' `label`; norms of
    activations and gradients; the weights' change between checkpoints; the examples that were learnt last, from the
    site `loss`; what was stored, and the metric `recording/percent` where a training logged it. The lead is
    `config["description"]`, the units of metrics are `config["units"]`, for example `{"loss": "nats"}`.

    Args:
        runs: A run or several; several are averaged where they share an axis.
        path: The file to write; it is replaced in one step, missing folders are made.
        progress: Whether to show a bar on standard error.

    Returns:
        The path of the page. What is damaged is named at its top, and a section that needs it is left out.

    Raises:
        MissingExtraError: If altair or vl-convert is not installed (`lamina[report]`).
        NotFoundError: If there is no run.

    Cost: metadata of all rows; vectors of at most 1,000 rows at 48 steps a site, 64 MiB at a time; up to 40
    checkpoints a run, three in memory at a time.

    Example:
        >>> import lamina
        >>> from lamina.report import report
        >>> run = lamina.Run.create("runs/empty")
        >>> report(run, "runs/empty.html", progress=False).name
        'empty.html'
    """
    need("altair", extra="report")
    need("vl_convert", extra="report")
    members = _members(runs)
    problems = [f"{run.name}: {LaminaError(*problem)}" for run in members for problem in run.problems]
    sections = []
    for name in track(_SECTIONS, "Drawing the report", progress=progress):
        try:
            section = _SECTIONS[name](members)
        except DamagedError as error:
            problems.append(f"The section on {name} is left out: {error}")
            continue
        if section is not None:
            sections.append(section)
    target = Path(path)
    write_page(target, title=title_of(members), lead=description_of(members), problems=problems, sections=sections)
    return target


def _members(runs: Run | Runs | Iterable[Run]) -> list[Run]:
    members = list(runs) if isinstance(runs, Iterable) else [runs]
    if not members:
        raise NotFoundError("there is no run to report on")
    return members
