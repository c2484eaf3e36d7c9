"""Gradients of the scores of attention, in plain torch on a tile: the formulas that all backward passes share.

With t_ij = s_ij - lse_i, so that p_ij = exp(t_ij), and x, y the deviations of d = i + shift - j and |d| from their
means, the gradient g of each statistic reaches the score of query i and key j as

    ds_ij = p_ij [<dout_i, v_j> + C_i + (g_expected - g_entropy)_i t_ij + 2 g_sum_p2_i p_ij + <g_columns_i, columns_j>
                  + x_ij (g_mean + g_variance x_ij)_i + y_ij (g_mean' + g_variance' y_ij)_i]
            + g_max_i [j is the key of the largest score]

    C_i = -<dout_i, out_i> + g_lse - g_entropy H + g_expected (1 + H) - 2 g_sum_p2 sum_p2 - <g_columns, columns of i>
          - g_variance variance - g_variance' variance'

where the bracket sums to zero under p but for g_lse and g_expected. With sigmoid weights, which sum to nothing in
particular, ds = p (1 - p) [<dout, v> + 2 g_sum_p2 p + <g_columns, columns>] + the same for the largest score.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lamina_kernels.attention.problem import Problem, Sums

# The lse of a query that sees no key: exp(s - this) is 0, and 0 times a finite number is 0.
NO_KEY = 1e30


class Terms(NamedTuple):
    """What a score's gradient needs to know of its query, [B, H, Nq] each; None where no gradient came.

    Attributes:
        lse: The log-sum-exp, `NO_KEY` for a query that sees no key; None for a sigmoid.
        constant: C.
        log: What is multiplied with log p: g_expected - g_entropy.
        square: What is multiplied with p: 2 g_sum_p2.
        distance: [6, B, H, Nq]: the mean of d, the gradients of its mean and its variance; the same of |d|.
        columns: [B, H, Nq, C]: the gradients of `columns`.
        max: The gradient of the largest score.
        argmax: [B, H, Nq] int64: its key, -1 for none.
    """

    lse: torch.Tensor | None
    constant: torch.Tensor | None
    log: torch.Tensor | None = None
    square: torch.Tensor | None = None
    distance: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    max: torch.Tensor | None = None
    argmax: torch.Tensor | None = None

    def of(self, *place: int | slice) -> Terms:
        """Return the terms of some queries: `place` is the batch, the head and the queries."""
        return Terms(
            *(
                None if term is None else term[(..., *place, slice(None)) if name == "columns" else (..., *place)]
                for name, term in self._asdict().items()
            )
        )


def terms(problem: Problem, sums: Sums, gradients: Sums, delta: torch.Tensor | None = None) -> Terms:
    """Return what the gradients of the scores need to know of each query.

    Args:
        problem: The attention.
        sums: What its forward pass left; `argmax` is needed where a gradient of `max` came.
        gradients: The gradients of these, None where none came.
        delta: [B, H, Nq]: <dout, out> of each query, if it is known.
    """
    g = gradients
    square = None if g.sum_p2 is None else 2 * g.sum_p2
    largest = (None, None) if g.max is None else (g.max, sums.argmax)
    if problem.sigmoid:
        return Terms(None, None, None, square, None, g.columns, *largest)

    assert sums.lse is not None
    if delta is not None:
        constant = -delta
    elif g.out is None:
        constant = torch.zeros_like(sums.lse)
    else:
        constant = -(g.out.to(sums.lse.dtype) * sums.out).sum(-1)
    log, distance = None, None
    if g.lse is not None:
        constant = constant + g.lse
    if g.entropy is not None:
        assert sums.entropy is not None
        constant, log = constant - g.entropy * sums.entropy, -g.entropy
    if g.expected_score is not None:
        assert sums.entropy is not None
        constant = constant + g.expected_score * (1 + sums.entropy)
        log = g.expected_score if log is None else log + g.expected_score
    if square is not None:
        assert sums.sum_p2 is not None
        constant = constant - square * sums.sum_p2
    if g.distance is not None:
        assert sums.distance is not None
        mean, variance, mean_abs, variance_abs = sums.distance
        constant = constant - g.distance[1] * variance - g.distance[3] * variance_abs
        distance = torch.stack([mean, g.distance[0], g.distance[1], mean_abs, g.distance[2], g.distance[3]])
    if g.columns is not None:
        assert sums.columns is not None
        constant = constant - (g.columns * sums.columns).sum(-1)
    lse = sums.lse.masked_fill(sums.lse == -torch.inf, NO_KEY)
    return Terms(lse, constant, log, square, distance, g.columns, *largest)


def score_gradients(
    terms: Terms,
    p: torch.Tensor,
    dp: torch.Tensor,
    t: torch.Tensor | None = None,
    distance: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    first: int = 0,
    *,
    sigmoid: bool = False,
) -> torch.Tensor:
    """Turn a tile of <dout_i, v_j> into ds_ij, in place, and return it.

    Args:
        terms: Those of the queries of the tile.
        p: [..., queries, keys]: the weights; 0 where a key is not seen.
        dp: [..., queries, keys]: <dout_i, v_j>, which is overwritten.
        t: [..., queries, keys]: log p, finite also where p is 0; needed with `terms.log`.
        distance: [queries, keys]: d = i + shift - j; needed with `terms.distance`.
        columns: [..., keys, C]; needed with `terms.columns`.
        first: The number of the tile's first key.
        sigmoid: The weights are sigmoids.
    """
    if terms.constant is not None:
        dp.add_(terms.constant[..., None])
    if terms.log is not None:
        assert t is not None
        dp.addcmul_(t, terms.log[..., None])
    if terms.square is not None:
        dp.addcmul_(p, terms.square[..., None])
    if terms.distance is not None:
        assert distance is not None
        mean, g_mean, g_variance, mean_abs, g_mean_abs, g_variance_abs = (row[..., None] for row in terms.distance)
        x = distance - mean
        dp.addcmul_(x, torch.addcmul(g_mean, g_variance, x))
        y = distance.abs() - mean_abs
        dp.addcmul_(y, torch.addcmul(g_mean_abs, g_variance_abs, y))
    if terms.columns is not None:
        assert columns is not None
        dp.add_(terms.columns @ columns.mT.to(terms.columns.dtype))
    dp.mul_(p)
    if sigmoid:
        dp.addcmul_(dp, p, value=-1)
    if terms.max is not None:
        assert terms.argmax is not None
        place = terms.argmax - first
        inside = (place >= 0) & (place < dp.shape[-1])
        dp.scatter_add_(-1, (place * inside)[..., None], (terms.max * inside)[..., None].to(dp.dtype))
    return dp


def before_cap(ds: torch.Tensor, capped: torch.Tensor, softcap: float) -> torch.Tensor:
    """Turn gradients of capped scores, softcap tanh(s / softcap), into those of s, in place, and return them."""
    return ds.addcmul_(ds * capped, capped, value=-1 / softcap**2)
