"""What do norms of gradients, weights and updates cost a layer, beside copying these once?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import _foreach_add_, _foreach_copy_, nn  # pyright: ignore[reportPrivateImportUsage]

from bench.clock import timed
from bench.command import best_device, is_quick
from bench.harness import Case, as_case, interleave
from bench.table import Table, spread
from lamina.recording.numbers.norms import Norms

REPETITIONS = 15
KINDS = ("gradient", "weight", "update")
COPY, COPY_ALL, LOOP, LAMINA = "copy of one", "copy of all three", "norm() in a loop", "lamina"


class Shapes(nn.Module):
    """The parameters of a GPT-2 of some size; those of the small one are 124 million."""

    def __init__(self, vocabulary: int, width: int, blocks: int, positions: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.h = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width),
                    "c_attn": nn.Linear(width, 3 * width),
                    "c_proj": nn.Linear(width, width),
                    "ln_2": nn.LayerNorm(width),
                    "c_fc": nn.Linear(width, 4 * width),
                    "c_out": nn.Linear(4 * width, width),
                }
            )
            for _ in range(blocks)
        )
        self.ln_f = nn.LayerNorm(width)


class Training:
    """A model between two updates: what the recorder's hooks find there."""

    def __init__(self, dtype: torch.dtype, device: str, *, quick: bool) -> None:
        torch.manual_seed(0)
        self.model = (Shapes(1000, 64, 2, 64) if quick else Shapes(50257, 768, 12, 1024)).to(device, dtype)
        self.weights = [one.detach() for one in self.model.parameters()]
        for one in self.model.parameters():
            one.grad = torch.randn_like(one)
        self.gradients = [one.grad for one in self.model.parameters() if one.grad is not None]
        self.changed = [torch.randn_like(one) for one in self.weights]
        self.kept = [torch.empty_like(one) for one in self.weights]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def copies(self, *lists: list[torch.Tensor]) -> Callable[[], Any]:
        """Copy tensors into memory that is there already."""

        def copy() -> None:
            for tensors in lists:
                _foreach_copy_(self.kept, tensors)

        return copy

    def lamina(self, *kinds: str) -> Callable[[], Any]:
        """Do what the recorder's hooks do in a step, without the optimizer's own work."""
        norms = Norms(self.model, kinds, "layer", self.optimizer)

        def step() -> list[Any]:
            norms.begin()
            norms.before_update()
            norms.after_update()
            return norms.take()

        return step

    def loop(self) -> None:
        """Take the norms as one writes them by hand, without the copy that an update needs."""
        for weight, gradient, before in zip(self.weights, self.gradients, self.changed, strict=True):
            for one in (weight, gradient, weight - before):
                one.norm()

    def agree(self) -> None:
        """Check the norms of the whole model against float64, with an update that the optimizer could have made."""
        norms, old = Norms(self.model, KINDS, "layer", self.optimizer), [one.clone() for one in self.weights]
        norms.begin()
        norms.before_update()
        _foreach_add_(self.weights, self.changed)
        norms.after_update()
        found = {name: value for one in norms.take() for name, value in one.whole.items()}
        exact = {
            "gradient_norm": [one.double().norm() for one in self.gradients],
            "weight_norm": [one.double().norm() for one in old],
            "update_norm": [(new.double() - one.double()).norm() for new, one in zip(self.weights, old, strict=True)],
        }
        for name, values in exact.items():
            assert torch.isclose(found[name], torch.stack(values).norm(), rtol=1e-6), name


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device, repetitions = best_device(), 1 if quick else REPETITIONS
    rows, samples, numbers = [], {}, 0
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        training = Training(dtype, device, quick=quick)
        training.agree()
        numbers = sum(one.numel() for one in training.weights)
        runs = {
            COPY: training.copies(training.weights),
            COPY_ALL: training.copies(training.weights, training.gradients, training.changed),
            LOOP: training.loop,
            **{f"{LAMINA}, {kind}": training.lamina(kind) for kind in KINDS},
            f"{LAMINA}, all three": training.lamina(*KINDS),
        }
        cases: dict[str, Case] = {case: as_case(timed(run, device)) for case, run in runs.items()}
        seconds = {case: phases["time"] for case, phases in interleave(cases, repetitions, name).items()}
        samples |= {f"{name}: {case}": values for case, values in seconds.items()}
        for case, values in seconds.items():
            took = spread(values)
            same = seconds[COPY if case.rpartition(", ")[2] in (COPY, *KINDS) else COPY_ALL]
            # Paired by repetition: neighbors in time share the machine's mood.
            times = spread([one / copy for one, copy in zip(values, same, strict=True)])
            rows.append(
                {
                    "dtype": name,
                    "case": case,
                    "median, ms": 1e3 * took.median,
                    "min, ms": 1e3 * took.least,
                    "times a copy of the same": f"{times.median:.2f} ({times.lower:.2f} to {times.upper:.2f})",
                }
            )
    Table(
        question="What do norms of gradients, weights and updates cost, beside copying these once?",
        columns=["dtype", "case", "median, ms", "min, ms", "times a copy of the same"],
        rows=rows,
        notes=[
            f"{numbers:,} parameters of the shapes of a GPT-2, on {device}, {torch.get_num_threads()} threads; norms "
            "of every layer and of the whole model",
            "the norm of an update holds the copy of the weights that it needs, from kept memory into kept memory",
            "the loop by hand is without that copy; in bfloat16 it rounds its differences and its norms",
            f"{repetitions} interleaved repetitions; times a copy: median (quartiles) of pairs",
            "the norms of all three were compared with float64 before",
        ],
        packages=["lamina", "torch"],
        samples=samples,
    ).publish("norms", device=device, quick=quick)


if __name__ == "__main__":
    main()
