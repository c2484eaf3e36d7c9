"""Codes side by side against the dense matrices side by side, and a cross-layer transcoder that is planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from lamina_kernels.sparse import Codes, decode, hstack, reconstruction
from lamina_kernels.sparse.codes import ID_DTYPES
from tests.faults import broken
from tests.kernels import sparse_faults  # noqa: F401
from tests.kernels.hsic_checks import normal
from tests.kernels.test_sparse_codes import fixed, ragged


@pytest.mark.parametrize("forms", list(itertools.product([fixed, ragged], repeat=2)))
def test_the_dense_matrices_stand_side_by_side(forms: tuple[Callable[..., Codes], ...]) -> None:
    """Entries of a row keep their order, and gradients reach the values of both."""
    parts = [form(ids=ids) for form, ids in zip(forms, ID_DTYPES, strict=False)]
    parts = [Codes(c.values.requires_grad_(), c.ids, c.width, c.indptr) for c in (*parts, fixed())]
    found = hstack(parts)
    assert (found.indptr is None) == (ragged not in forms)
    assert found.ids.dtype == torch.int32
    assert torch.equal(found.dense(), torch.hstack([part.dense() for part in parts]))
    whole = [part.csr() for part in parts]
    for row in range(5):
        own = [part.rows(slice(row, row + 1)) for part in whole]
        names = torch.cat([part.ids.int() + 7 * place for place, part in enumerate(own)])
        assert torch.equal(found.rows(slice(row, row + 1)).ids.flatten(), names)
    weights = normal(*found.shape, seed=1, dtype=torch.float64)
    slopes = torch.autograd.grad((found.dense() * weights).sum(), [part.values for part in parts])
    for place, (slope, part) in enumerate(zip(slopes, parts, strict=True)):
        assert torch.equal(slope.flatten(), weights[part.row_ids(), part.ids.flatten().long() + 7 * place])


def test_an_id_that_names_no_unit_names_none_of_the_next() -> None:
    wild = Codes(torch.ones(1, 3), torch.tensor([[0, 4, -1]]), 4, check=False)
    found = hstack([wild, Codes(torch.ones(1, 1), torch.tensor([[3]]), 4)])
    assert found.ids.tolist() == [[0, -1, -1, 7]]
    with pytest.raises(ValueError, match="decode: ids go from -1 to 7"):
        decode(found, torch.ones(8, 2))


def test_no_rows_and_no_entries() -> None:
    none = Codes(torch.empty(0, 2), torch.empty(0, 2).int(), 3)
    assert hstack([none, none]).shape == (0, 6)
    assert hstack([none.csr(), none]).shape == (0, 6)
    empty = Codes(torch.empty(4, 0), torch.empty(4, 0).int(), 3)
    assert hstack([empty, empty.csr()]).indptr.tolist() == [0] * 5  # pyright: ignore[reportOptionalMemberAccess]


def test_entries_that_leave_their_rows_are_noticed() -> None:
    with broken("stacking_takes_entries_as_they_come"), pytest.raises(AssertionError):
        test_the_dense_matrices_stand_side_by_side((ragged, fixed))


def test_a_cross_layer_transcoder_is_the_sum_of_its_layers() -> None:
    """What a layer writes is decoded from the codes of the layers up to it: only these get a gradient from its loss."""
    values = [normal(6, 2, seed=seed).requires_grad_() for seed in (0, 1)]
    layers = [Codes(own, torch.tensor([[at, 3]] * 6), 4) for at, own in enumerate(values)]
    targets = normal(6, 2, 5, seed=3)
    for layer, dictionary in enumerate((normal(4, 5, seed=4), normal(8, 5, seed=5))):
        loss = reconstruction(hstack(layers[: layer + 1]), dictionary, targets[:, layer], reduction="sum").loss
        written = [codes.dense() @ atoms for codes, atoms in zip(layers, dictionary.split(4), strict=False)]
        torch.testing.assert_close(loss, (targets[:, layer] - torch.stack(written).sum(0)).square().sum())
        slopes = torch.autograd.grad(loss, values, allow_unused=True)
        assert [slope is not None for slope in slopes] == [True, layer == 1]


CODES = Codes(torch.ones(2, 1), torch.zeros(2, 1).int(), 3)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([], "hstack: no codes"),
        ([CODES, CODES.rows(slice(0, 1))], "hstack: codes 1 are 1 rows of torch.float32 on cpu, but codes 0 are 2"),
        ([CODES, CODES.to(dtype=torch.float64)], "hstack: codes 1 are 2 rows of torch.float64"),
    ],
)
def test_what_does_not_fit_is_refused(codes: list[Codes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hstack(codes)
