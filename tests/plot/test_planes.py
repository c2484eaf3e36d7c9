from __future__ import annotations

import polars as pl
import pytest

from lamina.plot import planes

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")


def frame(labels: list[str] | None) -> pl.DataFrame:
    points = pl.DataFrame(
        {"step": [0, 0, 8, 8], "x": [0.0, 1.0, -3.0, 2.0], "y": [0.5, 0.0, 9.0, 1.0], "example": [0, 1, 0, 1]}
    )
    points = points.with_columns(panel=pl.format("step {}", "step"))
    return points if labels is None else points.with_columns(label=pl.Series(labels * 2))


def test_both_axes_of_a_picture_have_one_scale_around_zero() -> None:
    for picture, reach in zip(
        planes(frame(None), title="Layer", unit="units").to_dict()["concat"], (1.0, 9.0), strict=True
    ):
        x, y = (picture["encoding"][name]["scale"]["domain"] for name in ("x", "y"))
        assert x == y == [-x[1], x[1]]
        assert reach < x[1] < 1.2 * reach


@pytest.mark.parametrize(
    ("labels", "mark", "colored"),
    [
        (["3", "8"], "text", True),
        (["cat", "dog"], "circle", True),
        (["1", "1"], "circle", False),
        (None, "circle", False),
    ],
)
def test_short_labels_are_drawn_as_themselves(labels: list[str] | None, mark: str, colored: bool) -> None:
    spec = planes(frame(labels), title="Layer", unit="units").to_dict()
    vl_convert.vegalite_to_vega(spec)
    for picture in spec["concat"]:
        assert picture["mark"]["type"] == mark
        assert ("color" in picture["encoding"]) == colored
        assert picture["encoding"]["x"]["title"] == "direction 1 (units)"


def test_labels_that_are_numbers_are_in_order() -> None:
    spec = planes(frame(["10", "9"]), title="Layer", unit="units").to_dict()
    assert spec["concat"][0]["encoding"]["color"]["scale"]["domain"] == ["9", "10"]
