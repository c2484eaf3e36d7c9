"""Paths as people write them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def path_of(given: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in the place of a leading `~`, as a shell would.

    Example:
        >>> from pathlib import Path
        >>> from lamina.paths import path_of
        >>> path_of("~/runs/digits-0") == Path.home() / "runs/digits-0", path_of("runs/~")
        (True, PosixPath('runs/~'))
    """
    path = Path(given)
    with suppress(RuntimeError):  # there is no such user: the name is a name
        path = path.expanduser()
    return path
