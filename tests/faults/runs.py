"""Faults of the store, and of the face over it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def ties_are_cut(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint stores every name's tensor apart."""
    from lamina.runs import tree

    patch.setattr(tree, "place", lambda tensors: [tensor.clone() for tensor in tensors])


@fault
def rows_ignore_the_order_asked(patch: pytest.MonkeyPatch) -> None:
    """Rows come back in stored order, whatever order was asked for."""
    import numpy as np

    from lamina.runs.stored import StoredRows

    whole = StoredRows.gather
    patch.setattr(StoredRows, "gather", lambda self, positions, *rest: whole(self, np.sort(positions), *rest))


@fault
def columns_are_rounded_to_single(patch: pytest.MonkeyPatch) -> None:
    """Floats in metadata lose half of their digits."""
    import numpy as np

    from lamina.runs import columns

    whole = columns._bytes
    patch.setattr(
        columns,
        "_bytes",
        lambda values, dtype: whole(values.astype(np.float32) if dtype is np.float64 else values, dtype),
    )


@fault
def scalars_are_printed_short(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint's floats are stored with six digits."""
    from lamina.runs import tree

    whole = tree._scalar
    patch.setattr(tree, "_scalar", lambda value: whole(float(f"{value:.6g}") if isinstance(value, float) else value))


@fault
def examples_keep_what_came_first(patch: pytest.MonkeyPatch) -> None:
    """Of an example that is written again, the first value stays."""
    import polars as pl

    whole = pl.DataFrame.unique
    patch.setattr(
        pl.DataFrame, "unique", lambda self, *keys, **options: whole(self, *keys, **options | {"keep": "first"})
    )


@fault
def verify_believes_the_length(patch: pytest.MonkeyPatch) -> None:
    """Verifying reads no block."""
    from lamina import _core

    whole = _core.verify
    patch.setattr(_core, "verify", lambda path, progress: (*whole(path, progress)[:2], []))


@fault
def tickets_are_told_durable_at_once(patch: pytest.MonkeyPatch) -> None:
    """An append or a save is acknowledged when it is staged."""
    from lamina.runs.writer import Writer

    class Ticket:
        def wait(self) -> bool:
            return True

    def hasty(method: Any) -> Any:
        def call(self: Writer, *args: Any, **options: Any) -> Ticket:
            method(self, *args, **options)
            return Ticket()

        return call

    patch.setattr(Writer, "append", hasty(Writer.append))
    patch.setattr(Writer, "save", hasty(Writer.save))


@fault
def every_writer_opens_a_log_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """Writers of one process with the same options do not find each other."""
    from itertools import count

    from lamina import _core
    from lamina.runs import writer

    numbers = count(10**9)

    class Apart:
        def __new__(cls, path: str, **options: Any) -> _core.Writer:
            options["durable_rows"] = next(numbers)
            return own(path, **options)

    own = _core.Writer
    patch.setattr(writer._core, "Writer", Apart)


@fault
def compaction_loses_a_row(patch: pytest.MonkeyPatch) -> None:
    """A row is deleted before the run is compacted."""
    from lamina import _core

    whole = _core.compact

    def compact(path: str, cold: list[str], progress: Any) -> Any:
        _core.delete(path, [], [], [(3, 3)])
        return whole(path, cold, progress)

    patch.setattr(_core, "compact", compact)


@fault
def gc_removes_a_segment_that_counts(patch: pytest.MonkeyPatch) -> None:
    """With what nothing needs goes the last segment."""
    from pathlib import Path

    from lamina import _core

    whole = _core.gc

    def gc(path: str, grace: float | None, progress: Any) -> Any:
        done = whole(path, grace, progress)
        if done["removed"]:
            max((Path(path) / "segments").iterdir()).unlink()
        return done

    patch.setattr(_core, "gc", gc)


@fault
def blocks_are_never_verified(patch: pytest.MonkeyPatch) -> None:
    """Runs are opened as if nobody wanted vectors compared with their checksums."""
    import lamina

    whole = lamina.open

    def unverified(path: str, **options: Any) -> lamina.Run:
        return whole(path, **{**options, "verify": "never"})

    patch.setattr(lamina, "open", unverified)


@fault
def copying_loses_a_row(patch: pytest.MonkeyPatch) -> None:
    """A row of a copy, or of a merged run, is not there."""
    from lamina import _core

    whole = _core.merge

    def merge(runs: Any, path: str, config: str, progress: Any) -> None:
        whole(runs, path, config, progress)
        _core.delete(path, [], [], [(3, 3)])

    patch.setattr(_core, "merge", merge)


@fault
def pool_gives_out_what_is_lent(patch: pytest.MonkeyPatch) -> None:
    """One piece of memory for all who ask, as if nobody had it."""
    from lamina import _core

    class Careless:
        def __init__(self, allocate: Any = None) -> None:
            self.memory: dict[int, _core.Memory] = {}
            self.pool = whole(allocate)

        def take(self, size: int) -> _core.Memory:
            return self.memory.setdefault(size, self.pool.take(size))

    whole = _core.Pool
    patch.setattr(_core, "Pool", Careless)


@fault
def writers_write_in_a_python_thread(patch: pytest.MonkeyPatch) -> None:
    """What makes rows durable after a while is a thread of Python's."""
    from contextlib import suppress
    from threading import Timer

    from lamina.errors import WriterError
    from lamina.runs.writer import Writer

    opened = Writer.__init__

    def lazily(self: Writer, path: Any, *, durable_seconds: float, **options: Any) -> None:
        opened(self, path, durable_seconds=None, **options)

        def flush() -> None:
            with suppress(WriterError):
                self.flush()

        Timer(durable_seconds, flush).start()

    patch.setattr(Writer, "__init__", lazily)


@fault
def staging_copies_in_order_of_memory(patch: pytest.MonkeyPatch) -> None:
    """What is put in order keeps the order in which it lay."""
    from lamina.runs.staging import Staging

    whole, whole_array = Staging.of_tensor, Staging.of_array
    patch.setattr(Staging, "of_tensor", lambda self, tensor: whole(self, tensor.flip(-1)))
    patch.setattr(Staging, "of_array", lambda self, array, dtype: whole_array(self, array[..., ::-1], dtype))


@fault
def overlaps_are_cut(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint stores tensors that overlap apart."""
    from lamina.runs import sharing

    patch.setattr(sharing, "_join", lambda *arguments: None)


@fault
def discards_have_no_place(patch: pytest.MonkeyPatch) -> None:
    """Retention hides whatever is there when it acts, also what was saved since it was shown."""
    from lamina import _core
    from lamina.runs import retention

    class Late:
        positions = staticmethod(_core.positions)

        @staticmethod
        def discard(path: str, what: Any, before: Any) -> None:
            _core.discard(path, what, _core.positions(path))

    patch.setattr(retention, "_core", Late)


@fault
def saves_keep_what_they_are_given(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint is copied when somebody waits for it, not when `save` is called."""
    from lamina.runs import writer

    late: list[Any] = []
    save, close = writer.checkpoints.save, writer.Writer.close
    patch.setattr(writer.checkpoints, "save", lambda *given: late.append(given))

    def close_late(self: Any, error: Any = None) -> None:
        while late:
            save(*late.pop())
        close(self, error)

    patch.setattr(writer.Writer, "close", close_late)


@fault
def slices_begin_at_their_block(patch: pytest.MonkeyPatch) -> None:
    """A slice of a stored tensor begins where its block of 128 KiB does."""
    from lamina.runs import slices
    from lamina.runs.saved import Saved

    class Cut:
        def __init__(self, snapshot: Any) -> None:
            self._snapshot = snapshot

        def __getattr__(self, name: str) -> Any:
            return getattr(self._snapshot, name)

        def stretches(self, part: str, wanted: list[Any], threads: int) -> Any:
            moved = [(step, number, start // 131072 * 131072, out) for step, number, start, out in wanted]
            return self._snapshot.stretches(part, moved, threads)

    read = slices._read

    def cut(saved: Saved, *arguments: Any) -> Any:
        whole, saved.snapshot = saved.snapshot, Cut(saved.snapshot)  # type: ignore[assignment]
        try:
            return read(saved, *arguments)
        finally:
            saved.snapshot = whole

    patch.setattr(slices, "_read", cut)


@fault
def slices_read_whole_tensors(patch: pytest.MonkeyPatch) -> None:
    """A slice of a stored tensor reads all of it."""
    from lamina.runs import slices

    read = slices._read

    def whole(saved: Any, part: str, found: Any, order: Any, first: Any, spans: Any) -> Any:
        read(saved, part, found, order, first, [(0, first.shape[0])])
        return read(saved, part, found, order, first, spans)

    patch.setattr(slices, "_read", whole)


@fault
def a_layout_is_lost(patch: pytest.MonkeyPatch) -> None:
    """The tree of the part `model` cannot be read."""
    from lamina.errors import DamagedError
    from lamina.runs import loading

    load_part = loading.load_part

    def lost(saved: Any, part: Any, **options: Any) -> Any:
        if part.name == "model":
            raise DamagedError("planted")
        return load_part(saved, part, **options)

    patch.setattr(loading, "load_part", lost)


@fault
def maps_are_shared(patch: pytest.MonkeyPatch) -> None:
    """Tensors that are loaded as maps are the same memory each time."""
    from lamina.runs import loading

    inner, made = loading._map, {}

    def shared(saved: Any, part: Any, tensors: list[Any], threads: int) -> None:
        inner(saved, part, tensors, threads)
        for at, tensor in enumerate(tensors):
            tensors[at] = made.setdefault(at, tensor)

    patch.setattr(loading, "_map", shared)


@fault
def only_the_model_is_restored(patch: pytest.MonkeyPatch) -> None:
    """Restoring a checkpoint leaves the optimizer as it was."""
    from lamina.runs import restoring

    prepared = restoring._prepared
    patch.setattr(
        restoring,
        "_prepared",
        lambda saved, step, part, *rest: (lambda: None) if part == "optimizer" else prepared(saved, step, part, *rest),
    )


@fault
def differences_stop_after_a_piece(patch: pytest.MonkeyPatch) -> None:
    """Of two tensors the first piece alone is compared."""
    from lamina.runs import differences

    patch.setattr(differences, "_AT_ONCE", 10_000)
    patch.setattr(differences, "range", lambda *of: range(*of)[:1] if len(of) == 3 else range(*of), raising=False)
