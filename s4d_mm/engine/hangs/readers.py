# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Who reads which file, and what the system says of that process."""

import os
import time
from collections.abc import Sequence
from multiprocessing import process

from torch.utils.data import Dataset

LISTED = 8  # readers named in a message
STATES = dict(  # of /proc/PID/stat, see proc(5)
    T='stopped by a signal (SIGSTOP); "kill -CONT {pid}" lets it go on',
    t='stopped by a debugger',
    D='waiting for a disk or a network drive',
    Z='dead',
)


def child_pids() -> set[int]:
    """The processes that this one started, data loader workers among them.

    ``multiprocessing.active_children`` would also collect the dead ones, which torch looks for to
    say by which signal a worker was killed.

    Returns:
        set[int]: Their pids.
    """
    return {child.pid for child in list(process._children)}


def process_state(pid: int) -> str:
    """What the system says of a process that does not run or sleep as usual.

    Args:
        pid (int): The process.

    Returns:
        str: What it is, ``'stopped by a signal ...'`` for example; '' for nothing special, or
        where the system has no ``/proc``.
    """
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
            state = f.read().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
        return ''
    return STATES.get(state, '').format(pid=pid)


def describe_readers(datasets: Sequence[Dataset]) -> list[str]:
    """Say which files are being read, and which processes of the data loaders do not run.

    Args:
        datasets (list[Dataset]): Those of :class:`.FaultTolerantDataset`.

    Returns:
        list[str]: A clause for each process, the longest reading first.
    """
    children = child_pids()
    alive = {os.getpid()} | children
    now = time.monotonic()
    clauses, told = [], set()
    for note, dataset in open_notes(datasets):
        if note.pid not in alive:  # died over it, in an earlier epoch
            continue
        told.add(note.pid)
        state = process_state(note.pid) if note.pid in children else ''
        clauses.append(
            f'{reader_name(note)} has read {file_of(dataset, note.index)} for '
            f'{now - note.since:.0f} s' + (f' and is {state}' if state else '')
        )
    for pid in sorted(children - told):
        state = process_state(pid)
        if state:
            clauses.append(f'child process {pid}, which reads no file, is {state}')
    more = len(clauses) - LISTED
    return clauses[:LISTED] + ([f'{more} more read'] if more > 0 else [])


def open_notes(datasets: Sequence[Dataset]) -> list[tuple]:
    """The samples that are being read.

    Args:
        datasets (list[Dataset]): Those of :class:`.FaultTolerantDataset`.

    Returns:
        list[tuple]: :class:`~s4d_mm.datasets.reading_notes.Note` and dataset, the longest first.
    """
    pairs = [(note, dataset) for dataset in datasets for note in dataset.notes.open_notes()]
    return sorted(pairs, key=lambda pair: pair[0].since)


def reader_name(note) -> str:
    """What to call the process of a note."""
    if note.worker < 0:
        return f'the main process (pid {note.pid})'
    return f'data loader worker {note.worker} (pid {note.pid})'


def file_of(dataset: Dataset, index: int) -> str:
    """Path of a sample, from its annotation alone."""
    return str(dataset.get_data_info(index)['filename'])
