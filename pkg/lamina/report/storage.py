"""The section on storage: what the runs hold, how fast it came in, and what recording it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.report.choice import names_of
from lamina.report.metrics import metrics_frame
from lamina.report.section import Section, Table
from lamina.runs.status import bytes_on_disk
from lamina.text import number, size

if TYPE_CHECKING:
    from lamina.runs import Run


def storage_section(runs: list[Run]) -> Section:
    """Return tables of what each run and each site holds and, where it was measured, what recording cost."""
    names = names_of(runs)
    held = pl.DataFrame([_held(run, name) for run, name in zip(runs, names, strict=True)])
    section = Section("What was stored")
    section.parts.append(
        Table(
            held,
            "Activations and checkpoints count the bytes of the values themselves, on disk also what describes them; a "
            "chunk of a checkpoint that was stored before is not stored again. The rate is bytes on disk over the time "
            "from the first writer's opening to the last one's closing.",
        )
    )
    sites = pl.concat([run.sites() for run in runs])
    if sites.height:
        section.parts.append(Table(_by_site(sites), _sites_reading(len(runs))))
    cost = _cost(runs)
    if cost is not None:
        section.parts.append(cost)
    return section


def _held(run: Run, name: str) -> dict[str, object]:
    sites = run.sites()
    saved = run.checkpoints().select("step", "bytes", "stored").collect()
    disk = bytes_on_disk(run.path)
    seconds = _seconds(run)
    return {
        "run": name,
        "rows": int(sites["rows"].sum()),
        "activations": size(int(sites["bytes"].sum())),
        "checkpoints": saved["step"].n_unique(),
        "saved": size(int(saved["bytes"].sum())),
        "stored": size(int(saved["stored"].sum())),
        "metrics": int(run.metrics().select(pl.len()).collect().item()),
        "on disk": size(disk),
        "seconds": seconds,
        "rate": f"{size(disk / seconds)}/s" if seconds else "",
    }


def _seconds(run: Run) -> float | None:
    """Seconds from the first writer's opening to the last one's closing; None while any is open."""
    opened = [writer.opened for writer in run.status.writers]
    closed = [writer.closed for writer in run.status.writers]
    if not closed or None in opened or None in closed:
        return None
    return (max(closed) - min(opened)).total_seconds()  # pyright: ignore[reportOperatorIssue, reportArgumentType]


def _by_site(sites: pl.DataFrame) -> pl.DataFrame:
    shape = pl.col("shape").list.eval(pl.element().cast(pl.String)).list.join(" x ")
    total = sites.group_by("site", maintain_order=True).agg(
        pl.col("dtype").first(),
        shape.first().alias("shape"),
        pl.col("rows").sum(),
        pl.col("steps").max(),
        pl.col("bytes").sum(),
        pl.col("non_finite").sum().alias("not finite"),
    )
    stored = pl.col("bytes").map_elements(size, return_dtype=pl.String)
    shown = pl.when(pl.col("shape") == "").then(pl.lit("number")).otherwise(pl.col("shape"))
    return total.with_columns(stored, shown.alias("shape"))


def _sites_reading(count: int) -> str:
    over = f" over all {count} runs" if count > 1 else ""
    return f"What was recorded at each site{over}; shape is that of one row, steps the number of steps in a run."


def _cost(runs: list[Run]) -> Table | None:
    """What the run says recording cost: the metrics `recording/percent` and, where logged, the seconds behind it."""
    frame = metrics_frame(runs).filter(pl.col("name").str.starts_with("recording/"))
    if frame.filter(pl.col("quantity") == "percent").is_empty():
        return None
    wide = frame.group_by("run", "quantity", maintain_order=True).agg(pl.col("value").last())
    wide = wide.pivot("quantity", index="run", values="value").rename(lambda name: name.replace("_", " "))
    percent = wide["percent"]
    spread = ""
    if percent.len() > 1:
        spread = f", from {number(percent.min())} to {number(percent.max())} over {percent.len()} runs"  # pyright: ignore
    return Table(
        wide,
        f"Recording cost {number(percent.mean())} percent of the training time{spread}, "  # pyright: ignore
        "as measured by the training itself: the time with recording over the time without it, less one.",
    )
