"""What the section on features shows of codes that were planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.report import feature_measures, report
from lamina.report.feature_charts import dead_frame, density_bins, training_chart
from lamina.report.feature_measures import coded, firing, informed, selective
from lamina.report.features import features_section
from lamina.report.section import Cards, Picture, Table
from tests.faults import broken, fault

TOKENS = ["the", "tu", "##ple", "of", "<b>", "list", "."]
SITE = "mlp.output/sae"


@fault
def selectivity_forgets_chance(patch: pytest.MonkeyPatch) -> None:
    """Labels are not shuffled but all alike, so that chance explains nothing."""
    patch.setattr(pl.Expr, "shuffle", lambda self, seed=None: pl.lit("a"))


def planted(path: Path, *, examples: int = 60, tokens: bool = True, width: int = 50) -> lamina.Run:
    """Feature k below 7 fires on token k, but 1 on half of them, 2 also on `.`; 8 by chance, 9 often, 10 once."""
    draw = np.random.default_rng(0)
    kinds = draw.integers(0, len(TOKENS), (examples, 8))
    codes = np.zeros((examples, 8, width), np.float32)
    for kind in range(len(TOKENS)):
        codes[..., kind] = np.where(kinds == kind, draw.uniform(2, 3, kinds.shape), 0.0)
    codes[..., 1] *= draw.random(kinds.shape) < 0.5
    codes[..., 2] += np.where(kinds == 6, 2.5, 0.0)
    codes[..., 8] = draw.random(kinds.shape) < 0.1
    codes[..., 9] = draw.random(kinds.shape) < 0.9
    codes[0, 0, 10] = 7.0
    run = lamina.Run.create(path)
    with run.writer() as writer:
        writer.features(SITE, codes, threshold=0, step=3, example=np.arange(examples))
        if tokens:
            table = {"example": np.repeat(np.arange(examples), 8), "position": np.tile(np.arange(8), examples)}
            writer.examples(table | {"token": [TOKENS[kind] for kind in kinds.reshape(-1)]})
    return run.refresh()


def check_selectivity(path: Path) -> None:
    codes = coded(planted(path), SITE)
    assert codes is not None
    fired = firing(codes)
    found = dict(selective(codes, fired).select("feature", "selectivity").rows())
    assert [found[kind] for kind in (0, 3, 4, 5)] == pytest.approx([1.0] * 4)
    assert found[2] == pytest.approx(1.0)  # of two tokens, but of all of these
    assert 0.5 < found[1] < 0.75  # of a seventh of the rows, half: 1 - log(2) / 7 / H(1 / 14) = 0.615
    assert abs(found[8]) < 0.02
    assert abs(found[9]) < 0.02


def test_selectivity_is_one_where_the_token_decides_and_nothing_where_chance_does(tmp_path: Path) -> None:
    check_selectivity(tmp_path / "run")


def test_what_chance_explains_is_shown_to_count(tmp_path: Path) -> None:
    with broken("selectivity_forgets_chance"), pytest.raises(AssertionError):
        check_selectivity(tmp_path / "run")


def test_mutual_information_is_that_of_the_table_of_counts() -> None:
    draw = np.random.default_rng(1)
    labels, active = draw.integers(0, 5, 200), draw.random((200, 3)) < [0.3, 0.05, 1.1]
    frame = pl.DataFrame({"row": np.arange(200), "label": labels})
    row, feature = active.nonzero()
    found = informed(pl.DataFrame({"row": row, "feature": feature}), frame).sort("feature")
    for k, expected in enumerate(found.iter_rows(named=True)):
        joint = np.array([[np.mean((active[:, k] == on) & (labels == label)) for label in range(5)] for on in (0, 1)])
        outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        some = joint > 0
        assert expected["information"] == pytest.approx((joint[some] * np.log(joint[some] / outer[some])).sum())
        share = joint.sum(1)[joint.sum(1) > 0]
        assert expected["entropy"] == pytest.approx(-(share * np.log(share)).sum())
        assert expected["strong"] == active[:, k].sum()


def test_of_many_units_some_rows_are_read_and_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_measures, "_UNITS", 300)
    codes = coded(planted(tmp_path / "run"), SITE)
    assert codes is not None
    found = selective(codes, firing(codes))
    assert found["strong"].sum() < 330
    assert found.filter(feature=0)["selectivity"].item() == pytest.approx(1.0)


def test_cards_show_the_tokens_in_context(tmp_path: Path) -> None:
    section = features_section([planted(tmp_path / "run")])
    assert section is not None
    found, density = section.parts
    assert isinstance(found, Cards)
    assert isinstance(density, Picture)
    named = {card.title.partition(":")[0]: card for card in found.cards}
    assert {f"Feature {k}" for k in range(7)} <= set(named) <= {f"Feature {k}" for k in range(10)}  # 10 fires once
    card = named["Feature 2"]
    assert card.title in ("Feature 2: ##ple, .", "Feature 2: ., ##ple")
    assert card.facts.startswith("selectivity 1.00 · fires in")
    assert "“##ple”" in card.facts
    assert len({passage.place for passage in card.passages}) == len(card.passages) == 6
    # the strongest of each token come first, and both are there
    assert {passage.hit.text for passage in card.passages} == {"ple", " ."}
    for passage in card.passages:
        assert len(passage.before) + len(passage.behind) == 7
        for word in (*passage.before, passage.hit, *passage.behind):
            assert (word.strength > 0.5) == (word.text in ("ple", " ."))
    text = report(planted(tmp_path / "again"), tmp_path / "report.html", progress=False).read_text()
    assert "&lt;b&gt;" in text
    assert "“<b>”" not in text
    assert '<mark title="2.' in text


def test_densities_are_counted_and_the_dead_stand_apart(tmp_path: Path) -> None:
    codes = coded(planted(tmp_path / "run"), SITE)
    assert codes is not None
    fired = firing(codes)
    assert fired.height == 50
    assert (fired["count"] == 0).sum() == 40
    bins = density_bins(fired)
    assert bins["features"].sum() == 10
    assert bins.filter(pl.col("low") <= 1 / 480, pl.col("high") > 1 / 480)["features"].item() == 1
    assert bins["high"].max() == pytest.approx(1.0)


def test_over_a_training_the_dead_are_counted_at_each_step(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step, alive in ((0, 4), (10, 3), (20, 1)):
            codes = np.zeros((6, 4), np.float32)
            codes[:, :alive] = 1.0
            writer.features("sae.output", codes, threshold=0, step=step, example=np.arange(6))
            writer.log({"train/explained variance": 0.1, "validation/explained variance": step / 40}, step=step)
    codes = coded(run.refresh(), "sae.output")
    assert codes is not None
    assert dead_frame(codes).rows() == [(0, 0.0), (10, 0.25), (20, 0.75)]
    chart = training_chart([("run", codes)])
    assert chart is not None
    (values,) = chart.to_dict()["datasets"].values() if "datasets" in chart.to_dict() else [chart.to_dict()]
    assert "variance that is explained" in str(values)
    assert firing(codes)["count"].to_list() == [6, 0, 0, 0]


def test_each_site_has_its_cards_and_those_beyond_four_are_named(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    of_token = np.eye(len(TOKENS), dtype=np.float32)[np.random.default_rng(0).integers(0, len(TOKENS), (60, 8))]
    with run.writer() as writer:
        for width in range(20, 24):
            codes = np.concatenate([of_token, np.zeros((60, 8, width - len(TOKENS)), np.float32)], axis=2)
            writer.features(f"layer.{width}", codes, threshold=0, step=3, example=np.arange(60))
    section = features_section([run.refresh()])
    assert section is not None
    shown = [part.reading for part in section.parts if isinstance(part, Cards)]
    for text, site in zip(shown, [SITE, "layer.23", "layer.22", "layer.21"], strict=True):
        assert site in text
    last = section.parts[-1]
    assert isinstance(last, Table)
    assert last.frame.rows() == [("layer.20", 20)]


@pytest.mark.parametrize(
    "kind", ["no tokens", "one feature", "all dead", "no rows", "not finite", "several sources", "wide"]
)
def test_odd_codes_have_a_section(tmp_path: Path, kind: str) -> None:
    run = lamina.Run.create(tmp_path / "run")
    if kind == "no tokens":
        run = planted(tmp_path / "bare", tokens=False, examples=5)
    with run.writer() as writer:
        if kind == "one feature":
            writer.features(SITE, np.ones((30, 1), np.float32), threshold=0, step=0)
        elif kind == "all dead":
            writer.features(SITE, np.zeros((30, 5), np.float32), threshold=0, step=0, example=np.arange(30))
        elif kind == "no rows":
            writer.features(SITE, np.zeros((0, 5), np.float32), threshold=0, step=0)
        elif kind == "not finite":
            codes = np.full((30, 5), np.nan, np.float32)
            codes[:, 1] = np.inf
            codes[:20, 2] = -1.0
            writer.features(SITE, codes, threshold=0, step=0, example=np.arange(30))
            writer.examples({"example": np.arange(30), "label": np.arange(30) % 3})
        elif kind == "several sources":
            for source, rows in (("a", 2), ("b", 9), ("c", 3)):
                writer.features(SITE, np.ones((rows, 2), np.float32), threshold=0, step=0, source=source)
        elif kind == "wide":
            writer.features(SITE, (np.ones((4, 3), np.float32), np.tile([0, 7, 10**6], (4, 1))), width=2**20, step=0)
    page = report(run.refresh(), tmp_path / "report.html", progress=False)
    text = page.read_text()
    assert ("What the features fire on" in text) == (kind != "no rows")
    if kind == "no tokens":
        assert "by position" in text
        assert "example 0" in text
    if kind == "several sources":
        assert "9 rows" in text
