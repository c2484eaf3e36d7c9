"""The report: from runs on disk to one page of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import DamagedError, LaminaError, NotFoundError
from lamina.extras import need
from lamina.paths import path_of
from lamina.progress import track
from lamina.report.choice import names_of
from lamina.report.features import features_section
from lamina.report.heads import heads_section
from lamina.report.kinds import kinds_of
from lamina.report.layers import layers_section
from lamina.report.learnt import learnt_section
from lamina.report.metrics import metrics_section
from lamina.report.norms import norms_section
from lamina.report.overview import description_of, overview_section, title_of
from lamina.report.page import check_place, write_page
from lamina.report.principal import principal_section
from lamina.report.saved import saved_section
from lamina.report.section import Chapter, Section
from lamina.report.similarity import similarity_section
from lamina.report.storage import storage_section
from lamina.report.weights import weights_section

if TYPE_CHECKING:
    from lamina.runs import Run, Runs

_SECTIONS: dict[str, Callable[[list[Run]], Section | None]] = {
    "runs": overview_section,
    "metrics": metrics_section,
    "layers": principal_section,
    "heads": heads_section,
    "features": features_section,
    "norms": norms_section,
    "weights": weights_section,
    "checkpoints": saved_section,
    "examples": learnt_section,
    "storage": storage_section,
}
_MEASURED: dict[str, Callable[..., Section | None]] = {
    "similarity over training": similarity_section,
    "similarity of layers": layers_section,
}
"""Sections that measure for longer than a person waits, so that each has a bar of its own."""
_ORDER = ["runs", "metrics", "layers", *_MEASURED, "heads", "features", "norms", "weights", "checkpoints"]
_ORDER += ["examples", "storage"]


def report(runs: Run | Runs | Iterable[Run], path: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Write a page of pictures about one run or several: one HTML file that opens without a network.

    A section appears when the runs hold what it shows: metrics over steps (mean and range over runs); the last hidden
    layer on its two leading principal directions at four steps, colored by the examples' `label`; the similarity (CKA)
    of layers to each other, to their own end, and across runs; what the attention heads look at, from sites of
    `attention=` and the examples' column `token`; what the features of sparse codes fire on, by the same column, how
    often they do, and how many are dead over training, of the four widest sites; norms of activations and gradients;
    the weights' change between checkpoints; what each checkpoint stored; the examples that were learnt last, from the
    site `loss`; what was stored, and the metric `recording/percent` where a training logged it. The lead is
    `config["description"]`, the units of metrics are `config["units"]`, for example `{"loss": "nats"}`, and the column
    whose values are independent of each other is `config["groups"]`, by default the example.

    Args:
        runs: A run or several; several are averaged where they share an axis. Runs that hold other sites are of
            another kind: they have a chapter of their own and are averaged among themselves.
        path: The file to write; it is replaced in one step, missing folders are made.
        progress: Whether to show a bar on standard error.

    Returns:
        The path of the page. What is damaged is named at its top, and a section that needs it is left out.

    Raises:
        MissingExtraError: If altair or vl-convert is not installed (`lamina[report]`).
        NotFoundError: If there is no run.
        StorageError: If the file cannot be written; that is found before anything is measured.

    Cost: metadata of all rows; vectors of at most 1,000 rows at 48 steps a site, 64 MiB at a time; up to 40
    checkpoints a run, three in memory at a time; three passes over sparse codes, of which 8 million active units are in
    memory at most; about a minute a kind for the similarity of layers.

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
    target = path_of(path)
    check_place(target)
    problems = [f"{run.name}: {LaminaError(*problem)}" for run in members for problem in run.problems]
    kinds = kinds_of(members)
    drawn: dict[tuple[int, str], Section | None] = {}
    for k, kind in enumerate(kinds):
        for name, measure in _MEASURED.items():
            drawn[k, name] = _drawn(name, partial(measure, kind, progress=progress), problems)
    quick = [(k, name) for k in range(len(kinds)) for name in _SECTIONS]
    for k, name in track(quick, "Drawing the report", progress=progress):
        drawn[k, name] = _drawn(name, partial(_SECTIONS[name], kinds[k]), problems)
    chapters = []
    for k, kind in enumerate(kinds):
        sections = [section for name in _ORDER if (section := drawn[k, name]) is not None]
        chapters.append(Chapter(_names(kind), description_of(kind), sections))
    write_page(target, title=title_of(members), problems=problems, chapters=chapters)
    return target


def _drawn(name: str, section: Callable[[], Section | None], problems: list[str]) -> Section | None:
    try:
        return section()
    except DamagedError as error:
        problems.append(f"The section on {name} is left out: {error}")
        return None


def _names(kind: list[Run]) -> str:
    names = names_of(kind)
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} runs: {names[0]}, … {names[-1]}"


def _members(runs: Run | Runs | Iterable[Run]) -> list[Run]:
    members = list(runs) if isinstance(runs, Iterable) else [runs]
    if not members:
        raise NotFoundError("there is no run to report on")
    return members
