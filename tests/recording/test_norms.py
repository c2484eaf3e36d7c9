"""Norms of gradients, weights and updates: which, when, and of what."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import lamina
import lamina.recording as recording
from lamina.errors import LaminaWarning, RecordingError
from lamina.recording import Numbers
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Net

ALL = ("gradient", "raw_gradient", "weight", "update")


class Pair(nn.Module):
    """Two layers whose gradients are the input: 3, 4 and 12 for a row of these."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 1, bias=False)
        self.b = nn.Linear(1, 1, bias=False)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x[:, :2]) + self.b(x[:, 2:])


X = torch.tensor([[3.0, 4.0, 12.0]])


def train(run, *, numbers, clip=None, steps=1, model=None, passes=1, **options):
    """Train with SGD, rate 1/2, on gradients (3, 4) and 12."""
    model = Pair() if model is None else model
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd, **options) as recorder:
        for step in range(steps):
            sgd.zero_grad()
            for micro in range(passes):
                with recorder.step(step):
                    (model(X).sum() / passes).backward()
                    if micro == passes - 1:
                        if clip is not None:
                            nn.utils.clip_grad_norm_(model.parameters(), clip)
                        sgd.step()
    return run


def values(run, name, sites=("a", "b", None)):
    return [run.metric(name, site).get(0) for site in sites]


def test_norms_are_those_of_layers_and_of_the_whole_model(run):
    train(run, numbers=Numbers(norms=ALL))
    assert values(run, "weight_norm") == pytest.approx([2**0.5, 1, 3**0.5])
    assert values(run, "gradient_norm") == values(run, "raw_gradient_norm") == pytest.approx([5, 12, 13])
    assert values(run, "update_norm") == pytest.approx([2.5, 6, 6.5])


def test_before_and_after_clipping_are_two_metrics(run):
    train(run, numbers=Numbers(norms=ALL), clip=1.0)
    assert values(run, "raw_gradient_norm") == pytest.approx([5, 12, 13])
    assert values(run, "gradient_norm") == pytest.approx([5 / 13, 12 / 13, 1])
    assert values(run, "update_norm") == pytest.approx([2.5 / 13, 6 / 13, 0.5])


def test_gradients_taken_too_early_would_be_seen():
    with broken("norms_take_gradients_before_clipping"), pytest.raises(AssertionError):
        test_before_and_after_clipping_are_two_metrics(fake_run())


def test_weights_are_those_that_the_step_begins_with_and_updates_end_it(run):
    train(run, numbers=Numbers(norms=["weight", "update"]), steps=3)
    assert run.metric("weight_norm", "b") == pytest.approx({0: 1, 1: 5, 2: 11})
    assert run.metric("update_norm", "b") == pytest.approx({0: 6, 1: 6, 2: 6})


def test_a_copy_that_is_not_renewed_would_be_seen():
    with broken("updates_are_measured_from_the_first_step"), pytest.raises(AssertionError):
        test_weights_are_those_that_the_step_begins_with_and_updates_end_it(fake_run())


def test_micro_batches_are_one_step(run):
    train(run, numbers=Numbers(norms=ALL), passes=3, steps=2)
    assert run.metric("raw_gradient_norm") == run.metric("gradient_norm") == pytest.approx({0: 13, 1: 13})
    assert run.metric("update_norm") == pytest.approx({0: 6.5, 1: 6.5})


def test_several_updates_in_a_step_are_one_change(run):
    model = Pair()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    numbers = Numbers(norms=["gradient", "update"])
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder, recorder.step(0):
        for scale in (1, 2):
            sgd.zero_grad()
            (scale * model(X)).sum().backward()
            sgd.step()
    assert run.metric("update_norm") == pytest.approx({0: 3 * 6.5})
    assert run.metric("gradient_norm") == pytest.approx({0: 26})


