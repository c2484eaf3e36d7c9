"""A file system in a file, whose power can be cut."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType

SHUTDOWN = 0x8004587D
"""`EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, both `_IOR('X', 125, __u32)`."""
WITHOUT_LOG_FLUSH = 2
"""`EXT4_GOING_FLAGS_NOLOGFLUSH` and `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: what only memory holds is gone."""
SIZE = 512 << 20
"""Bytes of an image; it is sparse. XFS takes 300 MB at least."""
KINDS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def obstacle(kind: str) -> str | None:
    """Return why the power of this file system cannot be cut on this machine, or None."""
    if os.geteuid() != 0:
        return "needs the rights of root"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    if shutil.which(KINDS[kind][0]) is None:
        return f"needs {KINDS[kind][0]}"
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    return None if kind in known else f"the kernel does not know {kind}"


class Image:
    """A new file system of this kind in `folder`, mounted as long as the context lasts.

    What was written and not synced may have reached the image or not, as the kernel pleased; a cut takes the rest.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.file, self.path = kind, folder / f"{kind}.img", folder / kind

    def __enter__(self) -> Image:
        self.path.mkdir()
        with self.file.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([*KINDS[self.kind], str(self.file)], check=True)
        self._mount()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._unmount()
        self.file.unlink()
        self.path.rmdir()

    def cut(self) -> None:
        """From here on nothing reaches the image, and every write fails."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(folder)

    def restore(self) -> None:
        """The power returns: the file system recovers by its own journal."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-t", self.kind, "-o", "loop", str(self.file), str(self.path)], check=True)

    def _unmount(self) -> None:
        for patience in (0.1, 0.5, 2.0):
            gc.collect()  # files that a test has read may still be open
            done = subprocess.run(["umount", str(self.path)], check=False, capture_output=True, text=True)
            if done.returncode == 0:
                return
            time.sleep(patience)
        raise OSError(f"{self.path} stays mounted: {done.stderr}")
