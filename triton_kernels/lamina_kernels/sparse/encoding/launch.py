"""How the Triton kernel of an encoder is launched, and what it leaves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lamina_kernels.sparse.encoding import tiling
from lamina_kernels.sparse.encoding.forward import groups_above_kernel
from lamina_kernels.sparse.encoding.problem import Problem
from lamina_kernels.tiles.descriptors import described, fit
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import accurate

GROUP = 32
"""Units of a group: 128 bytes of what is stored."""
PROGRAMS = 256
"""Programs that keep a GPU busy. It is the same number everywhere: results do not depend on the GPU."""


class Groups(NamedTuple):
    """Groups of units, in lists: one for each row and part of the units, in the order of their ids.

    Attributes:
        counts: [parts, n] int32, how many groups there were, also those that found no room.
        groups: [parts, n, room] int32, their numbers.
        highest: [parts, n, room], the largest of what was compared.
        values: [parts, n, room, GROUP], pre-activations.
        mass: [parts, n], the sums of those that are positive; None if not asked for.
    """

    counts: Tensor
    groups: Tensor
    highest: Tensor
    values: Tensor
    mass: Tensor | None

    @property
    def lists(self) -> int:
        """The room of all lists of a row together."""
        parts, _, room = self.groups.shape
        return parts * room

    def there(self) -> Tensor:
        """Return where a group stands, [parts, n, room]."""
        return torch.arange(self.groups.shape[2], device=self.counts.device) < self.counts[:, :, None]

    def full(self) -> Tensor:
        """Return the rows with a group that found no room, [n]."""
        return (self.counts > self.groups.shape[2]).any(0)

    def members(self, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and units [..., GROUP] of groups, by their rows and their places in the lists of these."""
        part, slot = places // self.groups.shape[2], places % self.groups.shape[2]
        units = self.groups[part, rows, slot].long()[..., None] * GROUP
        return self.values[part, rows, slot], units + torch.arange(GROUP, device=units.device)


def groups_above(
    p: Problem,
    limits: Tensor,
    expected: int,
    target: str,
    *,
    boost: Tensor | None = None,
    shift: Tensor | None = None,
    mass: bool = False,
    positive: Tensor | None = None,
) -> Groups:
    """Return the groups in which a pre-activation, times its boost and less its shift, reaches the limit of its row."""
    launch = plan(p, limits, expected, target, boost=boost, shift=shift, mass=mass, positive=positive)
    run(groups_above_kernel, launch, p.x)
    return Groups(*(launch.arguments[name] for name in Groups._fields))


def plan(
    p: Problem,
    limits: Tensor,
    expected: int,
    target: str,
    *,
    boost: Tensor | None = None,
    shift: Tensor | None = None,
    mass: bool = False,
    positive: Tensor | None = None,
) -> Launch:
    """Choose tiles and grid for a target, and allocate what the kernel writes.

    Args:
        p: The rows and units.
        limits: [n] float32.
        expected: How many groups of a row are to have room.
        target: See `dispatch.target`.
        boost: [M] float32.
        shift: [M] float32.
        mass: Whether the positive pre-activations of each row are summed.
        positive: [M] int32, to which is added in how many rows each unit's pre-activation is positive.
    """
    products = accurate(target) if p.x.dtype == torch.float32 else "half"
    rows = {"x": _contiguous(p.x), "weight": _contiguous(p.weight)}
    tile = tiling.tile(target, products, fit(rows.values()))
    chunks = {"x": (tile.rows, tile.chunk), "weight": (tile.columns, tile.chunk)}
    blocks, steps = ceil_div(p.n, tile.rows), ceil_div(p.m, tile.columns)
    parts = max(1, min(ceil_div(PROGRAMS, max(1, blocks)), steps))
    most = ceil_div(steps, parts) * (tile.columns // GROUP)
    room = min(1 << (ceil_div(expected, parts) + 7).bit_length(), 1 << (most - 1).bit_length())
    units = steps * tile.columns
    bias = p.x.new_zeros(p.m) if p.bias is None and p.m < units else p.bias
    single = {"dtype": torch.float32, "device": p.x.device}
    arguments = {
        **rows,
        # What no unit reaches, where there is none.
        "bias": _of_units(bias, units, -torch.inf),
        "boost": _of_units(boost, units, 1.0),
        "shift": _of_units(shift, units, 0.0),
        "limits": limits,
        "counts": torch.empty(parts, p.n, dtype=torch.int32, device=p.x.device),
        "groups": torch.empty(parts, p.n, room, dtype=torch.int32, device=p.x.device),
        "highest": torch.empty(parts, p.n, room, **single),
        "values": torch.empty(parts, p.n, room, GROUP, **single),
        "mass": torch.empty(parts, p.n, **single) if mass else None,
        "positive": positive,
        "n": p.n,
        "m": p.m,
        "parts": parts,
        "width": p.x.shape[1],
        "x_stride": rows["x"].stride(0),
        "weight_stride": rows["weight"].stride(0),
        "PRECISION": products,
        **described(rows, chunks, target),
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "GROUP": GROUP,
        "ROOM": room,
        "CHUNK": tile.chunk,
    }
    return Launch((blocks * parts,), arguments, {"num_warps": tile.warps, "num_stages": tile.stages})


def _contiguous(rows: Tensor) -> Tensor:
    """Return rows that are contiguous inside."""
    return rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous()


def _of_units(numbers: Tensor | None, units: int, other: float) -> Tensor | None:
    """Return float32 numbers of so many units, another for those that do not exist."""
    return None if numbers is None else pad(numbers.float(), (0, units - len(numbers)), value=other)
