"""The choice between the forms of an op."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
from collections.abc import Collection

import torch

_logger = logging.getLogger("lamina_kernels")

# Looked up here: the compiler of torch 2.11 does not trace the search for a module.
_TRITON_IS_INSTALLED = importlib.util.find_spec("triton") is not None


def choose(op: str, forms: Collection[str], impl: str | None, *, default: str) -> str:
    """Return the name of the form to run.

    Args:
        op: The op's public name, for the message.
        forms: The names of the forms that the op has.
        impl: What the caller asked for, or None.
        default: What runs when the caller asked for nothing.

    Returns:
        `default` if `impl` is None, else `impl`.

    Raises:
        ValueError: The op has no form of that name.
    """
    if impl is None:
        return default
    if impl not in forms:
        nearest = difflib.get_close_matches(str(impl), forms, n=1)
        guess = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{op} has no form {impl!r}, it has {', '.join(map(repr, sorted(forms)))}{guess}")
    return impl


def log(op: str, form: str) -> None:
    """Log which form of an op runs, as `lamina_kernels` at the level debug: for ops that return a tensor alone."""
    if not torch.compiler.is_compiling():
        _logger.debug("%s: %s", op, form)


def triton_obstacle(tensor: torch.Tensor) -> str | None:
    """Return why no Triton kernel can run on this tensor, or None.

    Kernels run on GPUs, and anywhere in Triton's interpreter, which `TRITON_INTERPRET=1` asks for before the
    first kernel is imported. They do not sum in float64 inside a tile.
    """
    if tensor.dtype == torch.float64:
        return "float64 has the forms 'reference' and 'blocked' alone"
    if not _TRITON_IS_INSTALLED:
        return "Triton is not installed"
    if tensor.device.type == "cuda" or interpreted():
        return None
    return f"the tensors are on {tensor.device}, a Triton kernel needs a GPU (or TRITON_INTERPRET=1, for tests)"


def compiles_with_triton_before(tensor: torch.Tensor, major: int, minor: int) -> bool:
    """Return whether an older Triton than this compiles a kernel on this tensor; the interpreter compiles nothing."""
    if triton_obstacle(tensor) is not None or interpreted():
        return False
    import triton

    return tuple(map(int, triton.__version__.split(".")[:2])) < (major, minor)


def demand_triton(op: str, tensor: torch.Tensor) -> None:
    """Raise unless a Triton kernel can run on this tensor: it never gives way to another form.

    Raises:
        ValueError: The tensor is float64.
        RuntimeError: There is no GPU, or no Triton.
    """
    obstacle = triton_obstacle(tensor)
    if obstacle is not None:
        error = ValueError if tensor.dtype == torch.float64 else RuntimeError
        raise error(f"{op}: impl='triton' cannot run: {obstacle}")


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def target(tensor: torch.Tensor) -> str:
    """Return what a kernel for this tensor is compiled to: "cuda:90", "hip:gfx942", or "interpreter"."""
    if tensor.device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return "hip:" + torch.cuda.get_device_properties(tensor.device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return f"cuda:{10 * major + minor}"
