"""Several runs as one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina import _core
from lamina.errors import SchemaError
from lamina.paths import path_of
from lamina.progress import watch
from lamina.runs.collection import Runs
from lamina.runs.config import to_json
from lamina.runs.frames import written_examples
from lamina.runs.preshuffled import says_preshuffled
from lamina.runs.run import Run

if TYPE_CHECKING:
    from lamina._core import Snapshot


def merge(
    runs: Iterable[Run | str | Path],
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    """Writes what several runs show into one new run: rows, examples, metrics and checkpoints.

    For runs of several machines, or of several jobs over disjoint data, that belong together. Values stay bit for bit
    what they were, and every byte is verified on its way. What was rewound or deleted is left out, and so is what a
    damaged record lost (runs warn of that when they are opened). Equal chunks of checkpoints are stored once.

    Rows keep their order, and get names of their own: those of the first run keep theirs, those of each other run are
    moved by a constant. `run.sources()` says by how much, with the ids, names and configs of what was merged. Writers,
    with their ranks and states, move likewise.

    A site or column of one name must be of one type, an example in several runs must be said to be the same, and a
    step must not have two checkpoints of one part that differ. Numbers of examples are taken as they are: the same
    number in two runs is the same example.

    Nothing is visible at `path` before the run is whole and durable, and nothing is if it fails or is killed; a
    hidden folder beside it may then remain. Costs one reading and one writing of what is shown, and memory for one row
    group (up to 64 MiB) and the examples.

    Args:
        runs: Runs as they were when they were opened, or paths; `lamina.open_runs("nodes/*")` is fine.
        path: A path where there is nothing yet.
        config: The new run's; by default the one that all runs have.
        progress: Whether to show a bar on a terminal.

    Raises:
        SchemaError: The runs contradict each other, or one holds what another does; nothing was written.
        NotARunError: The path exists or lies inside of a run, or there is no run at one.
        DamagedError: A block or chunk is not what was written.
        StorageError: The file system refused.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> for node in range(2):
        ...     with lamina.Run.create(f"{folder}/node-{node}").writer(rank=node) as writer:
        ...         x = np.full((2, 1), node, np.float32)
        ...         ticket = writer.append({"x": x}, step=0, example=[2 * node, 2 * node + 1])
        >>> run = lamina.merge(lamina.open_runs(f"{folder}/node-*"), f"{folder}/all")
        >>> run.activations("x").select("row", "example").collect().rows()
        [(0, 0), (1, 1), (1099511627776, 2), (1099511627777, 3)]
        >>> run.sources().select("run", "row_shift").rows()
        [('node-0', 0), ('node-1', 1099511627776)]
    """
    path = path_of(path)
    if isinstance(runs, Run | str | Path):
        raise SchemaError("several runs are needed", hint="give a list of runs or paths")
    given = [run if isinstance(run, Run) else Run(run) for run in runs]
    if not given:
        raise SchemaError("there are no runs to merge")
    places = [run.path.resolve() for run in given]
    if twice := [place for place in places if places.count(place) > 1]:
        raise SchemaError(f"{twice[0]} is given twice")
    opened = dict(Runs(given).items())
    text = _common_config(opened) if config is None else to_json(config)
    if len(opened) > 1 and says_preshuffled(json.loads(text)):
        raise SchemaError(
            "rows that are shuffled run by run are not shuffled together",
            hint="give config= without their `preshuffled`, or preshuffle the merged run",
        )
    _check_examples({name: run._snapshot for name, run in opened.items()})
    pairs = [(name, run._snapshot) for name, run in opened.items()]
    watch(lambda state: _core.merge(pairs, str(path), text, state), "merging", progress)
    return Run(path)


def _common_config(runs: Mapping[str, Run]) -> str:
    (first, reference), *others = runs.items()
    for name, run in others:
        if place := _difference(reference.config, run.config, ""):
            key, left, right = place
            raise SchemaError(
                f"the configs differ: {key} is {left} in {first!r} and {right} in {name!r}",
                hint="say with config= what the merged run's is; the sources keep theirs",
            )
    return reference._snapshot.config


def _difference(left: Any, right: Any, key: str) -> tuple[str, str, str] | None:
    """Where two configs differ, and what they say there."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in left | right:
            inner = f"{key}.{name}" if key else name
            if name not in left or name not in right:
                said = ["absent" if name not in side else repr(side[name]) for side in (left, right)]
                return inner, said[0], said[1]
            if found := _difference(left[name], right[name], inner):
                return found
        return None
    # True is not 1 in a config
    return None if json.dumps(left) == json.dumps(right) else (key, repr(left), repr(right))


def _check_examples(snapshots: Mapping[str, Snapshot]) -> None:
    """Refuses runs that say different things of one example."""
    columns: dict[str, dict[str, str]] = {}
    for name, snapshot in snapshots.items():
        for column, kind in snapshot.columns("examples"):
            columns.setdefault(column, {})[name] = kind
    key = [name for name in ("example", "position") if name in columns]
    # of columns whose types differ the core says which
    if any(len(set(columns[name].values())) > 1 for name in key):
        return
    for column, kinds in columns.items():
        if column in key or len(kinds) < 2 or len(set(kinds.values())) > 1:
            continue
        said = [
            written_examples(snapshots[name], column, key).with_columns(pl.lit(name).alias("run")) for name in kinds
        ]
        together = pl.concat([frame for frame in said if not frame.is_empty()] or said[:1])
        differ = together.group_by(key, maintain_order=True).agg(pl.col(column).n_unique() > 1)
        differ = differ.filter(column).head(1).drop(column)
        if not differ.is_empty():
            found = together.join(differ, on=key, how="semi", nulls_equal=True).unique(column, maintain_order=True)
            place = ", ".join(
                f"{name} {value}" for name, value in differ.row(0, named=True).items() if value is not None
            )
            (first, left), (second, right) = found.select("run", column).rows()[:2]
            raise SchemaError(f"{place} has the {column} {left!r} in {first!r} and {right!r} in {second!r}")
