"""The forms of `attend` that the checks run against."""

from __future__ import annotations

from lamina_kernels.attention import attend
from tests.kernels.forms import Form

_VISITS = "lamina_kernels.attention.blocked_visits"
_SMALL = {f"{_VISITS}.QUERIES": 32, f"{_VISITS}.KEYS": 24, f"{_VISITS}.SCORES": 3000}

FORMS = {
    "reference": Form(attend, "reference"),
    "blocked": Form(attend, "blocked"),
    # Many tiles, few of them whole.
    "tiles": Form(attend, "blocked", {**_SMALL, "lamina_kernels.attention.blocked_top.GROUP": 4}),
}
