"""The head of a report: which runs it is about, their state, what they were told to do, and what was noted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.report.choice import names_of
from lamina.report.section import Section, Table
from lamina.text import cell, settings_of

if TYPE_CHECKING:
    from lamina.runs import Run

_ASIDE = ("description", "units")
"""Settings that the report uses itself."""


def overview_section(runs: list[Run]) -> Section:
    """Return a table of the runs, with the settings in which they differ, and one of those that they share."""
    settings = [settings_of({k: v for k, v in run.config.items() if k not in _ASIDE}) for run in runs]
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    differing = [name for name in names if len({setting.get(name) for setting in settings}) > 1]
    rows = [
        {
            "run": name,
            "status": str(run.status),
            "created (UTC)": cell(run.created),
            "last step": max(run.steps(), default=None),
            **{name: setting.get(name) for name in differing},
        }
        for run, name, setting in zip(runs, names_of(runs), settings, strict=True)
    ]
    section = Section("The runs" if len(runs) > 1 else "The run")
    section.parts.append(
        Table(
            pl.DataFrame(rows, infer_schema_length=None),
            "Finished means that every writer was closed without an error.",
        )
    )
    shared = [name for name in names if name not in differing]
    if shared:
        frame = pl.DataFrame({"setting": shared, "value": [settings[0][name] for name in shared]})
        section.parts.append(
            Table(frame, "The settings that the runs were created with" + (", alike in all." if len(runs) > 1 else "."))
        )
    noted = [
        {"run": name, "time (UTC)": cell(time), "step": step, "note": text}
        for run, name in zip(runs, names_of(runs), strict=True)
        for time, step, text in run.notes().rows()
    ]
    if noted:
        section.parts.append(Table(pl.DataFrame(noted, infer_schema_length=None), "What was noted of them."))
    return section


def title_of(runs: list[Run]) -> str:
    """Return the title of a report on runs."""
    if len(runs) == 1:
        return f"Run {runs[0].name}"
    folders = {run.path.parent.resolve() for run in runs}
    place = f" in {folders.pop().name}" if len(folders) == 1 else ""
    return f"{len(runs)} runs{place}"


def description_of(runs: list[Run]) -> str:
    """Return what the runs say about themselves in `config["description"]`, each sentence once."""
    said = dict.fromkeys(str(run.config["description"]) for run in runs if "description" in run.config)
    return " ".join(said) or 'No description was given: config={"description": …} puts one here.'
