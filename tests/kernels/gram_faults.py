"""Named faults of the reductions over pairs of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def gram_moves_one_side(patch: pytest.MonkeyPatch) -> None:
    """Rows of y are moved by their mean, rows of x are not."""
    from lamina_kernels.gram.blocked_bases import Dot

    whole = Dot._rows
    patch.setattr(
        Dot,
        "_rows",
        lambda self, rows, index: rows[index].to(self.dtype) if rows is self.x else whole(self, rows, index),
    )


@fault
def gram_takes_another_slope(patch: pytest.MonkeyPatch) -> None:
    """The slope of Matern 3/2 is taken to be that of an exponential."""
    from lamina_kernels.gram.functions import FUNCTIONS

    patch.setitem(FUNCTIONS, "matern3", FUNCTIONS["matern3"]._replace(slope=FUNCTIONS["exp"].slope))


@fault
def gram_forgets_the_bandwidth(patch: pytest.MonkeyPatch) -> None:
    """Bandwidths of distances get no gradient."""
    from lamina_kernels.gram.blocked_bases import Euclidean

    patch.setattr(Euclidean, "_pull_weight", lambda self, u, g, into: None)


@fault
def gram_forgets_the_other_factor(patch: pytest.MonkeyPatch) -> None:
    """The gradient of a product of kernels is that of a sum."""
    from lamina_kernels.gram.blocked_scores import Scores

    whole = Scores._pull

    def pull(self: Any, node: Any, kept: Any, *rest: Any) -> None:
        node = node._replace(operator="+") if hasattr(node, "operator") else node
        whole(self, node, kept, *rest)

    patch.setattr(Scores, "_pull", pull)


@fault
def gram_forgets_the_norms(patch: pytest.MonkeyPatch) -> None:
    """The gradient of a function of a user's own is that of the dot product."""
    from lamina_kernels.gram.blocked_bases import Dot, Own

    patch.setattr(Own, "pull", Dot.pull)


@fault
def gram_trusts_lost_digits(patch: pytest.MonkeyPatch) -> None:
    """Distances are roots of what is left of the norms, however little that is."""
    from lamina_kernels.gram import blocked_bases

    patch.setattr(blocked_bases, "_LOST", dict.fromkeys(blocked_bases._LOST, -torch.inf))


@fault
def gram_softmax_weighs_all_alike(patch: pytest.MonkeyPatch) -> None:
    """Sums do not shrink where a larger value comes, and no weight is below 1."""
    from lamina_kernels.gram.sums import blocked

    patch.setattr(blocked, "FAR", 0.0)


@fault
def gram_drops_the_last_columns(patch: pytest.MonkeyPatch) -> None:
    """Whole tiles of columns only."""
    from lamina_kernels.gram.sums import blocked

    whole = blocked.tiles
    patch.setattr(blocked, "tiles", lambda rows, block: whole(rows // block * block if rows == 29 else rows, block))


@fault
def gram_takes_the_same_rows_for_symmetric(patch: pytest.MonkeyPatch) -> None:
    """Tiles serve as their mirror images, whatever pairs are left out."""
    from lamina_kernels.gram.pairs import Pairs

    patch.setattr(Pairs, "symmetric", property(lambda p: p.same))


@fault
def gram_forgets_the_gradient_of_columns(patch: pytest.MonkeyPatch) -> None:
    """Rows of y get no gradient, also where they are those of x."""
    from lamina_kernels.gram.blocked_bases import Dot

    whole = Dot._add
    patch.setattr(
        Dot, "_add", lambda self, into, columns, of_x, of_y: whole(self, into, columns, of_x, lambda: 0 * of_y())
    )


@fault
def gram_second_forgets_the_softmax(patch: pytest.MonkeyPatch) -> None:
    """In second derivatives, what weights are divided by is a constant."""
    from lamina_kernels.gram.sums import blocked_second

    whole = blocked_second.second

    def second(*given: Any) -> list[torch.Tensor | None]:
        found = whole(*given)
        return [*found[:4], None if found[4] is None else 0 * found[4], *found[5:]]

    patch.setattr(blocked_second, "second", second)


@fault
def gram_gradients_take_a_softmax_for_symmetric(patch: pytest.MonkeyPatch) -> None:
    """The weights of a softmax are taken to be those of their mirror images, where kernel values are."""
    from lamina_kernels.gram.sums import blocked, op

    for room in (blocked, op):
        patch.setattr(room, "together", lambda p, *, weighted: p.symmetric)


@fault
def gram_gradients_forget_the_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Of the same rows, those of x have the gradient that they have as rows of y's partners alone."""
    from lamina_kernels.gram.sums import blocked

    patch.setattr(blocked, "together", lambda p, *, weighted: False)


@fault
def gram_gradients_are_all_wanted(patch: pytest.MonkeyPatch) -> None:
    """All gradients are computed, whoever asks."""
    from lamina_kernels.gram.sums import op

    whole = op.Wanted
    patch.setattr(op, "Wanted", lambda x, y, parameters, v, log_weights: whole(True, True, True, True, log_weights))


@fault
def gram_gradients_swap_what_is_wanted(patch: pytest.MonkeyPatch) -> None:
    """The rows of x have gradients where those of y are asked for, and the other way round."""
    from lamina_kernels.gram.sums import op

    whole = op._of_pairs
    patch.setattr(op, "_of_pairs", lambda ctx: [whole(ctx)[1], whole(ctx)[0], whole(ctx)[2]])


@fault
def arc_cosine_is_of_order_0(patch: pytest.MonkeyPatch) -> None:
    """Angles count, whatever the order."""
    from lamina_kernels.gram.functions import FUNCTIONS

    whole = FUNCTIONS["angle"]
    patch.setitem(FUNCTIONS, "angle", whole._replace(value=lambda u, a, n, out: whole.value(u, a, 0, out)))


@fault
def gram_refuses_sums_of_kernels(patch: pytest.MonkeyPatch) -> None:
    """A kernel that is no single function is taken for one without a function in Triton."""
    from lamina_kernels.gram import forms
    from lamina_kernels.gram.terms import Leaf

    patch.setattr(forms, "is_written", lambda p: isinstance(p.tree, Leaf))


@fault
def mmd_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    from lamina_kernels.gram import discrepancy

    whole = discrepancy.build
    patch.setattr(discrepancy, "build", lambda op, x, y, kernel, *rest: whole(op, x, y, kernel))
