"""What attention did, in a few numbers a query and head, without the matrix of queries and keys.

`inputs` holds what one call of attention was given and names the statistics, `statistics` computes them: by the kernels
of `lamina_kernels` where `reach` finds that the masks are such as these have, else by `blocked`, from tiles;
`reference` from the matrix. `watch` reads the calls of an attention module; `interface` finds those of Transformers and
stands in their way, `multihead` does so for `torch.nn.MultiheadAttention`.
"""

from __future__ import annotations

from lamina.recording.attention.inputs import STATISTICS, Attention

__all__ = ["STATISTICS", "Attention"]
