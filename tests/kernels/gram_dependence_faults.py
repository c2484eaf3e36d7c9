"""Named faults of HSIC, CKA and distance covariance, of contrastive losses, and of what else is summed over pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.faults import fault


@fault
def dependence_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    from lamina_kernels.gram.dependence.blocked import Walk

    patch.setattr(Walk, "hide", lambda self, values, other: values)


@fault
def dependence_keeps_pairs_of_a_group(patch: pytest.MonkeyPatch) -> None:
    """Of pairs within a group, only those of a row with itself are left out."""
    from lamina_kernels.gram.dependence.blocked import Walk

    def hide(self: Any, values: torch.Tensor, other: Any) -> torch.Tensor:
        if other is self._panel:
            values.diagonal(dim1=1, dim2=2).zero_()
        return values

    patch.setattr(Walk, "hide", hide)


@fault
def dependence_has_no_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Tiles above the diagonal do not count for their columns."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.sums

    def sums(layers: Any, centers: torch.Tensor) -> Any:
        found = whole(layers, centers)
        return found._replace(rows=found.rows * torch.linspace(0, 1, layers.n))

    patch.setattr(blocked, "sums", sums)


@fault
def dependence_weighs_pairs_alike(patch: pytest.MonkeyPatch) -> None:
    """Pairs count as often in large groups as in small ones."""
    from lamina_kernels.gram.dependence.blocked import Walk

    patch.setattr(Walk, "pair_weights", lambda self, other: None)


@fault
def dependence_weighs_triples_alike(patch: pytest.MonkeyPatch) -> None:
    """Triples count as often in large groups as in small ones."""
    from lamina_kernels.gram.dependence.blocked import Walk

    patch.setattr(Walk, "triple_weights", lambda self, rows, columns: None)


@fault
def dependence_forgets_the_total(patch: pytest.MonkeyPatch) -> None:
    """The product of the means is left out."""
    from lamina_kernels.gram.dependence import estimator

    whole = estimator.debiased
    patch.setattr(estimator, "debiased", lambda pairs, triples, both, powers: whole(pairs, triples, 0 * both, powers))


@fault
def dependence_gradient_forgets_row_sums(patch: pytest.MonkeyPatch) -> None:
    """Row sums are taken for constants."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.gradients
    patch.setattr(
        blocked,
        "gradients",
        lambda layers, centers, g, wanted: whole(layers, centers, g._replace(rows=0 * g.rows), wanted),
    )


@fault
def dependence_gradient_forgets_groups(patch: pytest.MonkeyPatch) -> None:
    """Sums over groups are taken for constants."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.gradients
    patch.setattr(
        blocked,
        "gradients",
        lambda layers, centers, g, wanted: whole(layers, centers, g._replace(cells=0 * g.cells), wanted),
    )


@fault
def dependence_gradient_has_no_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Rows get the gradient of one side of the pairs only."""
    from lamina_kernels.gram.blocked_bases import Dot

    whole = Dot._add
    patch.setattr(
        Dot, "_add", lambda self, into, columns, of_x, of_y: whole(self, into, columns, of_x, lambda: 0 * of_y())
    )


@fault
def dependence_pulls_the_first_layers(patch: pytest.MonkeyPatch) -> None:
    """Where the gradients of some layers are wanted, values are mixed for the first ones."""
    from lamina_kernels.gram.dependence.blocked import Wanted

    whole: Any = Wanted.pulled
    patch.setattr(Wanted, "pulled", property(lambda self: list(range(len(whole.fget(self))))))


@fault
def features_forget_the_norms(patch: pytest.MonkeyPatch) -> None:
    """Gradients of features are those of all pairs, a row with itself too."""
    from lamina_kernels.gram.dependence.features import Centered

    whole = Centered.norms
    patch.setattr(Centered, "norms", lambda self: 0 * whole(self))


@fault
def dependence_second_forgets_the_sums(patch: pytest.MonkeyPatch) -> None:
    """In second derivatives, the gradients of the sums are constants."""
    from lamina_kernels.gram.dependence import blocked_second

    whole = blocked_second.second

    def second(layers: Any, *given: Any) -> list[torch.Tensor | None]:
        found = whole(layers, *given)
        return [*found[: 2 * len(layers)], *(None if x is None else 0 * x for x in found[2 * len(layers) :])]

    patch.setattr(blocked_second, "second", second)


