"""Faults of edits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def edits_take_rows_in_stored_order(patch: pytest.MonkeyPatch) -> None:
    """An edit by rows takes the first ones, whatever their example and position."""
    import numpy as np

    from lamina.recording.matching import Table

    whole = Table.find
    patch.setattr(Table, "find", lambda *asked: np.arange(len(whole(*asked))))


@fault
def edits_stay_after_the_block(patch: pytest.MonkeyPatch) -> None:
    """The hooks of an edit are not taken away."""
    from lamina.recording.editors import Hook

    patch.setattr(Hook, "detach", lambda self: None)


@fault
def edits_change_the_original(patch: pytest.MonkeyPatch) -> None:
    """A function gets the tensor that flows, not a copy, and what it returns goes on as it is."""
    from lamina.recording import changes

    patch.setattr(changes, "_made", lambda value, function, site: function(value))


@fault
def edits_cut_gradients(patch: pytest.MonkeyPatch) -> None:
    """What an edit puts in has no part in the backward pass."""
    from lamina.recording import changes

    whole = changes._like
    patch.setattr(changes, "_like", lambda value, new: whole(value, new).detach())


@fault
def edits_do_not_stop_compiled_code(patch: pytest.MonkeyPatch) -> None:
    """Code that was compiled goes on in the block of an edit."""
    from contextlib import nullcontext

    import torch

    patch.setattr(torch.compiler, "set_stance", lambda stance: nullcontext())


@fault
def edits_forget_where(patch: pytest.MonkeyPatch) -> None:
    """An edit changes all of a tensor, whatever was chosen."""
    from lamina.recording.changes import Where

    patch.setattr(Where, "chosen", lambda self, flow: None)


@fault
def edits_round_what_does_not_fit(patch: pytest.MonkeyPatch) -> None:
    """A value that the dtype of a site cannot hold is rounded."""
    from lamina.recording import changes

    patch.setattr(changes, "exactly", lambda given, value, site: given.to(value))


@fault
def edits_count_calls_as_one(patch: pytest.MonkeyPatch) -> None:
    """Every call of a module gets the rows of the first."""
    from lamina.recording.editors import Editor

    whole = Editor._count
    patch.setattr(Editor, "_count", lambda self: 0 * whole(self))


@fault
def edits_count_positions_from_zero(patch: pytest.MonkeyPatch) -> None:
    """Positions do not go on behind what a cache holds."""
    from lamina.recording.matching import Names

    whole = Names.begin
    patch.setattr(Names, "begin", lambda self, size, start: (whole(self, size, start), setattr(self, "_start", 0)))


@fault
def edits_put_parts_first(patch: pytest.MonkeyPatch) -> None:
    """The part of a tensor that was edited goes to its first entries."""
    import torch

    from lamina.recording import editors

    def put(value: Any, part: Any, new: Any) -> Any:
        return torch.cat([new.reshape(-1), value.reshape(-1)[new.numel() :]]).view(value.shape)

    patch.setattr(editors, "put_part", put)


@fault
def edits_ignore_layouts(patch: pytest.MonkeyPatch) -> None:
    """A tensor is read by its number of dimensions, whatever its layout."""
    from lamina.recording.editors import Editor

    patch.setattr(Editor, "_meant", lambda self, whole: whole)
