"""Which checkpoints of a run stay: rules, what they would do, and doing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from lamina import _core
from lamina.errors import NotFoundError, SchemaError
from lamina.runs import globs
from lamina.runs.nearest import nearest_names, nearest_steps
from lamina.runs.steps import Steps, has_step, plain_steps

if TYPE_CHECKING:
    from lamina.runs.run import Run

Best = str | Mapping[str, int] | None
_SCHEMA = {"step": pl.Int64, "part": pl.String, "bytes": pl.Int64, "kept": pl.Boolean, "why": pl.String}
_AT_ONCE = 1 << 18
"""Spans of steps that one commit names."""


@dataclass(frozen=True)
class Retention:
    """What rules would keep of the checkpoints of a run; nothing is done before `apply`.

    Attributes:
        checkpoints: One row a step and part that the rules are about: step, part, bytes (of the whole), kept, why (the
            rules that keep it).
        bytes_freed: Bytes in the run's files that nothing else needs.
    """

    checkpoints: pl.DataFrame
    bytes_freed: int
    _run: Run = field(repr=False)
    _before: list[tuple[int, int]] = field(repr=False)

    def __str__(self) -> str:
        """What would be hidden, in a sentence."""
        hidden, every = self.hidden["step"].n_unique(), self.checkpoints["step"].n_unique()
        if not hidden:
            return f"all {every:,} checkpoints stay"
        parts = self.checkpoints["part"].unique(maintain_order=True).to_list()
        kept = self.checkpoints.filter("kept")["step"].n_unique()
        stay = f"{kept:,} stay{'s' * (kept == 1)}"
        return f"of {every:,} checkpoints ({', '.join(parts)}) {stay}; {self.bytes_freed:,} bytes can be reclaimed"

    __repr__ = __str__

    @property
    def hidden(self) -> pl.DataFrame:
        """The rows of `checkpoints` that are not kept."""
        return self.checkpoints.filter(~pl.col("kept"))

    def apply(self) -> Run:
        """Hides what is not kept, and refreshes the run.

        What was saved since the rules were looked at stays, whatever its step. Nothing is erased: `lamina.open(path,
        hidden=True)` shows it until `compact` and `gc` have reclaimed the bytes.

        Raises:
            StorageError: The file system refused; then nothing is hidden.
        """
        spans = [
            (part, span)
            for (part,), rows in self.hidden.group_by("part", maintain_order=True)
            for span in _spans(rows["step"].sort().to_list())
        ]
        for start in range(0, len(spans), _AT_ONCE):
            what: dict[str, list[tuple[int, int]]] = {}
            for part, span in spans[start : start + _AT_ONCE]:
                what.setdefault(str(part), []).append(span)
            _core.discard(str(self._run.path), [([part], its) for part, its in what.items()], self._before)
        return self._run.refresh()


def retain(
    run: Run,
    *,
    every: int | None,
    per_decade: int | None,
    last: int | None,
    lowest: Best,
    highest: Best,
    steps: Steps,
    parts: str | Sequence[str] | None,
) -> Retention:
    """See `Run.retain`."""
    # taken before the run is looked at: what is saved between the two is not hidden
    before = _core.positions(str(run.path))
    run.refresh()
    saved = run._saved.parts_by_step()
    if not saved:
        raise NotFoundError(f"{run.path} holds no checkpoint")
    known = list(dict.fromkeys(part for names in saved.values() for part in names))
    chosen = known if parts is None else globs.select(parts, known, what="part")
    rules = _rules(run, every, per_decade, last, lowest, highest, plain_steps(steps), sorted(saved))
    if not rules:
        raise SchemaError(
            "no rule says what to keep", hint="give every=, per_decade=, last=, lowest=, highest= or steps="
        )
    rows = []
    for part in chosen:
        there = [step for step in sorted(saved) if part in saved[step]]
        why: dict[int, list[str]] = {step: [] for step in there}
        for name, rule in rules.items():
            for step in rule(there):
                why[step].append(name)
        if not any(why.values()):
            raise SchemaError(
                f"the rules keep no checkpoint of the part {part!r}",
                hint=f"its steps are {there[0]} to {there[-1]}; last=1 keeps the last",
            )
        rows += [(step, part, bool(names), ", ".join(names)) for step, names in why.items()]
    frame = pl.DataFrame(rows, {name: _SCHEMA[name] for name in ("step", "part", "kept", "why")}, orient="row")
    sizes = run.checkpoints().group_by("step", "part").agg(pl.col("bytes").sum()).collect()
    frame = frame.join(sizes, ["step", "part"], "left").with_columns(pl.col("bytes").fill_null(0)).select(*_SCHEMA)
    frame = frame.sort("step", maintain_order=True)
    hidden = frame.filter(~pl.col("kept"))
    freed = run._snapshot.held_alone(set(zip(hidden["step"], hidden["part"], strict=True)))
    return Retention(frame, freed, run, before)


_Rule = Callable[[list[int]], list[int]]


def _rules(
    run: Run,
    every: int | None,
    per_decade: int | None,
    last: int | None,
    lowest: Best,
    highest: Best,
    steps: Steps,
    saved: list[int],
) -> dict[str, _Rule]:
    """What is kept, by a name that says why."""
    rules: dict[str, _Rule] = {}
    if every is not None:
        rules[f"every {_count('every', every):,}"] = lambda there: [step for step in there if step % every == 0]
    if per_decade is not None:
        rules[f"{_count('per_decade', per_decade):,} per decade"] = lambda there: _spread(there, per_decade)
    if last is not None:
        rules[f"last {_count('last', last):,}"] = lambda there: there[-last:]
    for what, wanted, descending in (("lowest", lowest, False), ("highest", highest, True)):
        for name, count in _metrics(what, wanted):
            ranked = _ranked(run, name, saved, descending=descending)
            rules[f"{what} {name}"] = _first(ranked, count)
    if steps is not None:
        named = [] if isinstance(steps, slice) else [steps] if isinstance(steps, int) else steps
        if unknown := [step for step in named if step not in saved]:
            raise NotFoundError(f"no checkpoint at step {unknown[0]}", hint=nearest_steps(unknown[0], saved))
        rules["named"] = lambda there: [step for step in there if has_step(steps, step)]
    return rules


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SchemaError(f"{name}={value!r}", hint="give a whole number, 1 or more")
    return value


def _spread(there: list[int], points: int) -> list[int]:
    """The first of each stretch of so many a decade: the same again if it is asked of what is left."""
    first: dict[int, int] = {}
    for step in there:
        first.setdefault(math.floor(math.log10(step) * points + 1e-9) if step > 0 else min(step, 0) - 1, step)
    return list(first.values())


def _metrics(what: str, wanted: Best) -> list[tuple[str, int]]:
    if wanted is not None and not isinstance(wanted, str | Mapping):
        raise SchemaError(f"{what}={wanted!r}", hint='give the name of a metric, or {"loss": 3}')
    named = {wanted: 1} if isinstance(wanted, str) else dict(wanted or {})
    return [(name, _count(f"{what}[{name!r}]", count)) for name, count in named.items()]


def _ranked(run: Run, name: str, saved: list[int], *, descending: bool) -> list[int]:
    """The steps with a checkpoint and a finite value of the metric, the best first; of equals the earlier."""
    logged = run.metrics().filter(pl.col("name") == name, pl.col("site").is_null())
    values = logged.group_by("step").agg(pl.col("value").last()).collect()
    if values.is_empty():
        names = run.metrics().select(pl.col("name").unique()).collect()["name"].to_list()
        raise NotFoundError(f"no metric {name!r}", hint=nearest_names(name, names))
    ranked = values.filter(pl.col("step").is_in(saved), pl.col("value").is_finite())
    if ranked.is_empty():
        raise NotFoundError(
            f"the metric {name!r} has no value at the step of a checkpoint",
            hint="log it at the step whose weights it is about",
        )
    return ranked.sort("value", "step", descending=[descending, False])["step"].to_list()


def _first(ranked: list[int], count: int) -> _Rule:
    return lambda there: [step for step in ranked if step in set(there)][:count]


def _spans(steps: list[int]) -> list[tuple[int, int]]:
    """Ascending steps as spans that hold these alone."""
    spans: list[tuple[int, int]] = []
    for step in steps:
        if spans and spans[-1][1] == step - 1:
            spans[-1] = (spans[-1][0], step)
        else:
            spans.append((step, step))
    return spans
