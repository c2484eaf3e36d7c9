"""What a run holds already: a capture goes on behind it, and a training does not record it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import NotFoundError, RecordingError
from lamina.recording.ranks import own_rank

if TYPE_CHECKING:
    from lamina.runs import Run


def refuse_again(run: Run, sites: Iterable[str], sources: Iterable[str], step: int, rank: int | None) -> None:
    """Raise RecordingError if a run holds rows of a training that begins at `step`, of that step or later ones.

    Those of its probes count: the final state of one training is where the next one begins.

    They would stand twice, under the same names. Costs next to nothing if the run ends before.
    """
    if not any(known >= step for known in run.refresh().steps()):
        return
    known = set(run.activations().collect_schema())
    ours = [site for site in sites if site in known]
    if not ours:
        return
    rows = run.activations(ours).filter(pl.col("step") >= step, pl.col("source").is_in(list(sources)))
    again = rows.filter(pl.col("rank").eq_missing(pl.lit(rank, pl.Int64))) if "rank" in known else rows
    last = again.select(pl.col("step").max()).collect().item()
    if last is not None:
        raise RecordingError(
            f"the run holds steps up to {last} of these sites already, and this training begins at step {step}",
            hint=f"run.rewind({step}) hides what came from there on; another training has a run of its own",
        )


class Recorded:
    """The examples of one source that a run holds, step by step.

    A writer's rows survive as a beginning of what it wrote. So of all batches only the one with the last row may be
    there in part: its rows are deleted, and it is recorded again. Of several ranks each looks at its own rows.
    """

    def __init__(self, run: Run, sites: Iterable[str], source: str) -> None:
        self._run = run
        self._sites = list(sites)
        try:
            rows = run.activations(self._sites).filter(pl.col("source") == source)
            if (rank := own_rank()) is not None and "rank" in rows.collect_schema():
                rows = rows.filter(pl.col("rank").fill_null(rank) == rank)
        except NotFoundError:
            rows = pl.LazyFrame(schema={"row": pl.Int64, "step": pl.Int64, "example": pl.Int64})
        self._rows = rows.select("row", "step", "example").collect()
        self._examples = {
            step: set(part["example"].to_list()) for (step,), part in self._rows.group_by("step", maintain_order=True)
        }
        last = self._rows.filter(pl.col("row") == pl.col("row").max())
        self._last = None if last.is_empty() else (last["step"][0], last["example"][0])

    def __len__(self) -> int:
        """The number of rows."""
        return self._rows.height

    def refuse(self, source: str, steps: Iterable[int]) -> None:
        """Raise RecordingError if the run holds rows of one of the steps."""
        for step in steps:
            if step in self._examples:
                raise RecordingError(
                    f"the run holds rows of step {step} and source {source!r} at these sites already",
                    hint="resume=True goes on behind them; another source= stands beside them; run.delete hides them",
                )

    def skips(self, step: int, example: Any) -> bool:
        """Tell whether a batch is recorded; of one that may be there in part, the rows are deleted."""
        examples = np.asarray(example.cpu() if hasattr(example, "cpu") else example).reshape(-1).tolist()
        known = self._examples.get(step, set())
        if not known.issuperset(examples):
            # What is there of them is a part of the last batch, divided in another way than now.
            self._delete(step, [one for one in examples if one in known])
            return False
        if self._last is not None and self._last[0] == step and self._last[1] in examples:
            self._delete(step, examples)
            return False
        return True

    def _delete(self, step: int, examples: list[Any]) -> None:
        if not examples:
            return
        found = self._rows.filter(pl.col("step") == step, pl.col("example").is_in(examples))
        self._run.delete(self._sites, rows=found["row"].to_list())
