"""A kernel function of one's own: of the dot product of two rows and of their squared norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.terms import Builder, Node

Function = Callable[[Tensor, Tensor, Tensor], Tensor]

# Operators of torch take strings and numbers: a leaf has the place of its function here.
_FUNCTIONS: list[tuple[Function, Any]] = []


@dataclass(frozen=True)
class Pointwise(Kernel):
    """A function of your own of the dot product and of both squared norms: k(x, y) = f(<x, y>, |x|², |y|²).

    It stands wherever a kernel does, alone and in sums and products. The gradients of all forms are torch's, of
    `reference`, a tile at a time: in `"triton"`, reductions run the kernel forward and `"blocked"` backward.

    Attributes:
        reference: f in torch, of tensors [R, C], [R, 1] and [1, C] of one dtype; differentiable twice where second
            derivatives are asked for. It knows nothing of which rows these are, and f(s, a, b) is f(s, b, a).
        function: The same as a function with `@triton.jit`, of float32 tiles with these shapes, whose value is one [R,
            C] in float32; None for a kernel that has no form `"triton"`. Triton reads the source of its file: it stands
            in a module (not in a prompt), which says `import triton.language as tl` even if the function names no `tl`.

    Raises:
        TypeError: `reference` is no function, or `function` is not one of Triton's.

    Cost:
        As of the other kernels, with f in place of their function. A difference of what f is given cancels: distances
        of rows far from zero keep their digits in the kernels that are there.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import row_sums
        >>> tanimoto = Pointwise(lambda dot, x, y: dot / (x + y - dot))
        >>> row_sums(torch.eye(2), torch.ones(1, 2), kernel=tanimoto).tolist()
        [0.5, 0.5]
    """

    reference: Function
    function: Any = None
    number: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.reference):
            raise TypeError(f"Pointwise: reference is {self.reference!r}, expected a function of tensors")
        if self.function is not None and not hasattr(self.function, "fn"):
            raise TypeError(f"Pointwise: function is {self.function!r}, expected one with @triton.jit, or None")
        pair = self.reference, self.function
        if pair not in _FUNCTIONS:
            _FUNCTIONS.append(pair)
        object.__setattr__(self, "number", _FUNCTIONS.index(pair))

    def node(self, builder: Builder) -> Node:
        """Return the function as a base of its own."""
        return builder.leaf("own", "identity", 1.0, degree=self.number)


def reference_of(number: int) -> Function:
    """Return a function in torch by its number."""
    return _FUNCTIONS[number][0]


def function_of(number: int) -> Any:
    """Return a function in Triton by its number; None if it has none."""
    return _FUNCTIONS[number][1]
