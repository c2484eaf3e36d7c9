"""What the pictures show, against what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.report import learnt, norms, principal
from lamina.report.norms import norms_frame
from lamina.report.overview import overview_section
from lamina.report.saved import saved_frame, saved_section
from lamina.report.section import Picture, Table
from lamina.report.weights import weights_frame
from tests.faults import broken


def planted(path: Path, losses: dict[int, list[float]]) -> lamina.Run:
    """A run in which example k has the k-th loss of each step."""
    run = lamina.Run.create(path)
    with run.writer() as writer:
        for step, values in losses.items():
            writer.append({"loss": np.array(values)}, step=step, example=np.arange(len(values)), source="train")
    return lamina.open(path)


def test_learnt_is_the_step_from_which_the_loss_stays_low(tmp_path: Path) -> None:
    # The threshold is half the mean of the first step: 1. Always low; low at once; a relapse; never; NaN at the end.
    losses = {0: [0.2, 2.0, 3.8, 2.0, 2.0], 5: [0.1, 0.5, 0.5, 1.5, 0.5], 9: [0.1, 0.5, 2.0, 1.0, 0.5],
              20: [0.1, 0.5, 0.5, 1.2, np.nan]}  # fmt: skip
    frame = learnt.learnt_frame(planted(tmp_path / "run", losses))
    assert frame["threshold"].unique().to_list() == [1.0]
    assert frame["learnt"].to_list() == [0, 5, 20, None, None]


def test_a_relapse_is_shown_to_count(tmp_path: Path) -> None:
    with broken("learnt_forgets_relapses"), pytest.raises(AssertionError):
        test_learnt_is_the_step_from_which_the_loss_stays_low(tmp_path)


def test_norms_are_means_over_rows_of_the_probe(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in (0, 4):
            rows = np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32) * (step + 1)
            writer.append({"a.output": rows, "a.output.grad": 2 * rows}, step=step, source="validation")
            writer.append({"a.output": 100 * rows[:1]}, step=step, source="train")
    run = lamina.open(tmp_path / "run")
    frame, gradients = (norms_frame([run], gradients=gradients) for gradients in (False, True))
    assert frame is not None
    assert gradients is not None
    expected = [("run", "a.output", 0, 3.0, 2), ("run", "a.output", 4, 15.0, 2)]
    assert frame.select("run_a", "site_a", "step_a", "value", "n").rows() == expected
    assert frame["stderr"].to_list() == pytest.approx([2, 10])  # half the distance between the two rows
    assert gradients["value"].to_list() == [6.0, 30.0]
    assert frame["source"].to_list() == ["validation"] * 2


@pytest.mark.parametrize("period", [1, 8, 100])
def test_of_many_rows_the_norms_of_about_a_thousand_are_read_whatever_their_period(
    tmp_path: Path, period: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "_ROWS", 200)
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        rows = 1.0 + np.arange(2000)[:, None] % period
        for step in (0, 1):
            writer.append({"a.output": np.concatenate([rows, 0 * rows], 1)}, step=step, example=np.arange(2000))
    frame = norms_frame([lamina.open(tmp_path / "run")], gradients=False)
    assert frame is not None
    assert frame["n"].to_list() == pytest.approx([200, 200], abs=4)
    assert frame["value"].to_list() == pytest.approx([rows.mean()] * 2, rel=0.05)


def test_a_site_that_is_not_finite_has_no_norm_and_a_row_that_is_not_is_left_out(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step, lost in ((0, 2), (1, 1), (2, 0)):
            rows = np.array([[3.0, 4.0], [0.0, 1.0]])
            rows[:lost] = np.nan
            writer.append({"a.output": rows}, step=step, example=[0, 1])
    frame = norms_frame([lamina.open(tmp_path / "run")], gradients=False)
    assert frame is not None
    assert frame["value"].to_list() == [None, 1.0, 3.0]


def test_weights_change_relative_to_the_start(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step, scale in ((0, 1.0), (2, 3.0), (10, -1.0)):
            writer.save({"model": {"w": scale * np.eye(3), "b": np.ones(3) * scale}}, step=step)
    frame = weights_frame(lamina.open(tmp_path / "run"), "run")
    assert frame["weight"].unique().to_list() == ["w"]
    assert frame.select("step", "moved", "pace").rows() == [(2, pytest.approx(2), pytest.approx(1)),
                                                           (10, pytest.approx(2), pytest.approx(0.5))]  # fmt: skip


def turning(path: Path) -> lamina.Run:
    """A run whose layer is one cloud, mirrored and shuffled from step to step."""
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(40, 2)) * [3, 1]
    run = lamina.Run.create(path)
    with run.writer() as writer:
        for step, mirror in ((0, [1, 1]), (1, [-1, 1]), (2, [1, -1]), (3, [-1, -1])):
            order = rng.permutation(40)
            rows = (cloud * mirror * 2.0**step)[order].astype(np.float32)
            writer.append({"a.output": rows}, step=step, example=order, source="validation")
    return lamina.open(path)


def test_pictures_of_one_cloud_line_up_however_it_is_mirrored(tmp_path: Path) -> None:
    frame = principal.principal_frame(turning(tmp_path / "run"), "a.output", [0, 1, 2, 3], "validation")
    assert frame["share"].to_list() == pytest.approx([1] * 160)
    scaled = frame.sort("example").with_columns(pl.col("x", "y") / 2.0 ** pl.col("step"))
    for step in (1, 2, 3):
        np.testing.assert_allclose(
            scaled.filter(step=step).select("x", "y"), scaled.filter(step=0).select("x", "y"), rtol=1e-4, atol=1e-4
        )


def test_lining_up_is_shown_to_need_reflections(tmp_path: Path) -> None:
    with broken("procrustes_only_turns"), pytest.raises(AssertionError):
        test_pictures_of_one_cloud_line_up_however_it_is_mirrored(tmp_path)


def test_the_last_hidden_layer_is_not_the_root_and_not_a_gradient(runs: list[lamina.Run]) -> None:
    assert principal.last_hidden(runs[0]) == "blocks.0.output"


def test_labels_join_by_example(runs: list[lamina.Run]) -> None:
    frame = principal.principal_frame(runs[0], "blocks.0.output", [0, 32], "validation")
    assert (frame["label"] == (frame["example"] % 3).cast(pl.String)).all()
    assert frame["step"].unique().sort().to_list() == [0, 32]


def test_rows_and_steps_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step, lost in ((0, 1), (1, 9), (2, 0)):
            rows = np.random.default_rng(step).normal(size=(10, 4))
            rows[:lost, 0] = np.nan
            writer.append({"a.output": rows}, step=step, example=np.arange(10), source="validation")
    frame = principal.principal_frame(lamina.open(tmp_path / "run"), "a.output", [0, 1, 2], "validation")
    assert frame.group_by("step").len().sort("step").rows() == [(0, 9), (2, 10)]
    assert frame["x"].is_finite().all()


def test_checkpoints_tell_what_was_new(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in (0, 5, 10):
            state = {"frozen": np.arange(1000.0), "w": np.full(1000, step, np.float64)}
            writer.save({"model": state, "once": np.ones(3)} if step == 0 else {"model": state}, step=step)
    run = lamina.open(tmp_path / "run")
    model = saved_frame([run]).filter(part="model").select("step", "tensors", "bytes", "stored").rows()
    assert model == [(0, 2, 16000, 16000), (5, 2, 16000, 8000), (10, 2, 16000, 8000)]
    section = saved_section([run])
    assert section is not None
    table, picture = section.parts
    assert isinstance(table, Table)
    assert isinstance(picture, Picture)
    rows = table.frame.select("part", "checkpoints", "last step", "percent").rows()
    assert rows == [("model", 3, 10, pytest.approx(200 / 3)), ("once", 1, 0, 100.0)]
    drawn = picture.chart.to_dict()
    assert "percent" in str(drawn)
    run.retain(last=1).apply()
    assert saved_frame([run])["step"].to_list() == [0, 10]
    assert saved_section([lamina.Run.create(tmp_path / "empty")]) is None


def test_checkpoints_that_share_nothing_have_no_picture_of_it(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(3):
            writer.save({"model": {"w": np.full(4, float(step))}}, step=step)
    section = saved_section([lamina.open(tmp_path / "run")])
    assert section is not None
    assert [type(part) for part in section.parts] == [Table]


def test_marks_of_tokens_are_positions_of_examples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in {"rows": (12, 4), "tokens": (6, 2, 4)}.items():
        run = lamina.Run.create(tmp_path / name)
        with run.writer() as writer:
            for step in (0, 1):
                writer.append({"a.output": rng.normal(size=shape).astype(np.float32)}, step=step)
        section = principal.principal_section([run.refresh()])
        assert section is not None
        assert section.parts[0].reading.startswith(
            "Each mark is one position of an example;" if name == "tokens" else "Each mark is one example;"
        )


def test_what_was_noted_stands_in_the_overview(tmp_path: Path) -> None:
    runs = [lamina.Run.create(tmp_path / name) for name in "ab"]
    assert len(overview_section(runs).parts) == 1
    runs[0].note("<b>first</b>", step=3)
    runs[1].note("second")
    *_, noted = overview_section(runs).parts
    assert isinstance(noted, Table)
    assert noted.frame.drop("time (UTC)").rows() == [("a", 3, "<b>first</b>"), ("b", None, "second")]
