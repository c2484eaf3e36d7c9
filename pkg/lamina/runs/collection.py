"""Several runs, asked the same questions."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lamina.errors import NotARunError, NotFoundError, SchemaError
from lamina.paths import path_of
from lamina.runs.nearest import is_run, nearest_names
from lamina.runs.run import Run
from lamina.runs.steps import Steps


class Runs:
    """Runs by name: the questions of `Run`, with a first column `run`.

    A run's name is its folder's; where two have the same, all are preceded by the folder above, and so on.

    Example:
        >>> import lamina, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> for seed in range(2):
        ...     run = lamina.Run.create(f"{folder}/seed-{seed}", config={"seed": seed})
        >>> lamina.open_runs(f"{folder}/*").configs().rows()
        [('seed-0', 0), ('seed-1', 1)]
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = _named(list(runs))

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __getitem__(self, name: str) -> Run:
        if name not in self._runs:
            raise NotFoundError(f"no run {name!r}", hint=nearest_names(str(name), self._runs))
        return self._runs[name]

    def __repr__(self) -> str:
        return f"Runs({', '.join(self._runs)})"

    def items(self) -> Iterable[tuple[str, Run]]:
        """Names and runs."""
        return self._runs.items()

    def refresh(self) -> Runs:
        """Opens every run again, in place."""
        for run in self:
            run.refresh()
        return self

    def configs(self) -> pl.DataFrame:
        """One row a run: its name, and its configuration with nested keys joined by dots."""
        rows = [{"run": name} | _flat(run.config) for name, run in self.items()]
        return pl.DataFrame(rows, infer_schema_length=None, strict=False)

    def sites(self) -> pl.DataFrame:
        """`Run.sites` of every run."""
        return self._together(lambda run: run.sites().lazy()).collect()

    def steps(self) -> list[int]:
        """The steps at which any run recorded rows, ascending."""
        return sorted(set().union(*(run.steps() for run in self)))

    def metrics(self) -> pl.LazyFrame:
        """`Run.metrics` of every run."""
        return self._together(Run.metrics)

    def notes(self) -> pl.DataFrame:
        """`Run.notes` of every run."""
        return self._together(lambda run: run.notes().lazy()).collect()

    def attachments(self) -> pl.DataFrame:
        """`Run.attachments` of every run."""
        return self._together(lambda run: run.attachments().lazy()).collect()

    def examples(self) -> pl.LazyFrame:
        """`Run.examples` of every run."""
        return self._together(Run.examples)

    def checkpoints(self) -> pl.LazyFrame:
        """`Run.checkpoints` of every run."""
        return self._together(Run.checkpoints)

    def activations(
        self,
        sites: str | Sequence[str] | None = None,
        *,
        step: Steps = None,
        source: str | Sequence[str] | None = None,
        bits: bool = False,
    ) -> pl.LazyFrame:
        """`Run.activations` of every run; a run that has none of the sites, steps or sources is left out.

        Raises:
            NotFoundError: All are left out.
            SchemaError: A site has rows of other widths in other runs.
        """
        frames = self._found(lambda run: run.activations(sites, step=step, source=source, bits=bits))
        _check_widths(frames)
        return _concatenate(frames)

    def features(self, site: str) -> pl.LazyFrame:
        """`Run.features` of every run; a run without the site is left out.

        Raises:
            NotFoundError: All are left out.
            SchemaError: The site holds no sparse codes in some run.
        """
        return _concatenate(self._found(lambda run: run.features(site)))

    def _found(self, ask: Callable[[Run], pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
        """What the runs answer that have what is asked for; an error if none has."""
        frames, missing = {}, None
        for name, run in self.items():
            try:
                frames[name] = ask(run)
            except NotFoundError as error:
                missing = error
        if not frames and missing is not None:
            raise missing
        return frames

    def _together(self, ask: Callable[[Run], pl.LazyFrame]) -> pl.LazyFrame:
        return _concatenate({name: ask(run) for name, run in self.items()})


def _named(runs: list[Run]) -> dict[str, Run]:
    """The runs by the shortest ends of their paths that tell them all apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return dict(zip(names, runs, strict=True))
    return {}


def _concatenate(frames: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    named = [frame.select(pl.lit(name).alias("run"), pl.all()) for name, frame in frames.items()]
    return pl.concat(named, how="diagonal_relaxed") if named else pl.LazyFrame(schema={"run": pl.String})


def _check_widths(frames: dict[str, pl.LazyFrame]) -> None:
    """Vectors of several widths would become lists, which nothing that takes vectors takes."""
    first: dict[str, tuple[str, int | None]] = {}
    for run, frame in frames.items():
        for site, kind in frame.collect_schema().items():
            width = kind.size if isinstance(kind, pl.Array) else None
            other, known = first.setdefault(site, (run, width))
            if known != width:
                said = [f"{n} numbers a row" if n else "one number a row" for n in (known, width)]
                raise SchemaError(
                    f"{site!r} has {said[0]} in run {other!r} and {said[1]} in run {run!r}",
                    hint="ask for other sites, or for these runs apart",
                )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def open_runs(runs: str | Path | Sequence[str | Path | Run]) -> Runs:
    """Opens several runs.

    Args:
        runs: A glob (`runs/*`; what is no run is passed over), a folder of runs, or a list of paths and runs.

    Raises:
        NotFoundError: No run was found.
        NotARunError: A path that was named outright is no run.
    """
    if isinstance(runs, str | Path):
        found = _search(path_of(runs))
        if not found:
            raise NotFoundError(
                f"no run found at {runs}", hint="give a glob such as runs/*, or a folder that holds runs"
            )
        return Runs(Run(path) for path in found)
    if not runs:
        raise NotFoundError("the list of runs is empty")
    return Runs(run if isinstance(run, Run) else Run(run) for run in runs)


def _search(path: Path) -> list[Path]:
    if is_run(path):
        return [path]
    inside = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path)))  # noqa: PTH207 - a pattern, not a folder
    found = sorted(candidate for candidate in inside if is_run(candidate))
    if not found and path.exists() and not path.is_dir():
        raise NotARunError(f"{path} is not a run")
    return found
