"""Compiling a launch for a GPU that is not here."""

from __future__ import annotations

from typing import Any

import triton
from triton._C.libtriton import ir
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
    """Compile what `kernel[grid](**arguments, **options)` would compile on the target."""
    source, parsed = _source(target, kernel, arguments, options)
    return triton.compile(source, target=TARGETS[target], options=parsed)


def ttir_for(target: str, kernel: JITFunction[Any], arguments: dict[str, Any], options: dict[str, int]) -> str:
    """Return the first thing that would be made of it, in a fraction of the time."""
    source, parsed = _source(target, kernel, arguments, options)
    device, context = TARGETS[target], ir.context()
    stages: dict[str, Any] = {}
    backend: Any = make_backend(device)
    chosen = backend.parse_options(parsed)
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(chosen)
    module = source.make_ir(device, chosen, functions, backend.get_module_map(), context)
    backend.add_stages(stages, chosen, source.language)
    return str(stages["ttir"](module, {}))


def _source(
    target: str, kernel: JITFunction[Any], arguments: dict[str, Any], options: dict[str, int]
) -> tuple[ASTSource, dict[str, Any]]:
    """Return a kernel as Triton compiles it, and the options.

    Triton's own launcher sorts the arguments into types, constants and attributes (which pointers and sizes are
    multiples of 16). Without the attributes another kernel would be compiled, which never runs.
    """
    backend = make_backend(TARGETS[target])
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = bind(**arguments, **options, debug=False)
    parsed, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, rest)
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes), parsed.__dict__
