from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from lamina.errors import SchemaError
from lamina.plot import mds
from lamina.plot.classical import classical
from tests.faults import broken
from tests.plot.drawn import data, spec, subtitle, swept

pytest.importorskip("vl_convert", reason="needs lamina[report]")

POINTS = {name: np.random.default_rng(k).normal(size=2) for k, name in enumerate("abcde")}


def apart(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y))


def planted(*, measure: str = "a distance", similar: bool = False) -> pl.DataFrame:
    distances = {(a, b): apart(POINTS[a], POINTS[b]) for a, b in itertools.combinations(POINTS, 2)}
    rows = [(("r", a, 0), ("r", b, 0), 1 - far if similar else far, 0.1) for (a, b), far in distances.items()]
    return swept(rows, measure=measure)


def check(found: pl.DataFrame, name: str = "site") -> None:
    """Points are as far from each other as they were planted."""
    drawn = {row[name]: np.array([row["x"], row["y"]]) for row in found.iter_rows(named=True)}
    assert set(drawn) == set(POINTS)
    for a, b in itertools.combinations(POINTS, 2):
        assert apart(drawn[a], drawn[b]) == pytest.approx(apart(POINTS[a], POINTS[b]))


def test_points_of_a_plane_are_found_from_their_distances() -> None:
    chart = mds(planted())
    check(data(chart))
    assert "the plane shows 100 % of the distances" in subtitle(chart)


def test_distances_that_are_not_squared_are_noticed() -> None:
    with broken("mds_does_not_square"), pytest.raises(AssertionError):
        test_points_of_a_plane_are_found_from_their_distances()


def test_of_a_similarity_one_less_its_value_is_the_distance() -> None:
    chart = mds(planted(measure="similarity.cka", similar=True))
    check(data(chart))
    assert "distances are 1 - similarity.cka" in subtitle(chart)


def test_both_directions_of_a_pair_are_averaged() -> None:
    frame = planted()
    sides = {f"{name}_{a}": f"{name}_{b}" for name in ("run", "site", "step") for a, b in ("ab", "ba")}
    turned = frame.rename(sides).select(frame.columns)
    check(data(mds(pl.concat([frame.with_columns(pl.col("value") + 0.1), turned.with_columns(pl.col("value") - 0.1)]))))


def test_what_the_plane_does_not_show_is_said() -> None:
    # four points, each as far from each other: a tetrahedron, of which a plane shows two of three directions
    equal = 1 - np.eye(4)
    points, share = classical(equal)
    assert share == pytest.approx(2 / 3)
    assert points.mean(axis=0) == pytest.approx([0, 0])
    rows = [(("r", a, 0), ("r", b, 0), 1.0, 0.1) for a, b in itertools.combinations("abcd", 2)]
    assert "67 %" in subtitle(mds(swept(rows, measure="a distance")))


def test_the_picture_is_the_same_each_time() -> None:
    points = np.random.default_rng(3).normal(size=(9, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    found, _ = classical(distances)
    largest = np.abs(found).argmax(0)
    assert (found[largest, [0, 1]] > 0).all()
    order = np.random.default_rng(4).permutation(9)
    np.testing.assert_allclose(classical(distances[np.ix_(order, order)])[0], found[order], atol=1e-12)


def test_steps_of_a_site_are_joined_by_a_line_in_their_order() -> None:
    names = [("r", "mlp", step) for step in (0, 10, 200)]
    rows = [(a, b, abs(a[2] - b[2]) / 200, 0.1) for a, b in itertools.combinations(names, 2)]
    chart = spec(mds(swept(rows, measure="a distance")))
    marks = {layer["mark"]["type"]: layer["encoding"] for layer in chart["layer"]}
    assert marks["line"]["order"]["field"] == "step"
    assert "datum.step == 200" in str(marks["point"]["size"])


def test_few_networks_have_their_names_beside_them_and_runs_their_shapes() -> None:
    chart = spec(mds(planted()))
    assert any(layer["mark"]["type"] == "text" for layer in chart["layer"])
    names = [(run, site, 0) for run in "rs" for site in ("mlp", "head")]
    rows = [(a, b, 0.5, 0.1) for a, b in itertools.combinations(names, 2)]
    chart = spec(mds(swept(rows, measure="a distance")))
    (points,) = (layer["encoding"] for layer in chart["layer"] if layer["mark"]["type"] == "point")
    assert (points["color"]["field"], points["shape"]["field"]) == ("site", "run")


def test_both_axes_have_the_same_units() -> None:
    chart = spec(mds(planted()))
    x, y = (chart["layer"][0]["encoding"][name]["scale"]["domain"] for name in ("x", "y"))
    assert x[1] - x[0] == pytest.approx(y[1] - y[0])


def test_pairs_that_are_missing_are_named() -> None:
    with pytest.raises(SchemaError, match="1 of 10 pairs have no value, such as r a 0 and r b 0"):
        mds(planted()[1:])
    with pytest.raises(SchemaError, match="4 of 10 pairs have no value"):
        mds(planted().with_columns(value=pl.when(pl.col("site_a") != "a").then("value")))


def test_what_compares_nothing_is_refused() -> None:
    with pytest.raises(SchemaError, match="compares nothing"):
        mds(swept([(("r", "a", 0), None, 0.5, 0.1)], measure="twonn"))
    with pytest.raises(SchemaError, match="neither a distance nor a similarity"):
        mds(planted(measure="twonn"))
    with pytest.raises(SchemaError, match="differs in part too"):
        mds(pl.concat([planted(), planted().with_columns(part=pl.lit("other"))]))
