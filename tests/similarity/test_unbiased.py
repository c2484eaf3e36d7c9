"""HSIC of independent representations averages 0, whatever happens within documents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lamina import similarity
from tests.faults import broken

DRAWS = 500


def draws(sizes: list[int], d: int, effect: float, groups: bool) -> Callable[[], tuple[float, float]]:
    """Return how far the mean of HSIC lies from 0, in standard errors, and how large the claimed errors of CKA are."""
    of_rows = np.repeat(np.arange(len(sizes)), sizes)

    def measure() -> tuple[float, float]:
        generator = torch.Generator().manual_seed(0)
        hsic, claimed, cka = [], [], []
        for _ in range(DRAWS):
            x, y = (
                torch.randn(len(of_rows), d, generator=generator, dtype=torch.float64)
                + effect * torch.randn(len(sizes), d, generator=generator, dtype=torch.float64)[of_rows]
                for _ in range(2)
            )
            estimate = similarity.cka(x, y, groups=of_rows if groups else None)
            hsic.append(estimate.parts["hsic_xy"])
            cka.append(estimate.value)
            claimed.append(estimate.stderr)
        return float(abs(np.mean(hsic)) / (np.std(hsic) / np.sqrt(DRAWS))), float(np.mean(claimed) / np.std(cka))

    return measure


def check_unbiased(measure: Callable[[], tuple[float, float]]) -> None:
    distance, ratio = measure()
    assert distance < 3
    assert 0.7 < ratio < 1.5


INDEPENDENT_ROWS = draws([1] * 100, 8, 0, groups=False)
FEW_ROWS = draws([1] * 16, 64, 0, groups=False)
DOCUMENTS = draws([20] * 20, 8, 1, groups=True)
DOCUMENTS_BY_ROW = draws([20] * 20, 8, 3, groups=False)
UNEQUAL_DOCUMENTS = draws([1, 2, 3, 5, 8, 10, 12, 15, 20, 30, 40, 60, 5, 5, 10, 20, 3, 4, 2, 45], 256, 1, groups=True)


def test_independent_rows() -> None:
    check_unbiased(INDEPENDENT_ROWS)


def test_few_rows_of_many_features() -> None:
    distance, _ = FEW_ROWS()
    assert distance < 3


def test_documents() -> None:
    check_unbiased(DOCUMENTS)


def test_documents_of_unequal_lengths() -> None:
    distance, _ = UNEQUAL_DOCUMENTS()
    assert distance < 3


def test_errors_by_row_fail_on_documents() -> None:
    distance, ratio = DOCUMENTS_BY_ROW()
    assert distance > 10
    assert ratio < 0.5


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("hsic_forgets_n_over_n_minus_2", FEW_ROWS),
        ("hsic_counts_pairs_within_groups", DOCUMENTS),
        ("cka_ignores_groups", DOCUMENTS),
        ("hsic_averages_each_term_apart", UNEQUAL_DOCUMENTS),
    ],
)
def test_faults_are_noticed(name: str, measure: Callable[[], tuple[float, float]]) -> None:
    with broken(name):
        distance, _ = measure()
    assert distance > 3


def twenty_documents(draws: int = 80) -> tuple[float, float, float]:
    """20 documents of 100 tokens: how far CKA's mean is from 0; intervals that cover it, by document and by row."""
    of_rows, generator = np.repeat(np.arange(20), 100), torch.Generator().manual_seed(1)
    by_document, by_row = [], []
    for _ in range(draws):
        x, y = (
            torch.randn(2000, 8, generator=generator) + torch.randn(20, 8, generator=generator)[of_rows]
            for _ in range(2)
        )
        by_document.append(similarity.cka(x, y, groups=of_rows))
        by_row.append(similarity.cka(x, y))
    values = np.array([estimate.value for estimate in by_document])
    ends = [np.array([estimate.interval() for estimate in found]) for found in (by_document, by_row)]
    covered, by_row_covered = (float(np.mean((each[:, 0] < 0) & (each[:, 1] > 0))) for each in ends)
    return float(abs(values.mean()) / (values.std() / np.sqrt(draws))), covered, by_row_covered


def test_twenty_documents_of_a_hundred_tokens() -> None:
    distance, covered, covered_by_row = twenty_documents()
    assert distance < 3
    assert covered >= 0.9
    assert covered_by_row < 0.5  # a document's flavor is taken for similarity, with a small error


def test_a_difference_has_the_paired_error() -> None:
    """Two layers that share most of their noise: the error of the difference is that of its draws."""
    of_rows, generator = np.repeat(np.arange(40), 5), torch.Generator().manual_seed(2)
    differences, errors, apart = [], [], []
    for _ in range(100):
        x, shared, own = (torch.randn(200, 4, generator=generator) for _ in range(3))
        first, second = (similarity.cka(x, x + shared + part * own, groups=of_rows) for part in (0.0, 0.3))
        differences.append(first.value - second.value)
        errors.append((first - second).stderr)
        apart.append(np.hypot(first.stderr, second.stderr))
    assert 0.75 < np.mean(errors) / np.std(differences) < 1.35
    assert np.mean(apart) > 1.5 * np.mean(errors)
