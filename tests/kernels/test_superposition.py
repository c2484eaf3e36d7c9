"""A plain training loop finds the directions that were planted in superposition."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import TopK, encode, reconstruction
from tests.faults import broken, fault

DIRECTIONS, WIDTH, ACTIVE = 48, 24, 3


@fault
def decode_gives_the_dictionary_no_gradient(patch: pytest.MonkeyPatch) -> None:
    """The atoms of a reconstruction stay where they are."""
    from lamina_kernels.sparse.losses import blocked

    patch.setattr(blocked, "_add_by_unit", lambda out, e, rows, run: None)


def planted(rows: int, directions: Tensor, generator: torch.Generator) -> Tensor:
    """Sums of a few of more directions than there are dimensions."""
    chosen = torch.rand(rows, DIRECTIONS, generator=generator).topk(ACTIVE, dim=1).indices
    sizes = 0.5 + torch.rand(rows, ACTIVE, generator=generator)
    return (sizes[:, :, None] * directions[chosen]).sum(1)


def recovered(steps: int) -> float:
    """Train, and return the mean over the planted directions of the largest cosine with an atom."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(DIRECTIONS, WIDTH, generator=generator), dim=1)
    atoms = torch.nn.functional.normalize(torch.randn(2 * DIRECTIONS, WIDTH, generator=generator), dim=1)
    weight = atoms.clone().requires_grad_()
    atoms.requires_grad_()
    optimizer = torch.optim.Adam([weight, atoms], lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        x = planted(256, directions, generator)
        codes = encode(x, weight, select=TopK(ACTIVE)).codes
        optimizer.zero_grad()
        reconstruction(codes, atoms, x).loss.backward()
        optimizer.step()
        with torch.no_grad():
            atoms /= atoms.norm(dim=1, keepdim=True)
    return (directions @ atoms.detach().T).amax(1).mean().item()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Steps are small: threads that wait for each other on a busy machine take seconds for nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_planted_directions_are_found() -> None:
    assert recovered(300) > 0.95


def test_a_dictionary_that_does_not_learn_is_noticed() -> None:
    with broken("decode_gives_the_dictionary_no_gradient"):
        assert recovered(50) < 0.9