def test_the_schedule_is_their_own_or_the_recorder_s(run):
    train(run, numbers=Numbers(norms=["gradient"], every=3), steps=7)
    assert list(run.metric("gradient_norm")) == [0, 3, 6]
    other = fake_run()
    train(other, numbers=Numbers(norms=["gradient"]), steps=7, every=2)
    assert list(other.metric("gradient_norm")) == [0, 2, 4, 6]


def test_parameters_may_have_a_row_each(run):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    numbers = Numbers(norms="gradient", by="parameter")
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder, recorder.step(0):
        model(X[:, :2]).sum().backward()
        sgd.step()
    assert values(run, "gradient_norm", ["weight", "bias", None]) == pytest.approx([5, 1, 26**0.5])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((4,), 2.0))
        self.embed = nn.Embedding(5, 4, sparse=True)
        self.head = nn.Linear(4, 5, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.unused = nn.Linear(4, 4)
        nn.init.ones_(self.embed.weight)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x) + self.token


def test_tied_weights_count_once_and_what_has_no_gradient_is_left_out(run):
    model = Tied()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    numbers = Numbers(norms=ALL)
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder, recorder.step(0):
        # The first row twice: its gradient is sparse, with two entries that belong together.
        model(torch.tensor([0, 0, 3])).sum().backward()
        sgd.step()
    sites = {(name, site) for _, name, site, _ in run.written.metrics}
    assert {site for name, site in sites if name == "weight_norm"} == {"token", "embed", "frozen", "unused", None}
    assert {site for name, site in sites if name == "gradient_norm"} == {"token", "embed", None}
    assert run.metric("weight_norm", "embed")[0] == pytest.approx(20**0.5)
    assert run.metric("gradient_norm", "embed")[0] == pytest.approx((4 * 4 + 4) ** 0.5)
    assert run.metric("raw_gradient_norm", "token")[0] == pytest.approx(6)
    assert run.metric("update_norm", "embed")[0] == pytest.approx((4 + 1) ** 0.5)
    assert run.metric("update_norm", "unused") == {0: 0}


def test_half_precision_gradients_do_not_overflow(run):
    model = nn.Linear(4, 4, bias=False).half()
    sgd = torch.optim.SGD(model.parameters(), lr=2**-10)
    numbers = Numbers(norms=ALL)
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder, recorder.step(0):
        model.weight.grad = torch.full((4, 4), 1000.0).half()
        sgd.step()
        model(torch.full((1, 4), 1000.0).half()).sum().backward()
    assert run.metric("gradient_norm")[0] == 4000


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_of_a_scaler_are_unscaled_and_raw_ones_are_not(run, fused):
    model = Pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    numbers = Numbers(norms=ALL)
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=optimizer) as recorder, recorder.step(0):
        scaler.scale(model(X).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert values(run, "gradient_norm") == pytest.approx([5, 12, 13])
    assert values(run, "raw_gradient_norm") == pytest.approx([1024 * 5, 1024 * 12, 1024 * 13])
    assert run.metric("update_norm")[0] == pytest.approx(6.5)


def test_an_overflow_shows_where_the_scaler_skips_the_step(run):
    model = Pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, backoff_factor=2.0**-126)
    numbers = Numbers(norms=["gradient", "raw_gradient"])

    def train():
        with recording.record(model, run, sites=[], numbers=numbers, optimizer=optimizer) as recorder:
            for step in range(2):
                with recorder.step(step):
                    optimizer.zero_grad()
                    scaler.scale(model(X).sum()).backward()
                    scaler.step(optimizer)
                    scaler.update()

    with pytest.warns(LaminaWarning, match="gradient_norm: nothing was found in step 0 .*GradScaler skips"):
        train()
    assert run.metric("gradient_norm") == pytest.approx({1: 13})
    assert run.metric("raw_gradient_norm")[0] == float("inf")


def test_without_an_optimizer_gradients_are_those_at_the_end_of_the_step(run):
    model = Pair()
    numbers = Numbers(norms=["gradient", "weight"])
    with recording.record(model, run, sites=[], numbers=numbers) as recorder:
        for step in range(2):
            model.zero_grad()
            with recorder.step(step):
                (2**step * model(X)).sum().backward()
    assert run.metric("gradient_norm") == pytest.approx({0: 13, 1: 26})


