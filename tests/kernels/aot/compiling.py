"""Compiling a launch for a GPU that is not here."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "cuda:100": GPUTarget("cuda", 100, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}


def compile_for(
    target: str, kernel: JITFunction[Any], arguments: dict[str, Any], options: dict[str, int]
) -> CompiledKernel:
    """Compile what `kernel[grid](**arguments, **options)` would compile on the target.

    Triton's own launcher sorts the arguments into types, constants and attributes (which pointers and sizes are
    multiples of 16). Without the attributes another kernel would be compiled, which never runs.
    """
    device = TARGETS[target]
    backend = make_backend(device)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = bind(**arguments, **options, debug=False)
    parsed, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, rest)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=device, options=parsed.__dict__)
