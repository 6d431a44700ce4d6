# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, while a sample is read: a note of who reads which one, since when."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

WORKERS = 1024  # rows for workers; a worker with a higher number shares one
NOTHING = -1  # index of the sample while none is read


class Note(NamedTuple):
    """What a process does with a dataset.

    Attributes:
        worker (int): Number of the data loader worker; -1 is the main process.
        pid (int): Of the process.
        index (int): Index of the sample that it reads.
        since (float): When it began, on the clock of :func:`time.monotonic`.
    """

    worker: int
    pid: int
    index: int
    since: float


class ReadingNotes:
    """Notes which sample each process reads from a dataset.

    They lie in shared memory, 24 bytes for each process, so that the main process can
    say on which file a worker stands still. They cost some microseconds a sample.
    """

    # a row: pid, index, since; the first row is that of the main process

    def __init__(self) -> None:
        self.shared = torch.zeros(1 + WORKERS, 3, dtype=torch.float64).share_memory_()
        self.rows = self.shared.numpy()  # the same memory, quicker to write

    def __getstate__(self) -> dict:
        """For a worker that is not a fork: torch hands on the memory, numpy would copy it."""
        return dict(shared=self.shared)

    def __setstate__(self, state: dict) -> None:
        """Find the shared memory again."""
        self.shared = state['shared']
        self.rows = self.shared.numpy()

    @contextlib.contextmanager
    def reading(self, idx: int) -> Iterator[None]:
        """Keep the note that this process reads a sample.

        Args:
            idx (int): Index of the sample.
        """
        worker = get_worker_info()
        row = self.rows[0 if worker is None else 1 + worker.id % WORKERS]
        row[:] = os.getpid(), int(idx), time.monotonic()
        try:
            yield
        finally:
            row[:] = os.getpid(), NOTHING, time.monotonic()

    def open_notes(self) -> list[Note]:
        """The samples that are being read, of processes that live or died over it.

        Returns:
            list[Note]: The longest first.
        """
        rows = self.rows.copy()  # at once
        used = np.flatnonzero((rows[:, 0] > 0) & (rows[:, 1] > NOTHING)).tolist()
        notes = [Note(i - 1, int(rows[i, 0]), int(rows[i, 1]), float(rows[i, 2])) for i in used]
        return sorted(notes, key=lambda note: note.since)

    def last_change(self) -> float:
        """When a process last began or ended a sample, by :func:`time.monotonic`; 0 for never."""
        return float(self.rows[:, 2].max())
