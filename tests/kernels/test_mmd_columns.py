"""What `mmd` multiplies kernel values with is what kernels can multiply: members of a sample, 0 or 1, in any dtype."""

from __future__ import annotations

import pytest
import torch

from lamina_kernels.gram import RBF, discrepancy, mmd


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_column_is_float64_but_of_rows_that_are(dtype, monkeypatch: pytest.MonkeyPatch):
    taken = []
    sums = discrepancy.op.sums

    def noted(p, v, form):
        taken.append(v)
        return sums(p, v, form)

    monkeypatch.setattr(discrepancy.op, "sums", noted)
    rows = torch.arange(40, dtype=dtype)[:, None] % 7
    mmd(rows, rows + 1, kernel=RBF(2.0), permutations=3)
    (columns,) = taken
    assert columns.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert columns.shape == (80, 5)
    assert set(columns.unique().tolist()) == {0.0, 1.0}