def test_an_optimizer_of_some_parameters_has_the_norms_of_these(run):
    model = Pair()
    sgd = torch.optim.SGD(model.b.parameters(), lr=0.5)
    with recording.record(model, run, sites=[], numbers=Numbers(), optimizer=sgd) as recorder, recorder.step(0):
        model(X).sum().backward()
        sgd.step()
    assert values(run, "gradient_norm") == [None, 12, 12]
    assert values(run, "update_norm") == [None, 6, 6]
    assert values(run, "weight_norm") == pytest.approx([2**0.5, 1, 3**0.5])


def test_of_a_sharded_parameter_a_rank_has_the_norm_of_its_part(run):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        model = Pair()
        for layer in (model.a, model.b):
            gradient = torch.full_like(layer.weight, 3)
            layer.weight = nn.Parameter(DTensor.from_local(layer.weight.detach(), mesh, [Shard(0)]))
            layer.weight.grad = DTensor.from_local(gradient, mesh, [Shard(0)])
        sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        with recording.record(model, run, sites=[], numbers=Numbers(), optimizer=sgd) as recorder, recorder.step(0):
            sgd.step()
        with pytest.raises(RecordingError, match="sharded over ranks"):
            recording.record(model, run, sites=[], numbers=Numbers(norms=[], noise_scale=4))
    finally:
        torch.distributed.destroy_process_group()
    assert values(run, "weight_norm") == pytest.approx([2**0.5, 1, 3**0.5])
    assert values(run, "gradient_norm") == pytest.approx([18**0.5, 3, 27**0.5])
    assert values(run, "update_norm") == pytest.approx([4.5**0.5, 1.5, 6.75**0.5])


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = [value for state in optimizer.state.values() for value in state.values()]
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    return [*model.state_dict().values(), *states, *gradients, torch.get_rng_state()]


def trained(numbers: Numbers | None, *, autocast: bool = False) -> list[torch.Tensor]:
    """Return all that a training with dropout, batch norm, clipping and micro-batches leaves.

    Halves come before the pass of the training, and again between its forward and its backward pass.
    """
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).logsumexp(1).mean()

    with recording.record(model, fake_run(), sites=[], numbers=numbers, optimizer=optimizer) as recorder:
        for step in range(4):
            optimizer.zero_grad()
            for _ in range(2):
                x = torch.randn(6, 4)
                with recorder.step(step), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    if numbers is not None:
                        recorder.noise_scale(loss, x)
                    own = loss(x)
                    if numbers is not None:
                        recorder.noise_scale(loss, x)
                    (own / 2).backward()
            with recorder.step(step):
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
    return everything(model, optimizer)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_stays_the_same_bit_for_bit(autocast):
    bare = trained(None, autocast=autocast)
    numbers = Numbers(norms=ALL, every=2, noise_scale=6, log_partition="output")
    for one, other in zip(bare, trained(numbers, autocast=autocast), strict=True):
        assert torch.equal(one, other)


def test_a_half_batch_that_draws_random_numbers_would_be_seen():
    with broken("half_batches_draw_random_numbers"), pytest.raises(AssertionError):
        test_training_stays_the_same_bit_for_bit(autocast=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_turning_on_and_off_compiles_nothing_anew(run):
    torch.compiler.reset()
    counters.clear()
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    numbers = Numbers(norms=ALL, every=2, noise_scale=5, log_partition="output")
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder:
        for step in range(6):
            sgd.zero_grad()
            for _ in range(2):
                with recorder.step(step):
                    compiled(torch.randn(5, 3)).square().mean().backward()
            with recorder.step(step):
                sgd.step()
    assert counters["stats"]["unique_graphs"] == 1
    for name in ("gradient_norm", "raw_gradient_norm", "update_norm", "noise_scale/gradient_square"):
        assert list(run.metric(name)) == [0, 2, 4]
    assert list(run.metric("log_partition", "output")) == [0, 2, 4]
    torch.compiler.reset()


def test_hooks_are_there_while_they_are_due_and_none_stays(run):
    model = Pair()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)

    def hooks() -> int:
        return sum(
            len(one._backward_hooks or ()) + len(one._post_accumulate_grad_hooks or ()) for one in model.parameters()
        )

    numbers = Numbers(norms=ALL, every=2, noise_scale=1)
    with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd) as recorder:
        for step in range(2):
            with recorder.step(step):
                assert hooks() == (0 if step else 4)
                (model(X).sum() / 2).backward()
                (model(X).sum() / 2).backward()
                sgd.step()
            assert hooks() == 0
    assert not sgd._optimizer_step_pre_hooks
    assert not sgd._optimizer_step_post_hooks
    assert hooks() == 0


