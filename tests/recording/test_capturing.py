from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lamina
import lamina.recording as recording
from lamina.errors import NotFoundError, RecordingError
from tests.recording.models import Net, linear

X = torch.randn(10, 4)


def captured(run, model, data, **options):
    recording.capture(model, run, data, progress=False, **{"sites": "blocks.*.output", **options})
    return run


def test_one_pass_in_evaluation_mode(run):
    model = Net()
    captured(run, model, DataLoader(TensorDataset(X), batch_size=4))
    assert model.training
    with torch.no_grad():
        expected = nn.Sequential(model.eval().norm, *model.blocks)(X)
    # Batches of 4, 4 and 2 as one of 10: batching may change the last bits.
    torch.testing.assert_close(run.values("blocks.1.output", "capture")[0], expected)
    assert [columns["example"] for columns in run.columns("blocks.1.output", "capture")] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert run.written.closed
    assert run.written.error is None
    assert run.refreshed > 0


def test_step_and_source_are_what_was_asked_for(run):
    captured(run, Net(), X, step=7, source="test")
    assert list(run.values("blocks.0.output", "test")) == [7]


def test_stored_steps_are_replayed_bit_for_bit_and_the_weights_come_back(run):
    model = Net()
    live = {}
    for step in (0, 3, 5):
        run.writer().save({"model": model.state_dict()}, step=step)
        with torch.no_grad():
            model.eval()
            live[step] = model(X)
            model.train()
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    captured(run, model, X, sites="output", steps=iter([0, 5, 3]))
    found = run.values("output", "capture")
    assert list(found) == [0, 5, 3]
    assert all(torch.equal(found[step], live[step]) for step in live)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_step_without_a_checkpoint_raises_before_anything_is_written(run):
    run.writer().save({"model": Net().state_dict()}, step=100)
    with pytest.raises(NotFoundError, match=r"no checkpoint of step 90 \(nearest: 100\)"):
        captured(run, Net(), X, steps=[100, 90])
    assert not run.written.appends
    with pytest.raises(NotFoundError, match=r"no checkpoint of step 0 \(there are none\)"):
        captured(type(run)(), Net(), X, steps=[0])


def test_a_step_that_another_rank_saved_meanwhile_is_found(tmp_path):
    model, run = nn.Linear(4, 2), lamina.Run.create(tmp_path / "run")
    with lamina.open(run.path).writer() as writer:
        writer.save({"model": model.state_dict()}, step=5)
    lamina.capture(model, run, X, sites="output", steps=[5], progress=False)
    assert run.activations("output").collect()["step"].to_list() == [5] * len(X)


def test_weights_hooks_and_mode_come_back_after_an_exception(run):
    model = Net()
    run.writer().save({"model": Net().state_dict()}, step=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"mat1 and mat2|running_mean"):
        captured(run, model, [X, torch.ones(2, 7)], steps=[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert len(run.values("blocks.0.output", "capture")[0]) == 10
    assert run.written.error is not None


def test_a_glob_that_matches_nothing_and_a_silent_site_raise(run):
    with pytest.raises(RecordingError, match="matches nothing"):
        captured(run, Net(), X, sites="block.output")
    model = nn.ModuleList([linear()])
    model.forward = lambda x: x
    with pytest.raises(RecordingError, match=r"nothing was captured at 0\.output"):
        captured(run, model, X, sites="0.output")


def test_an_iterator_raises(run):
    with pytest.raises(RecordingError, match="capture: a list_iterator can be gone through only once"):
        captured(run, Net(), iter([X]))


class Detector(nn.Module):
    """Takes a list of images, of sizes of their own, as those of torchvision do."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(12, 5)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        scores = self.head(torch.stack([self.pool(one).flatten() for one in images]))
        return [{"scores": one} for one in scores]


IMAGES = [torch.randn(3, size, 6) for size in (4, 5, 6, 7, 8)]


@pytest.mark.parametrize("data", [[(IMAGES[:3],), (IMAGES[3:],)], [{"images": IMAGES[:3]}, {"images": IMAGES[3:]}]])
def test_a_list_of_tensors_is_a_batch_of_as_many_items(run, data):
    model = Detector()
    captured(run, model, data, sites="head.output")
    with torch.no_grad():
        scores = [torch.stack([found["scores"] for found in model(images)]) for images in (IMAGES[:3], IMAGES[3:])]
    assert torch.equal(run.values("head.output", "capture")[0], torch.cat(scores))
    assert [columns["example"] for columns in run.columns("head.output", "capture")] == [[0, 1, 2], [3, 4]]


def test_probes_of_lists_of_tensors_that_change_raise(run):
    model, data = Detector(), [(IMAGES[:3],)]

    def train() -> None:
        with recording.record(model, run, sites="head.output", probes={"fixed": data}) as recorder:
            for step in range(2):
                with recorder.step(step, example=range(2)):
                    model(IMAGES[3:])
                data[0] = (IMAGES[2:],)

    with pytest.raises(RecordingError, match="other data at step 1"):
        train()
