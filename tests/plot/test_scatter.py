from __future__ import annotations

import math

import polars as pl
import pytest

from lamina.errors import SchemaError
from lamina.plot import scatter
from tests.plot.drawn import data, spec, subtitle

pytest.importorskip("vl_convert", reason="needs lamina[report]")


def frame(labels: list[str] | None) -> pl.DataFrame:
    points = pl.DataFrame(
        {"step": [0, 0, 8, 8], "x": [0.0, 1.0, -3.0, 2.0], "y": [0.5, 0.0, 9.0, 1.0], "example": [0, 1, 0, 1]}
    )
    return points if labels is None else points.with_columns(label=pl.Series(labels * 2))


def test_each_step_has_a_picture_whose_axes_have_the_same_units() -> None:
    pictures = spec(scatter(frame(None)))["concat"]
    assert [picture["title"]["text"] for picture in pictures] == ["step 0", "step 8"]
    for picture, reach in zip(pictures, (1.0, 8.0), strict=True):
        x, y = (picture["encoding"][name]["scale"]["domain"] for name in ("x", "y"))
        assert x[1] - x[0] == pytest.approx(y[1] - y[0])
        assert reach < x[1] - x[0] < 1.2 * reach
    assert "concat" not in spec(scatter(frame(None).filter(step=8)))


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
    for picture in spec(scatter(frame(labels), title="Layer", unit="units"))["concat"]:
        assert picture["mark"]["type"] == mark
        assert ("color" in picture["encoding"]) == colored
        assert picture["encoding"]["x"]["title"] == "direction 1 (units)"


def test_labels_that_are_numbers_are_in_order() -> None:
    chart = spec(scatter(frame(["10", "9"])))
    assert chart["concat"][0]["encoding"]["color"]["scale"]["domain"] == ["9", "10"]


def test_the_pointer_shows_everything_but_the_place() -> None:
    points = pl.DataFrame({"row": [7], "x": [1.0], "y": [2.0], "token": ["##ing"], "mlp.loss": [0.5]})
    tips = spec(scatter(points))["encoding"]["tooltip"]
    assert [tip["title"] for tip in tips] == ["row", "token", "mlp.loss"]
    assert tips[2]["field"] == r"mlp\.loss"


@pytest.mark.parametrize(
    "column", [pl.Series("v", [[1.0, 2.0]]), pl.Series("v", [[1.0]], dtype=pl.Array(pl.Float32, 1))]
)
def test_vectors_are_refused(column: pl.Series) -> None:
    with pytest.raises(SchemaError, match=r"the column 'v' holds .*, which no chart shows"):
        scatter(pl.DataFrame({"x": [1.0], "y": [2.0]}).with_columns(column))


def test_numbers_that_are_no_classes_are_colored_as_numbers() -> None:
    points = pl.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0], "loss": [0.1, 0.2]})
    color = spec(scatter(points, color="loss"))["encoding"]["color"]
    assert (color["field"], color["type"]) == ("loss", "quantitative")


def test_of_many_rows_some_are_drawn_and_that_is_said() -> None:
    points = pl.DataFrame({"row": range(9000)}).with_columns(x=pl.col("row") / 1, y=pl.col("row") * 2.0)
    chart = scatter(points)
    found = data(chart)
    assert found.height == 4000
    assert found["row"].to_list()[:3] == [0, 2, 4]
    assert "4,000 of 9,000 rows" in subtitle(chart)


def test_points_that_are_not_finite_are_left_out() -> None:
    points = pl.DataFrame({"x": [0.0, math.nan, 1.0], "y": [0.0, 1.0, math.inf]})
    assert data(scatter(points)).height == 1


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(SchemaError, match="no numbers in a column 'y'"):
        scatter(pl.DataFrame({"x": [1.0]}))
    with pytest.raises(SchemaError, match="no column 'topic'"):
        scatter(frame(None), color="topic")
    with pytest.raises(SchemaError, match="7 pictures to draw"):
        scatter(pl.DataFrame({"x": 1.0, "y": 1.0, "step": range(7)}))