def test_a_step_that_raises_logs_nothing(run):
    model = Pair()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)

    def fail():
        with recording.record(model, run, sites=[], numbers=Numbers(), optimizer=sgd) as recorder, recorder.step(0):
            model(X).sum().backward()
            sgd.step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert run.written.metrics == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": ["gradients"]}, "'gradients' is none of gradient, raw_gradient, weight, update"),
        ({"by": "block"}, "by='block' is neither"),
        ({"noise_scale": 0}, "noise_scale=0 is no batch size"),
        ({"noise_scale": True}, "noise_scale=True is no batch size"),
    ],
)
def test_options_that_are_none_raise(options, message):
    with pytest.raises(RecordingError, match=message):
        Numbers(**options)


def test_what_cannot_be_measured_raises_at_once(run):
    model = Pair()
    foreign = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
    with pytest.raises(RecordingError, match="holds none of the model's parameters"):
        recording.record(model, run, sites=[], numbers=Numbers(), optimizer=foreign)
    with pytest.raises(RecordingError, match=r"updates belong to the optimizer.*optimizer="):
        recording.record(model, run, sites=[], numbers=Numbers())
    with pytest.raises(RecordingError, match="has no shape yet"):
        recording.record(nn.LazyLinear(2), run, sites=[], numbers=Numbers(norms=["weight"]))
    with pytest.raises(RecordingError, match="is no schedule"):
        recording.record(model, run, sites=[], numbers=Numbers(norms=["weight"], every=0))


def test_what_is_never_found_warns_and_then_raises(run):
    model = Pair()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)

    def train():
        with recording.record(model, run, sites=[], numbers=Numbers(norms=ALL), optimizer=sgd) as recorder:
            for step in range(3):
                with recorder.step(step):
                    pass

    names = "gradient_norm, raw_gradient_norm, update_norm"
    with (
        pytest.warns(LaminaWarning, match=f"{names}: nothing was found in step 0"),
        pytest.raises(RecordingError, match=f"{names}: nothing was found in any step"),
    ):
        train()
    assert list(run.metric("weight_norm")) == [0, 1, 2]


def test_a_run_holds_a_row_for_each_layer(tmp_path):
    run = lamina.Run.create(tmp_path / "run")
    train(run, numbers=Numbers(norms=["gradient", "weight"]), steps=2, clip=1.0)
    found = run.metrics().filter(name="gradient_norm").select("step", "site", "value").collect().rows()
    expected = [(step, *rest) for step in range(2) for rest in (("a", 5 / 13), ("b", 12 / 13), (None, 1))]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)


def test_a_flight_recorder_may_wait_for_a_norm(run):
    model = Pair()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    flight = lamina.Flight(last=2, when=[lamina.Above("raw_gradient_norm", 50.0)], state=False)
    numbers = Numbers(norms=["raw_gradient"])

    def train():
        with recording.record(model, run, sites=[], numbers=numbers, optimizer=sgd, flight=flight) as recorder:
            for step in range(6):
                sgd.zero_grad()
                with recorder.step(step, batch=X):
                    (model(X).sum() * (100 if step == 3 else 1)).backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    sgd.step()

    with pytest.warns(LaminaWarning, match="has written steps 2 to 3 because of above/raw_gradient_norm"):
        train()
