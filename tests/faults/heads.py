"""Faults of what is recorded of attention."""

from __future__ import annotations

import pytest

from tests.faults.table import fault


@fault
def attention_forgets_to_rescale(patch: pytest.MonkeyPatch) -> None:
    """When the running maximum rises, the sums so far keep the scale of the old one."""
    from lamina.recording.attention import blocked

    patch.setattr(blocked, "_rise", lambda top, base: base * 0)


@fault
def attention_forgets_the_mask(patch: pytest.MonkeyPatch) -> None:
    """Scores are taken without the masks."""
    import dataclasses

    from lamina.recording.attention import blocked

    whole = blocked._scores
    patch.setattr(blocked, "_scores", lambda a, *tile: whole(dataclasses.replace(a, masks=()), *tile))


@fault
def attention_forgets_hidden_keys(patch: pytest.MonkeyPatch) -> None:
    """Where masks come to hidden keys and a window, the keys are not hidden."""
    from lamina.recording.attention import statistics

    whole = statistics.reach_of

    def unhidden(a):
        found = whole(a)
        return found and found._replace(bias=None)

    patch.setattr(statistics, "reach_of", unhidden)


@fault
def attention_takes_every_mask_for_a_window(patch: pytest.MonkeyPatch) -> None:
    """Keys and window of a mask are found, and nobody counts whether all of their pairs are seen."""
    from lamina.recording.attention import reach

    patch.setattr(reach, "_complete", lambda *_: True)


@fault
def attention_calls_the_next_token_the_previous(patch: pytest.MonkeyPatch) -> None:
    """Offsets of positions have the other sign."""
    from lamina.recording.attention import statistics

    patch.setattr(statistics, "_OFFSETS", {name: -offset for name, offset in statistics._OFFSETS.items()})


@fault
def attention_says_nothing_of_queries_without_keys(patch: pytest.MonkeyPatch) -> None:
    """The zeros that the kernels give to a query without a key stay."""
    from lamina.recording.attention import statistics

    patch.setattr(statistics, "_KNOWN", (*statistics._NAMES, *statistics._OFFSETS, "sink"))


@fault
def attention_ignores_causality(patch: pytest.MonkeyPatch) -> None:
    """A call without a mask is read as one without causality."""
    import dataclasses

    from lamina.recording.attention import watch

    whole = watch.attention_statistics
    patch.setattr(watch, "attention_statistics", lambda a, names: whole(dataclasses.replace(a, causal=False), names))


@fault
def attention_counts_recomputations(patch: pytest.MonkeyPatch) -> None:
    """A forward pass inside a backward pass is read like any other."""
    import torch

    patch.setattr(torch._C, "_current_graph_task_id", lambda: -1)
