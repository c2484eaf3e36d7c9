"""What of a run's examples a cell depends on: the only thing about stored rows that may change."""

from __future__ import annotations

from lamina.runs import Run
from lamina.sweeps.canonical import digest
from lamina.sweeps.taking import Taken

_KEY = ("example", "position")


def examples_read(run: Run, taken: Taken) -> bytes:
    """Return a hash of the columns of `run.examples()` that a measure reads.

    Of Lamina's own measures these are the columns that `labels=` or options name; of others it may be any.
    """
    columns = [name for name, _ in run._snapshot.columns("examples") if name not in _KEY]
    if taken.function.__module__.startswith("lamina."):
        named = {option for option in taken.options.values() if isinstance(option, str)}
        columns = [name for name in columns if name in named]
    if not columns:
        return b""
    examples = run.examples()
    keys = [name for name in _KEY if name in examples.collect_schema()]
    return digest(examples.select(*keys, *columns).sort(*keys).collect())
