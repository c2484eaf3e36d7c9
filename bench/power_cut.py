"""Who survives a power cut?"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import paths
from bench.command import is_quick
from bench.table import Table
from tests.power_cut.cutting import cut_repeatedly, library_without_syncs, sync_something
from tests.power_cut.image import KINDS, Image, obstacle

CUTS, CONTROLS, TRIALS = 100, 10, 12
FOUND = ["acknowledged data is there", "fell back to the older", "unreadable or lost"]
COLUMNS = ["writer", "file system", "cuts", *FOUND, "how"]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for kind in KINDS:
        if reason := obstacle(kind):
            notes.append(f"{kind} is left out: this machine {reason}")
            continue
        rows += of_lamina(kind, 3 if quick else CUTS, 2 if quick else CONTROLS)
    with Peers() as peers:
        for name in peers.kinds:
            rows += [of_peer(peers, name, kind, 2 if quick else TRIALS) for kind in KINDS if not obstacle(kind)]
        versions = peers.versions
    table = Table(
        question="Who survives a power cut?",
        columns=COLUMNS,
        rows=rows,
        notes=[
            "an image on a loop device; the program reports success; the file system's shutdown ioctl, which drops "
            "what memory alone holds; remounted, read, compared",
            "before half of the cuts an unrelated program syncs, as happens every few seconds",
            "lamina: every cut hits a writer at work, one after another in one run; rows, metrics and checkpoints",
            "the control is the same writer with an `fsync` and `fdatasync` that do nothing",
            "what was acknowledged while the ioctl worked does not count, for nobody",
            *notes,
        ],
        packages=["lamina"],
        versions=versions,
    )
    table.publish("power_cut", quick=quick)


def of_lamina(kind: str, cuts: int, controls: int) -> list[dict[str, Any]]:
    def row(writer: str, preload: bool, cuts: int) -> dict[str, Any]:
        with Scratch() as folder, Image(kind, folder) as image:
            library = library_without_syncs(folder) if preload else None
            account = cut_repeatedly(image, cuts, preload=library, fresh=preload)
        safe = cuts - account.harmed
        text = f"{account.acknowledged} durable points acknowledged, {len(account.lost)} losses"
        return dict(zip(COLUMNS, [writer, kind, cuts, safe, "", account.harmed, text], strict=True))

    return [row("lamina", False, cuts), row("lamina, control", True, controls)]


def of_peer(peers: Peers, name: str, kind: str, trials: int) -> dict[str, Any]:
    found: Counter[str] = Counter()
    with Scratch() as folder, Image(kind, folder) as image:
        for trial in range(1, trials + 1):
            path = image.path / str(trial) / "data"
            assert peers.do("prepare", name, path, trial) == "prepared"
            assert peers.do("write", name, path, trial) == "written"
            if trial % 2:
                sync_something(image.path / "unrelated")
            image.cut()
            image.restore()
            answer = peers.do("check", name, path, trial)
            found[" ".join(answer.replace(str(image.path), "").split())] += 1
    wrong = found.total() - found["there"] - found["before"]
    kinds = {text.removeprefix("unreadable: ").split(":")[0] for text in found if text not in ("there", "before")}
    how = ", ".join(sorted(kinds))
    return dict(zip(COLUMNS, [name, kind, trials, found["there"], found["before"], wrong, how], strict=True))


class Scratch:
    """An empty folder for as long as the context lasts."""

    def __enter__(self) -> Path:
        paths.SCRATCH.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(dir=paths.SCRATCH))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


class Peers:
    """The server of `tests/power_cut/peers.py`, in the environment of the peers."""

    def __enter__(self) -> Peers:
        self._process = subprocess.Popen(
            [paths.PEERS, paths.ROOT / "tests" / "power_cut" / "peers.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.kinds: dict[str, Any] = self._answer()
        self.versions: dict[str, str] = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def do(self, action: str, name: str, path: Path, number: int) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, name, str(path), number]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


if __name__ == "__main__":
    main()
