"""What the kernels of all families share: loading a tile, its scores, their reduction.

`tiles.rows`, `tiles.rounding`, `tiles.target` and `tiles.launch` are plain torch. The other modules hold Triton
functions and import Triton: only what launches a kernel imports them, so that `import lamina_kernels` works without
Triton and without a GPU.
"""
