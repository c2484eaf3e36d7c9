"""Faults of sparse codes and of what is computed from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def codes_of_one_unit_replace_each_other(patch: pytest.MonkeyPatch) -> None:
    """Of two entries of one unit in one row, one is lost."""
    patch.setattr(torch.Tensor, "index_add", lambda self, dim, at, source: self.index_copy(dim, at, source))


@fault
def codes_forget_where_rows_begin(patch: pytest.MonkeyPatch) -> None:
    """Rows that are chosen by number take the entries that stand first."""
    from lamina_kernels.sparse.codes import Codes

    whole = Codes.rows

    def forget(self: Codes, index: Any) -> Codes:
        found = whole(self, index)
        return Codes(self.values[: found.nnz], self.ids[: found.nnz], self.width, found.indptr)

    patch.setattr(Codes, "rows", forget)
