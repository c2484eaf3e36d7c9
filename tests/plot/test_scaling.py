from __future__ import annotations

import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError
from lamina.plot import scaling
from tests.plot.drawn import data, spec, subtitle, swept

pytest.importorskip("vl_convert", reason="needs lamina[report]")


def widths() -> pl.DataFrame:
    """Two runs of each of three widths, whose loss is 2 / width, one of them a tenth above."""
    rows = [((f"{w}-{k}", "output", 8), None, (1 + 0.1 * k) * 2 / w, 0.01) for w in (4, 16, 64) for k in range(2)]
    frame = swept(rows, measure="loss", unit="nats")
    return frame.with_columns(width=pl.col("run_a").str.split("-").list.first().cast(pl.Int64))


def test_runs_of_one_size_are_averaged_with_their_interval() -> None:
    chart = scaling(widths(), "width")
    found = data(chart)
    assert found["size"].to_list() == [4, 16, 64]
    mean = lamina.summarize(widths().filter(width=16))
    assert found.filter(size=16).select("value", "low", "high").row(0) == pytest.approx(
        mean.select("value", "low", "high").row(0)
    )
    assert "mean of 2 runs; band: 95 % interval of that mean over runs" in subtitle(chart)


def test_both_axes_are_logarithmic_and_few_sizes_are_ticks() -> None:
    encoding = spec(scaling(widths(), "width"))["layer"][1]["encoding"]
    assert encoding["x"]["scale"]["type"] == encoding["y"]["scale"]["type"] == "log"
    assert encoding["x"]["axis"]["values"] == [4, 16, 64]
    assert encoding["x"]["title"] == "width (logarithmic)"
    assert spec(scaling(widths(), "width", log=False))["layer"][1]["encoding"]["y"]["scale"] == {"zero": False}


def test_by_itself_it_is_over_rows() -> None:
    frame = pl.DataFrame({"site": ["a", "a", "b", "b"], "n": [10, 100] * 2, "value": [1.0, 2.0, 3.0, 4.0]})
    chart = scaling(frame)
    assert data(chart).select("series", "size", "value").rows() == [
        ("a", 10, 1.0),
        ("a", 100, 2.0),
        ("b", 10, 3.0),
        ("b", 100, 4.0),
    ]
    assert spec(chart)["layer"][0]["encoding"]["x"]["title"] == "rows (logarithmic)"


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(SchemaError, match="no numbers in a column 'measure'"):
        scaling(widths(), "measure")
    with pytest.raises(SchemaError, match="no numbers in a column 'depth'"):
        scaling(widths(), "depth")