@fault
def dependence_second_takes_others(patch: pytest.MonkeyPatch) -> None:
    """Gradients of a layer's gradients are those of the layer before it."""
    from lamina_kernels.gram.dependence import blocked_second

    whole = blocked_second.second

    def second(layers: Any, centers: Any, g: Any, given: Any, needed: Any) -> list[torch.Tensor | None]:
        count = len(layers)
        return whole(layers, centers, g, [*given[1:count], given[0], *given[count:]], needed)

    patch.setattr(blocked_second, "second", second)


@fault
def dependence_second_forgets_the_centers(patch: pytest.MonkeyPatch) -> None:
    """In second derivatives, kernel values are not centered, and the gradients of their sums are of others."""
    from lamina_kernels.gram.dependence.blocked import Walk

    patch.setattr(Walk, "centered", lambda self, values, other: self.hide(values, other))


@fault
def dependence_mixes_layers(patch: pytest.MonkeyPatch) -> None:
    """The layers behind are compared in another order."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.compared

    def compared(x: torch.Tensor, y: torch.Tensor, layers: Any) -> torch.Tensor:
        found = whole(x, y, layers)
        return (
            found
            if layers.left == len(layers)
            else torch.cat([found[:, : layers.left], found[:, layers.left :].flip(1)], 1)
        )

    patch.setattr(blocked, "compared", compared)


@fault
def dependence_squares_distances(patch: pytest.MonkeyPatch) -> None:
    """The covariance of distances is that of squared ones: of linear kernels."""
    from lamina_kernels.gram import SquaredDistance
    from lamina_kernels.gram.dependence import api

    patch.setattr(api, "Distance", lambda: SquaredDistance(1.0))


@fault
def dependence_centers_nothing(patch: pytest.MonkeyPatch) -> None:
    """Kernel values are summed as they are."""
    from lamina_kernels.gram.dependence import blocked

    whole = blocked.centers
    patch.setattr(blocked, "centers", lambda *given: 0 * whole(*given))


@fault
def differences_take_columns_for_rows(patch: pytest.MonkeyPatch) -> None:
    """The rows of y are weighted by the sums over x of other pairs."""
    from lamina_kernels.gram.pairs import Pairs

    patch.setattr(Pairs, "swapped", property(lambda p: p))


@fault
def sigmoid_forgets_who_belongs_together(patch: pytest.MonkeyPatch) -> None:
    """Every pair of rows counts as one that does not belong together."""
    from lamina_kernels.gram import contrastive

    whole = contrastive._together

    def together(*given: Any) -> Any:
        of_x, of_y, *counts = whole(*given)
        return 0 * of_x, 0 * of_y, *counts

    patch.setattr(contrastive, "_together", together)


@fault
def infonce_forgets_the_temperature(patch: pytest.MonkeyPatch) -> None:
    """Log-sum-exps of logits give the temperature no gradient."""
    from lamina_kernels.gram import contrastive

    whole = contrastive.Logit
    patch.setattr(contrastive, "Logit", lambda scale: whole(scale.detach()))


@fault
def harmonic_forgets_the_exponent(patch: pytest.MonkeyPatch) -> None:
    """Exponents get no gradient from what probabilities are normalized with."""
    from lamina_kernels.gram.functions import FUNCTIONS

    patch.setitem(
        FUNCTIONS, "logarithm", FUNCTIONS["logarithm"]._replace(by_shape=lambda u, k, a, n: torch.zeros_like(u))
    )


@fault
def softplus_forgets_the_bias(patch: pytest.MonkeyPatch) -> None:
    """The bias of logits gets no gradient."""
    from lamina_kernels.gram.functions import FUNCTIONS

    patch.setitem(
        FUNCTIONS, "softplus", FUNCTIONS["softplus"]._replace(by_shape=lambda u, k, a, n: torch.zeros_like(u))
    )


@fault
def hsic_gradients_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Sums of two kernels have gradients of the pairs of a row with itself."""
    from lamina_kernels.gram.paired import op

    patch.setattr(op, "replace", lambda p, **changes: replace(p, **(changes | {"apart": False})))


@fault
def hsic_gradients_forget_the_other_kernel(patch: pytest.MonkeyPatch) -> None:
    """The gradient of the sums of a product is that of the first kernel's."""
    from lamina_kernels.gram.paired import op

    patch.setattr(op, "_product", lambda a, b: a)


@fault
def hsic_gradients_take_one_side_for_both(patch: pytest.MonkeyPatch) -> None:
    """Where the rows of one kernel are paired with themselves, those of the other are taken to be."""
    from lamina_kernels.gram.paired import op

    patch.setattr(op, "replace", lambda p, **changes: replace(p, **(changes | {"same": p.same})))
