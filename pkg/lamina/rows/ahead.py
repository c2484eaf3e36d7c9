"""Work that a thread does ahead of the one who asks for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

_POLL = 0.1
"""Seconds after which a thread that waits for room looks whether anybody still wants what it made."""


class _Ended:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield the items, which a thread makes up to `depth` ahead.

    What the thread raises is raised here, behind the items before it. The thread ends with this iterator.
    """
    made: queue.Queue[Item | _Ended] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Item | _Ended) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_Ended(None))
        except BaseException as error:
            put(_Ended(error))

    thread = threading.Thread(target=work, name="lamina-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _Ended):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item  # or this frame would keep a batch while its consumer is done with it
    finally:
        stopped.set()
        thread.join()
