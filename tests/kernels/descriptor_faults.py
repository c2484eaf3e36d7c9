"""Named faults of rows that kernels load by descriptors."""

from __future__ import annotations

import pytest
import torch

from tests.faults import fault


@fault
def descriptors_start_at_the_second_row(patch: pytest.MonkeyPatch) -> None:
    """What a descriptor loads are the rows behind."""
    from lamina_kernels.tiles import descriptors

    whole = descriptors._descriptor
    patch.setattr(descriptors, "_descriptor", lambda tensor, *tile: whole(tensor[1:], *tile))


@fault
def descriptors_know_wider_rows(patch: pytest.MonkeyPatch) -> None:
    """What stands behind rows that were copied to wider strides counts as theirs."""
    from lamina_kernels.tiles import descriptors

    whole = descriptors.aligned

    def aligned(rows: torch.Tensor) -> torch.Tensor:
        made = whole(rows)
        wide = made.as_strided((len(made), made.stride(0)), (made.stride(0), 1))
        wide[:, made.shape[1] :] = 1
        return wide

    patch.setattr(descriptors, "aligned", aligned)
