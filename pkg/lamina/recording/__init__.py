"""Recording: what flows through a model while it learns, on a schedule, into a run.

`record` (in `training`, with `recorder`) goes around a training loop, `capture` (in `capturing`) makes one pass over
data. `sites` says what a name stands for, `schedules` and `plan` when it is due, `taps` watch modules, `elements` finds
the tensor in what they give, `captured` copies it, `appends` adds metadata columns (`numbering` those that nobody
gave), `passes` run a model over data, `account` notices what captured nothing, and `state` leaves model and random
generators as they came.
"""

from __future__ import annotations

from lamina.recording.capturing import capture
from lamina.recording.recorder import Recorder
from lamina.recording.schedules import log_then_linear
from lamina.recording.sites import Site
from lamina.recording.training import record

__all__ = ["Recorder", "Site", "capture", "log_then_linear", "record"]
