"""Two processes that train one model, by DDP and by FSDP2, leave the rows of one process with the whole batch."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lamina
import lamina.recording as recording
from lamina.errors import RecordingError
from lamina.modules.wrappers import unwrapped
from lamina.recording import numbering
from lamina.recording.resolve import resolve
from tests.faults import broken
from tests.recording import two_ranks
from tests.recording.two_ranks import spawn


def rows(run: lamina.Run, site: str, source: str = "train") -> pl.DataFrame:
    """Return the rows of a site in an order that does not depend on who wrote them."""
    frame = run.activations(site).filter(pl.col("source") == source).drop("row", "rank", strict=False).collect()
    return frame.sort([name for name in ("step", "example", "position") if name in frame.columns])


@pytest.fixture(params=["ddp", "fsdp"])
def shared(request, folder) -> lamina.Run:
    return lamina.open(folder / request.param, strict=True)


@pytest.fixture
def alone(folder) -> lamina.Run:
    return lamina.open(folder / "alone")


def test_sites_have_the_names_of_the_plain_model(shared, alone):
    assert set(alone.sites()["site"]) == set(shared.sites()["site"])
    assert {"output", "module.output", "head.output", "module.weight"} <= set(alone.sites()["site"])


@pytest.mark.parametrize("site", ["output", "module.output", "act.output", "head.output", "losses"])
@pytest.mark.parametrize("source", ["train", "fixed"])
def test_activations_of_all_ranks_are_those_of_the_whole_batch_bit_for_bit(shared, alone, site, source):
    if (site, source) != ("losses", "fixed"):
        expected = rows(alone, site, source)
        assert expected.height == (3 if source == "train" else 4) * two_ranks.BATCH
        assert_frame_equal(rows(shared, site, source), expected, check_column_order=False)


@pytest.mark.parametrize(
    "site",
    ["module.weight", "module.weight.grad", "head.weight.grad", "head.bias.update", "module.weight.momentum_buffer"],
)
def test_every_row_of_a_parameter_is_recorded_once(shared, alone, site):
    assert_frame_equal(rows(shared, site), rows(alone, site), check_column_order=False)


def test_gradients_of_activations_are_those_of_the_ranks_own_mean(shared, alone):
    expected = rows(alone, "output.grad").with_columns(
        pl.Series("output.grad", 2 * rows(alone, "output.grad")["output.grad"].to_numpy())
    )
    assert expected["output.grad"].to_numpy().any()
    assert rows(shared, "output.grad")["output.grad"].to_list() == expected["output.grad"].to_list()


@pytest.mark.slow
def test_compiled_models_in_parallel_leave_the_same(tmp_path):
    spawn(tmp_path, "compiled")
    expected = lamina.open(tmp_path / "alone")
    for name in ("within", "around"):
        run = lamina.open(tmp_path / name, strict=True)
        for site in ("output", "module.output", "head.output", "head.weight.grad"):
            assert_frame_equal(rows(run, site), rows(expected, site), check_column_order=False)
        two_ranks.net().load_state_dict(run.load(step="last"))


def test_rows_and_metrics_say_which_rank_wrote_them(shared):
    assert shared.status.state == "finished"
    frame = shared.activations("output").collect()
    size = two_ranks.BATCH // 2
    assert (frame["rank"] == frame["example"] % 100 // size).all()
    assert shared.metrics().select(pl.col("rank").unique().sort()).collect()["rank"].to_list() == [0, 1]


def test_rows_of_parameters_come_from_the_rank_that_holds_them(folder):
    def ranks(run: str) -> list[tuple[int, int]]:
        frame = lamina.open(folder / run).activations("module.weight").filter(pl.col("step") == 0).collect()
        return sorted(frame.select("position", "rank").rows())

    assert ranks("ddp") == [(0, 0), (1, 0), (2, 0)]
    assert ranks("fsdp") == [(0, 0), (1, 0), (2, 1)]


def test_a_checkpoint_is_saved_once_and_whole(shared, alone):
    tensors = shared.checkpoints().sort("step", "part", "tensor").collect()
    expected = alone.checkpoints().sort("step", "part", "tensor").collect()
    assert_frame_equal(tensors.drop("stored"), expected.drop("stored"))
    for step in (0, 2, 3):
        plain = two_ranks.net()
        plain.load_state_dict(shared.load(step=step))
        assert all(torch.equal(a, alone.load(step=step)[name]) for name, a in plain.state_dict().items())
        optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
        optimizer.load_state_dict(shared.load(step=step, part="optimizer"))
        buffers = [state["momentum_buffer"] for state in optimizer.state_dict()["state"].values()]
        again = [one["momentum_buffer"] for one in alone.load(step=step, part="optimizer")["state"].values()]
        assert len(buffers) == (0 if step == 0 else 4)
        assert all(torch.equal(a, b) for a, b in zip(buffers, again, strict=True))


def test_rank_0_saves_what_ranks_share_and_every_rank_what_they_do_not(folder):
    saves = [json.loads((folder / f"saves-{rank}.json").read_text()) for rank in range(2)]
    assert saves == [{"ddp": 3, "fsdp": 3, "unnamed": 2}, {"unnamed": 2}]


@pytest.mark.parametrize("site", ["output", "head.output"])
def test_a_replay_into_shards_is_the_live_probe_bit_for_bit(folder, site):
    run = lamina.open(folder / "fsdp")
    live = rows(run, site, "fixed").filter(pl.col("step").is_in([0, 2])).drop("source")
    assert live.height == 2 * two_ranks.BATCH
    assert_frame_equal(rows(run, site, "replayed").drop("source"), live)


def test_items_without_names_have_different_numbers_on_every_rank(folder):
    run = lamina.open(folder / "unnamed")
    frame = run.activations("output").sort("step", "rank", "row").collect()
    numbers = {key: part["example"].to_list() for key, part in frame.group_by("step", "rank", maintain_order=True)}
    assert numbers == {
        (0, 0): [0, 2, 4],
        (0, 1): [1, 3, 5],
        (1, 0): [6, 8, 10],
        (1, 1): [7, 9, 11],
        (2, 0): [12, 14, 16],
        (2, 1): [13, 15, 17],
    }


def test_a_probe_that_is_divided_among_ranks_needs_names(run):
    data = TensorDataset(torch.ones(4, 2))
    loader = DataLoader(data, sampler=DistributedSampler(data, num_replicas=2, rank=1, shuffle=False))
    with (
        pytest.raises(RecordingError, match=r"divided among ranks.*mappings with an `example` entry"),
        recording.record(nn.Linear(2, 2), run, sites="output", probes={"fixed": loader}) as recorder,
        recorder.step(0),
    ):
        pass


def check_that_numbers_of_ranks_stay_apart(patch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    for rank in range(3):
        patch.setattr(numbering, "world_size", lambda: 3)
        patch.setattr(numbering, "own_rank", lambda rank=rank: rank)
        # Ranks may begin behind different rows, as one of them has written already.
        numbers = numbering.Numbering(4 + rank)
        for size in (2, 3):
            numbers.begin_step()
            seen += numbers.of(0, size).tolist()
            assert numbers.of(0, size).tolist() == seen[-size:]
    assert len(set(seen)) == len(seen) == 15
    assert min(seen) >= 4


def test_numbers_of_ranks_stay_apart(monkeypatch):
    check_that_numbers_of_ranks_stay_apart(monkeypatch)


def test_numbers_that_ranks_share_are_noticed(monkeypatch):
    with broken("numbers_are_the_same_on_every_rank"), pytest.raises(AssertionError):
        check_that_numbers_of_ranks_stay_apart(monkeypatch)


def check_that_only_wrappers_are_left_out_of_names() -> None:
    model = nn.Sequential(two_ranks.Net())
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))  # pyright: ignore[reportArgumentType]
    assert [site.name for site in resolve(wrapped, "**.output").sites] == [
        site.name for site in resolve(model, "**.output").sites
    ]
    assert [site.name for site in resolve(wrapped, "0.module.weight").parameters] == ["0.module.weight"]
    assert unwrapped(wrapped) is model
    inside = nn.Sequential(nn.DataParallel(two_ranks.Net()))
    assert [site.name for site in resolve(inside, "0.module.output").sites] == ["0.module.output"]


def test_only_wrappers_are_left_out_of_names():
    check_that_only_wrappers_are_left_out_of_names()


def test_a_name_that_lost_its_module_is_noticed():
    with broken("names_drop_every_module"), pytest.raises((AssertionError, RecordingError)):
        check_that_only_wrappers_are_left_out_of_names()


def test_a_capture_goes_on_behind_what_each_rank_has_recorded(folder):
    frame = lamina.open(folder / "captured").activations("output").sort("example").collect()
    assert frame["example"].to_list() == list(range(20))
    assert frame["output"].to_list() == [[example + 1.0] for example in range(20)]
    assert frame["rank"].to_list() == [0, 0, 1, 1] * 5
