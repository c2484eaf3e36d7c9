"""Batches of rows for `torch.utils.data.DataLoader`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lamina.rows.epochs import Plan, ReadAhead
from lamina.rows.slots import Slots

if TYPE_CHECKING:
    from lamina.rows.rows import Rows


class BatchDataset(IterableDataset[torch.Tensor]):
    """Whole batches, for `DataLoader(dataset, batch_size=None, num_workers=…)`; made by `Rows.dataset`.

    Batch b of an epoch is made by worker b modulo their number, and a loader asks its workers in turn: the batches are
    the same, in the same order, at any number of workers. Each worker opens the run by itself, also after a fork, and
    evaluates nothing: it gets the rows that were selected when the dataset was made. It gathers into shared memory that
    it uses again once nothing refers to a batch any more; up to 16 batches and 128 MiB a worker are sent like that.

    A loader asks ahead, so its consumer must be asked how far it is: iterate over `dataset.through(loader)`, which
    counts what it gives, goes on where `load_state_dict` says, and moves from epoch to epoch.
    """

    def __init__(self, rows: Rows, plan: Plan) -> None:
        self._rows = rows
        self._plan = plan
        self._process = os.getpid()
        self._slots: Slots | None = None
        self.epoch = 0
        self.position = 0
        # where the next loop begins; shared, since workers that persist never get the dataset a second time
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._plan.batches()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slots": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._process = os.getpid()

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Begins the next loop in this epoch, behind so many of its rows."""
        self.epoch, self.position = epoch, position
        self._start.copy_(torch.tensor([epoch, position]))

    def __iter__(self) -> Iterator[torch.Tensor]:
        if os.getpid() != self._process:
            # a fork: the parent's files and maps are the parent's; what it selected is not evaluated again
            if self._rows.stored is not None:
                function, arguments = self._rows.__reduce__()
                self._rows = function(*arguments)
            self._process = os.getpid()
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # in some versions of torch a worker may be a thread, which sends nothing
        if self._slots is None and worker and getattr(worker, "worker_method", "multiprocessing") == "multiprocessing":
            self._slots = Slots(min(self._plan.size, self._plan.rows) * self._rows.width * self._rows.dtype.itemsize)
        epoch, position = self._start.tolist()
        order = self._plan.order_of(epoch)
        further = ReadAhead(self._rows, self._plan, order, position)
        for number, (start, stop) in enumerate(self._plan.spans(position)):
            if number % workers == mine:
                if mine == 0:
                    further.reach(start)
                # no name for the batch: it would keep the slot in use while the next one is chosen
                yield self._gather(self._plan.positions(order, start, stop))

    def _gather(self, positions: np.ndarray | range) -> torch.Tensor:
        slots, rows = self._slots, self._rows
        return rows.gather(positions, None if slots is None else slots.empty((len(positions), rows.width), rows.dtype))

    def through(self, loader: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The rest of the epoch out of a loader of this dataset, counted as it is received."""
        self.set_epoch(self.epoch, self.position)
        for batch in loader:
            self.position += len(batch)
            yield batch
        self.set_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer of `through` is."""
        return self._plan.identity() | {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken, at whatever number of workers.

        Raises:
            SchemaError: It is the state of other rows, or of another order or seed.
        """
        self.set_epoch(*self._plan.check_state(state))
