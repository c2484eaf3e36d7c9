"""Processes that write to one run and are killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import lamina

Write = Callable[[str, int, Connection, str | None], None]
"""Writes to the run at a path as a given life, under a fault or none, and tells each step that is durable."""


def kill_a_round(
    write: Write, run: lamina.Run, lives: list[int], chance: random.Random, fault: str | None, *, opening: float = 0
) -> set[int]:
    """Starts a writer for each life, kills them all at some moment, and returns the steps that they acknowledged.

    Args:
        write: What each process does; a function of a module.
        run: The run.
        lives: Numbers of the writers.
        chance: Decides when, and in which order.
        fault: What is broken in the writers.
        opening: In which share of the rounds they are killed while they open their logs.
    """
    context = multiprocessing.get_context("forkserver")
    processes, ends = [], []
    for life in lives:
        end, told = context.Pipe(duplex=False)
        processes.append(context.Process(target=write, args=(str(run.path), life, told, fault), daemon=True))
        processes[-1].start()
        told.close()
        ends.append(end)
    if chance.random() >= opening:
        ends[0].poll(200)
    time.sleep(chance.uniform(0, 0.2))
    for process in chance.sample(processes, len(processes)):
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    acknowledged = set()
    for end, process in zip(ends, processes, strict=True):
        try:
            while True:
                acknowledged.add(end.recv())
        except EOFError:
            process.join()
            assert process.exitcode == -signal.SIGKILL
    return acknowledged
