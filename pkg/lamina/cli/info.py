"""What a run holds, at a glance; vectors are never read."""

from __future__ import annotations

import polars as pl
from rich.console import Console
from rich.text import Text

from lamina.cli.show import plain, table
from lamina.errors import LaminaError
from lamina.runs import Run
from lamina.runs.status import bytes_on_disk
from lamina.text import settings_of, size

_STEPS = 12
"""Most steps listed: the first half and the last."""


def show_run(run: Run, console: Console) -> None:
    """Print the state of a run, its configuration, and what was recorded."""
    steps = run.steps()
    facts = {
        "run": str(run.path),
        "id": run.id,
        "created": run.created.isoformat(sep=" ", timespec="seconds"),
        "status": str(run.status),
        "on disk": size(bytes_on_disk(run.path)),
        **({"indexes": size(indexes)} if (indexes := bytes_on_disk(run.path / "index")) else {}),
        "steps": f"{len(steps):,}: {_listed(steps)}" if steps else "none recorded",
    }
    facts |= {f"config {name}": value for name, value in settings_of(run.config).items()}
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        console.print(Text.assemble((f"{plain(name):<{width}}  ", "bold"), plain(value)))
    for problem in run.problems:
        console.print(Text.assemble(("problem: ", "yellow"), plain(str(LaminaError(*problem)))))
    for title, frame in _tables(run).items():
        if frame.is_empty():
            console.print(Text(f"\n{title}: none", style="bold"))
        else:
            console.print(Text(f"\n{title}", style="bold"))
            console.print(table(frame))


def show_runs(runs: list[Run], console: Console) -> None:
    """Print a line a run."""
    rows = []
    for run in runs:
        steps = run.steps()
        rows.append(
            {
                "run": run.name,
                "status": str(run.status),
                "created": run.created,
                "steps": len(steps),
                "last step": steps[-1] if steps else None,
                "rows": int(run.sites()["rows"].sum()),
                "on disk": size(bytes_on_disk(run.path)),
                "problems": len(run.problems),
            }
        )
    console.print(table(pl.DataFrame(rows, infer_schema_length=None)))


def _tables(run: Run) -> dict[str, pl.DataFrame]:
    shape = pl.col("shape").list.eval(pl.element().cast(pl.String)).list.join(" x ")
    in_words = pl.col("bytes").map_elements(size, return_dtype=pl.String)
    kept = run.metrics().select("name", "source", "site", "step", "value").collect()
    last = kept.group_by("name", "source", "site", maintain_order=True).agg(
        values=pl.len(), last_step=pl.col("step").last(), last_value=pl.col("value").last()
    )
    saved = (
        run.checkpoints()
        .group_by("step", "part")
        .agg(tensors=pl.len(), bytes=pl.col("bytes").sum(), stored=pl.col("stored").sum())
        .sort("step", "part")
        .collect()
        .with_columns(pl.col("bytes", "stored").map_elements(size, return_dtype=pl.String))
    )
    examples = run.examples()
    count = examples.select(pl.len()).collect().item()
    columns = [(name, str(dtype)) for name, dtype in examples.collect_schema().items()] if count else []
    attached = run.attachments().with_columns(pl.col("bytes", "stored").map_elements(size, return_dtype=pl.String))
    # most runs have neither, and need not be told
    said = {"notes": run.notes(), "attachments": attached}
    return {
        "sites": run.sites().with_columns(shape, in_words),
        "metrics": last.rename({"last_step": "last step", "last_value": "last value"}),
        "checkpoints": saved,
        f"examples ({count:,} rows)" if count else "examples": pl.DataFrame(columns, ["column", "type"], orient="row"),
        **{title: frame for title, frame in said.items() if not frame.is_empty()},
    }


def _listed(steps: list[int]) -> str:
    if len(steps) <= _STEPS:
        return ", ".join(map(str, steps))
    return ", ".join(map(str, steps[: _STEPS // 2])) + ", … " + ", ".join(map(str, steps[-_STEPS // 2 :]))
