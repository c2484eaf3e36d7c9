from __future__ import annotations

import polars as pl
import pytest

from lamina.errors import SchemaError
from lamina.measures import Estimate
from lamina.plot import spectra
from tests.plot.drawn import data, spec, subtitle, swept

pytest.importorskip("vl_convert", reason="needs lamina[report]")


def planted(count: int, *, steps: tuple[int, ...] = (0,), first: int = 1) -> pl.DataFrame:
    """Eigenvalues k^-2 times step + 1."""
    rows = [(("r", "mlp", step), None, (step + 1) / k**2, 0.01) for step in steps for k in range(1, count + 1)]
    frame = swept(rows, measure="eigenvalues", unit="variance")
    return frame.with_columns(part=pl.Series([str(k) for _ in steps for k in range(first, first + count)]))


@pytest.mark.parametrize("first", [0, 1])
def test_values_stand_over_their_rank_which_begins_at_1(first: int) -> None:
    found = data(spectra(planted(5, first=first)))
    assert found["rank"].to_list() == [1, 2, 3, 4, 5]
    assert found["value"].to_list() == pytest.approx([1, 1 / 4, 1 / 9, 1 / 16, 1 / 25])


def test_both_axes_are_logarithmic_and_a_line_is_a_step() -> None:
    chart = spectra(planted(5, steps=(0, 9)))
    encoding = spec(chart)["layer"][1]["encoding"]
    assert encoding["x"]["scale"]["type"] == encoding["y"]["scale"]["type"] == "log"
    assert encoding["y"]["title"] == "eigenvalues (variance)"
    assert encoding["color"]["title"] == "step"
    assert data(chart)["series"].unique(maintain_order=True).to_list() == ["0", "9"]
    assert "run r; mlp" in subtitle(chart)


def test_of_many_ranks_some_are_drawn_both_ends_among_them() -> None:
    found = data(spectra(planted(5000)))
    assert found.height <= 200
    assert {1, 2, 3, 5000} <= set(found["rank"])


def test_values_of_0_and_less_are_left_out_and_counted() -> None:
    frame = planted(3).with_columns(value=pl.Series([1.0, 0.0, -1e-9]))
    chart = spectra(frame)
    assert data(chart)["rank"].to_list() == [1]
    assert "2 values of 0 or less left out" in subtitle(chart)


def test_an_estimate_with_one_axis_is_a_spectrum() -> None:
    estimate = Estimate("eigenvalues", [2.0, 1.0], [0.1, 0.1], n_groups=9, axes={"rank": (1, 2)})
    assert data(spectra(estimate.to_frame())).select("rank", "value").rows() == [(1, 2.0), (2, 1.0)]


def test_parts_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(SchemaError, match="ranks are numbers in the column 'part'"):
        spectra(planted(2).with_columns(part=pl.Series(["nc1", "nc2"])))
