"""Faults of imports, exports and shards."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def import_reads_fortran_as_c(patch: pytest.MonkeyPatch) -> None:
    """The order of an array's axes in its file is ignored."""
    from lamina.interchange.tensors import FileTensor

    whole = FileTensor.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        whole(self, *arguments, **options)
        self.order = "C"

    patch.setattr(FileTensor, "__init__", init)


@fault
def export_converts_values(patch: pytest.MonkeyPatch) -> None:
    """Values go out as numbers instead of bits: what NumPy does not know is rounded on its way, payloads are lost."""
    import numpy as np

    from lamina.interchange import leaving

    whole = leaving.as_bits

    def converted(values: Any) -> np.ndarray:
        array = whole(values)
        return array if array.dtype.kind != "f" else np.nan_to_num(array, nan=np.nan)

    patch.setattr(leaving, "as_bits", converted)


@fault
def export_takes_rows_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """Rows of a site go out in the order in which they were found, not by their names."""
    from lamina.interchange.leaving import Leaving

    whole = Leaving.gather
    patch.setattr(Leaving, "gather", lambda self, positions: whole(self, positions)[::-1])


@fault
def import_leaves_its_rows(patch: pytest.MonkeyPatch) -> None:
    """What a failed import has written stays."""
    from lamina.interchange import arriving

    patch.setattr(arriving, "_take_back", lambda *_: None)


@fault
def import_skips_a_block(patch: pytest.MonkeyPatch) -> None:
    """The first chunk of a large tensor is read in the place of its second."""
    from lamina.interchange import checkpoint_parts

    whole = checkpoint_parts._blocks_of_file

    def again(tensor: Any) -> Any:
        def blocks() -> Any:
            for block in whole(tensor)():
                block[1 << 20 : 1 << 21] = block[: max(0, min(1 << 20, block.size - (1 << 20)))]
                yield block

        return blocks

    patch.setattr(checkpoint_parts, "_blocks_of_file", again)


@fault
def shards_begin_at_nothing(patch: pytest.MonkeyPatch) -> None:
    """A process forgets where its shards begin."""
    from lamina.distributed import writing

    shard = writing.StoredShard
    patch.setattr(writing, "StoredShard", lambda offsets, *rest: shard((0,) * len(offsets), *rest))


@fault
def boxes_begin_at_nothing(patch: pytest.MonkeyPatch) -> None:
    """A process reads the first rows in place of its own."""
    from lamina.distributed.leaves import Leaves

    read = Leaves.read
    patch.setattr(Leaves, "read", lambda self, stored, offsets, out: read(self, stored, (0,) * len(offsets), out))
