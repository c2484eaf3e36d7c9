"""However a model is run, its rows are those that plain hooks see when it is run as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import lamina.recording as recording
from lamina.errors import RecordingError
from tests.faults import broken
from tests.recording.fakes import fake_run
from tests.recording.models import Block

# Dynamo looks at `.grad` of whatever it wraps and hides the warning from everybody but pytest.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
]

SITES = ["output", "blocks.*.output", "blocks.*.mlp.*.output", "blocks.*.mlp.1.input"]
EVERY, STEPS = 2, 5


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Deep(nn.Module):
    """Two blocks with a ReLU in place, each run through `around`."""

    def __init__(self, around: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.around = around or (lambda block, x: block(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = self.around(block, x)
        return x


def deep(around: Callable[..., Any] | None = None) -> Deep:
    torch.manual_seed(0)
    return Deep(around).eval()


@dataclass(frozen=True)
class Way:
    """A way to run a model: compiled, what stands around its blocks and its calls, and how many sizes batches have."""

    compiled: dict[str, Any] | None = None
    around: Callable[..., Any] | None = None
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    backward: bool = True
    sizes: int = 1


REENTRANT, OTHER = partial(checkpoint, use_reentrant=True), partial(checkpoint, use_reentrant=False)
AOT: dict[str, Any] = {"backend": "aot_eager"}
AUTOCAST = partial(torch.autocast, "cpu", dtype=torch.bfloat16)

WAYS = {
    "compiled for any shape": Way(compiled=AOT | {"dynamic": True, "fullgraph": True}, sizes=STEPS),
    "checkpointed, reentrant": Way(around=REENTRANT),
    "checkpointed": Way(around=OTHER),
    "checkpointed and compiled": Way(around=OTHER, compiled=AOT | {"fullgraph": True}),
    "autocast": Way(inside=AUTOCAST),
    "autocast and compiled": Way(inside=AUTOCAST, compiled=AOT | {"fullgraph": True}),
    "inference mode": Way(inside=torch.inference_mode, backward=False),
    "inference mode and compiled": Way(inside=torch.inference_mode, compiled=AOT, backward=False),
}


def batches(way: Way) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3 + step % way.sizes, 4, generator=generator) for step in range(STEPS)]


def seen_by_hooks(way: Way) -> dict[tuple[str, int], torch.Tensor]:
    """Return what hooks of the test's own see in a model that is neither compiled nor checkpointed."""
    model, seen = deep(), {}
    names = {
        **{f"{name}.output" if name else "output": name for name, _ in model.named_modules()},
        **{f"{name}.input": name for name, _ in model.named_modules()},
    }
    for step, x in enumerate(batches(way)):
        handles = []
        for site, name in names.items():

            def keep(value: torch.Tensor, key: tuple[str, int] = (site, step)) -> None:
                seen[key] = value.detach().clone()

            def after(_module: nn.Module, _args: Any, output: Any, keep: Callable[..., None] = keep) -> None:
                keep(output)

            def before(_module: nn.Module, args: Any, keep: Callable[..., None] = keep) -> None:
                keep(args[0])

            module = model.get_submodule(name)
            if site.endswith("output"):
                handles.append(module.register_forward_hook(after))
            else:
                handles.append(module.register_forward_pre_hook(before))  # pyright: ignore[reportArgumentType]
        with way.inside():
            model(x)
        for handle in handles:
            handle.remove()
    return seen


def check_that_rows_are_those_of_plain_hooks(way: Way) -> None:
    model, run, compilations = deep(way.around), fake_run(), []
    call: Any = model if way.compiled is None else torch.compile(model, **way.compiled)
    with recording.record(model, run, sites=SITES, every=EVERY) as recorder:
        for step, x in enumerate(batches(way)):
            with recorder.step(step, example=range(len(x))):
                with way.inside():
                    out = call(x.requires_grad_(way.backward))
                if way.backward:
                    out.float().square().sum().backward()
            compilations.append(counters["stats"]["unique_graphs"])
    # Due at steps 0, 2 and 4: what is on and off compiles nothing anew.
    assert compilations[0] == compilations[-1] == (0 if way.compiled is None else 3), compilations
    expected = seen_by_hooks(way)
    assert len(recorder.sites) == 9
    for site in recorder.sites:
        got = run.values(site)
        assert list(got) == list(range(0, STEPS, EVERY)), site
        for step, value in got.items():
            assert value.dtype == expected[site, step].dtype
            assert torch.equal(value, expected[site, step]), (site, step)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_those_of_plain_hooks(way):
    check_that_rows_are_those_of_plain_hooks(WAYS[way])


@pytest.mark.slow
def test_rows_of_a_model_compiled_by_default_are_those_of_plain_hooks():
    # Inductor calls a C++ compiler.
    check_that_rows_are_those_of_plain_hooks(Way(compiled={}))


def test_a_recorder_that_keeps_references_is_found_out():
    with broken("recorder_keeps_references"), pytest.raises(AssertionError):
        check_that_rows_are_those_of_plain_hooks(WAYS["autocast"])


@pytest.mark.parametrize("way", ["checkpointed, reentrant", "checkpointed"])
def test_a_recorder_that_counts_recomputations_is_found_out(way):
    with broken("recorder_counts_recomputations"), pytest.raises(AssertionError):
        check_that_rows_are_those_of_plain_hooks(WAYS[way])


def test_accumulated_gradients_and_their_rows_are_those_of_the_whole_batch():
    # Whole numbers: sums are exact in any order.
    x = torch.arange(-12.0, 12.0).reshape(6, 4)
    runs = fake_run(), fake_run(), fake_run()
    for micro, run in zip(([x], [x[:2], x[2:]], [x[:2], x[2:]]), runs, strict=True):
        model = deep()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8).round_()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        sites = ["blocks.*.mlp.0.output", "output"]
        # A step of its own for each micro-batch holds no gradient of all of them, but for the last one.
        sites += ["blocks.*.mlp.0.weight.grad"] if run is not runs[2] else []
        with recording.record(model, run, sites=sites, optimizer=optimizer) as recorder:
            if run is runs[1]:
                # One step around all micro-batches, with the examples of all.
                with recorder.step(0, example=range(6)):
                    for part in micro:
                        model(part).sum().backward()
                    optimizer.step()
            else:
                # A step of the same number for each.
                for part in micro:
                    with recorder.step(0, example=part[:, 0].long() // 4 + 3):
                        model(part).sum().backward()
                        if part is micro[-1]:
                            optimizer.step()
    for site in ("blocks.0.mlp.0.output", "blocks.1.mlp.0.output", "output", "blocks.0.mlp.0.weight.grad"):
        whole = runs[0].values(site)[0]
        assert whole.any()
        assert torch.equal(runs[1].values(site)[0], whole)
        if site.endswith("output"):
            assert torch.equal(runs[2].values(site)[0], whole)
            for run in runs:
                assert [item for one in run.columns(site) for item in one["example"]] == list(range(6))


def test_a_model_compiled_in_place_that_has_run_is_refused_until_the_compiler_is_reset():
    model, x, run = deep(), torch.ones(3, 4), fake_run()
    model.compile(backend="eager")
    model(x)

    def record() -> None:
        with (
            recording.record(model, run, sites="blocks.*.mlp.output") as recorder,
            recorder.step(0, example=range(3)),
        ):
            model(x)

    with pytest.raises(RecordingError, match=r"torch\.compiler\.reset\(\)"):
        record()
    torch.compiler.reset()
    record()
    assert torch.equal(run.values("blocks.0.mlp.output")[0], deep().get_submodule("blocks.0.mlp")(x))
