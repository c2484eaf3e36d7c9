"""Recording: what flows through a model while it learns, on a schedule, into a run.

`record` (in `training`, with `recorder`) goes around a training loop, `capture` (in `capturing`) makes one pass over
data. `sites` says how something is recorded, `resolve` what a name stands for, `schedules` and `plan` when it is due.
`taps` watch modules and `parameters` the optimizer, `elements` finds the tensor in what they give, `layouts` reads its
axes, `captured` copies it. `appends` adds metadata columns (`numbering` those that nobody gave), and `kept` leaves out
the rows that a mask, `positions=` or a sample (`sampling`) does. `passes` run a model over data, `probes` at many steps
(of the same data: `sameness`); `stepping` is what happens at a step (which one it is tells `progression`), the `ring`
of a `flight` keeps the last ones for when `triggers` fire, `account` notices what captured nothing, `autograd` what a
backward pass computes again, `guarded` outlives a store that fails, and `state` leaves model and random generators as
they came. `edit` (in `editing`) puts something else where a tensor flows, by hooks (`editors`): `changes` says what,
`matching` which stored row belongs where.
`numbers` logs norms and such, `saving` makes checkpoints. A model may be inside of `wrappers` (compiled, parallel),
`lazy` (without shapes yet), shared by several `ranks` or `sharded`. `integrations` are callbacks for other people's
loops.
"""

from __future__ import annotations

from lamina.recording.capturing import capture
from lamina.recording.editing import edit
from lamina.recording.flight import Flight
from lamina.recording.numbers import NoiseScale, Numbers, two_batch_sizes
from lamina.recording.probes import Probe
from lamina.recording.recorder import Recorder
from lamina.recording.schedules import log_then_linear
from lamina.recording.sites import Site
from lamina.recording.state import set_random_state
from lamina.recording.surveying import Survey, sites
from lamina.recording.training import record
from lamina.recording.triggers import Above, NonFinite, Spike

__all__ = [
    "Above",
    "Flight",
    "NoiseScale",
    "NonFinite",
    "Numbers",
    "Probe",
    "Recorder",
    "Site",
    "Spike",
    "Survey",
    "capture",
    "edit",
    "log_then_linear",
    "record",
    "set_random_state",
    "sites",
    "two_batch_sizes",
]
