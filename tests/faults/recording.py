"""Faults of recorders."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def recorder_keeps_references(patch: pytest.MonkeyPatch) -> None:
    """Captured tensors are not copied: what later changes them in place changes what is stored."""
    from lamina.recording.captured import Collector

    patch.setattr(Collector, "_copy", lambda self, value, dtype: (value, None))


@fault
def recorder_counts_recomputations(patch: pytest.MonkeyPatch) -> None:
    """A forward pass inside a backward pass is captured like any other."""
    from lamina.recording.taps import _Hook

    patch.setattr(_Hook, "receive", lambda self, value: self._collect(value))


@fault
def probes_draw_random_numbers(patch: pytest.MonkeyPatch) -> None:
    """The random states are not restored behind a probe."""
    from contextlib import nullcontext

    from lamina.recording import passes

    patch.setattr(passes, "random_states", lambda *generators: nullcontext())


@fault
def probes_train(patch: pytest.MonkeyPatch) -> None:
    """A probe leaves the model in the mode that it is in: running statistics move, dropout drops."""
    import torch

    from lamina.recording import passes

    patch.setattr(passes, "evaluation", lambda model: torch.no_grad())


@fault
def sampling_depends_on_the_place_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Rows are sampled by where they stand in a batch instead of by what they are."""
    import numpy as np

    from lamina.recording import sampling

    patch.setattr(sampling, "_keys", lambda example: np.arange(len(example), dtype=np.uint64))


@fault
def pooling_ignores_the_mask(patch: pytest.MonkeyPatch) -> None:
    """A mean or last position is taken over padding too."""
    from lamina.recording import kept

    patch.setattr(kept, "_pooled_mask", lambda one, columns: None)


@fault
def probes_leave_buffers_changed(patch: pytest.MonkeyPatch) -> None:
    """What a layer counts in evaluation mode is not restored behind a probe."""
    from contextlib import nullcontext

    from lamina.recording import passes

    patch.setattr(passes, "buffers", lambda model: nullcontext())


@fault
def trainer_gradients_are_taken_late(patch: pytest.MonkeyPatch) -> None:
    """Raw gradients are taken when the optimizer steps, behind the clipping."""
    from lamina.recording import recorder

    patch.setattr(recorder.Recorder, "take_gradients", lambda self: None)


@fault
def aliases_swap_queries_and_keys(patch: pytest.MonkeyPatch) -> None:
    """In the table of names, queries stand where keys are."""
    from lamina.recording import aliases

    names = {"attn.hook_q": "attn.hook_k", "attn.hook_k": "attn.hook_q"}
    families = {
        model: family
        | {"block": {site: [names.get(one, one) for one in listed] for site, listed in family["block"].items()}}
        for model, family in aliases._families().items()
    }
    patch.setattr(aliases, "_families", lambda: families)


@fault
def aliases_take_heads_together(patch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values are taken to stand side by side, not side by side in each head."""
    from lamina.recording import aliases

    for index, name in enumerate(("query", "key", "value")):
        patch.setitem(aliases.PARTS, f"{name} of each head", lambda config, index=index: aliases.Third(index))


@fault
def flights_keep_references(patch: pytest.MonkeyPatch) -> None:
    """A flight recorder keeps the optimizer's and the model's own tensors."""
    from lamina.recording import ring

    patch.setattr(ring, "copied", lambda value, *_: value)


@fault
def flights_forget_the_random_state(patch: pytest.MonkeyPatch) -> None:
    """A flight recorder keeps the state of the random generators at the first step alone."""
    import functools

    from lamina.recording import ring

    patch.setattr(ring, "random_state", functools.cache(ring.random_state))


@fault
def divisions_ignore_shapes(patch: pytest.MonkeyPatch) -> None:
    """A step with the same sites and columns is divided as the one before, whatever their shapes."""
    from lamina.recording import division

    patch.setattr(division, "_shapes", lambda captured, columns: ([one.site for one in captured], list(columns)))


@fault
def divisions_keep_what_values_decided(patch: pytest.MonkeyPatch) -> None:
    """Columns that were made for one step hold for the next one of the same shapes."""
    from lamina.recording.division import Division, _Set

    def learn(self: Division, captured: Any, columns: Any, made: Any) -> bool:
        self._sets = [_Set((), dict(own)) for _, own in made]
        self._places = [next(i for i, (sites, _) in enumerate(made) if one.site in sites) for one in captured]
        return True

    patch.setattr(Division, "_learn", learn)


@fault
def fused_optimizers_unscale_before(patch: pytest.MonkeyPatch) -> None:
    """Gradients are taken for unscaled, although a fused optimizer does that while it steps."""
    from lamina.recording.parameters import ParameterTaps

    take = ParameterTaps._take_gradients
    patch.setattr(ParameterTaps, "_take_gradients", lambda self, scale=None: take(self))


@fault
def passes_are_seen_by_other_recorders(patch: pytest.MonkeyPatch) -> None:
    """A probe or a capture inside of another recorder's step counts as a part of that step."""
    from contextlib import nullcontext

    from lamina.recording.watching import Taps

    patch.setattr(Taps, "paused", lambda self: nullcontext())


@fault
def edits_pass_by_what_has_the_name(patch: pytest.MonkeyPatch) -> None:
    """A name whose tensor goes to more places than the site's is edited at the site."""
    from lamina.recording import aliases

    whole = aliases.Alias
    patch.setattr(aliases, "Alias", lambda site, part=None, passes=False: whole(site, part))


@fault
def names_drop_every_module(patch: pytest.MonkeyPatch) -> None:
    """A child that its owner called `module` is taken for one that a parallel wrapper holds."""
    from lamina.modules.wrappers import PlainNames

    patch.setattr(PlainNames, "of", lambda self, path: ".".join(part for part in path.split(".") if part != "module"))


@fault
def ranks_never_share_a_model(patch: pytest.MonkeyPatch) -> None:
    """Every rank saves checkpoints, whatever it is told of the weights."""
    from lamina.recording import saving

    whole = saving.save
    patch.setattr(saving, "save", lambda *args, replicated, **options: whole(*args, replicated=False, **options))


@fault
def numbers_are_the_same_on_every_rank(patch: pytest.MonkeyPatch) -> None:
    """Items without a name are numbered as if there were one process."""
    from lamina.recording.numbering import Numbering

    def alone(self: Numbering, start: int = 0) -> None:
        self._stride, self._next, self._step = 1, start, {}

    patch.setattr(Numbering, "__init__", alone)
