# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the command line shows when a worker of a data loader died."""

import contextlib
import re
import sys
from collections.abc import Iterator

from mmengine.runner import Runner

from ...datasets.media_faults import datasets_with_faults
from .readers import file_of, open_notes, reader_name

# torch's words, of torch/utils/data/dataloader.py and torch/csrc/DataLoader.cpp
DIED = re.compile(r'DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\)')
SLOW = re.compile(r'DataLoader timed out after')


@contextlib.contextmanager
def loader_errors_as_messages(runner: Runner) -> Iterator[None]:
    """End the command with a sentence where a data loader lost a worker or waited too long.

    Args:
        runner (Runner): The runner that trains or tests inside.

    Raises:
        SystemExit: In place of torch's RuntimeError; the exit code is 1.
    """
    try:
        yield
    except RuntimeError as e:
        message = loader_message(runner, e)
        if message is None:
            raise
        sys.exit(message)


def loader_message(runner: Runner, error: RuntimeError) -> str:
    """Say which worker died, and over which file.

    Args:
        runner (Runner): The runner.
        error (RuntimeError): What came out of it.

    Returns:
        str | None: The message; None if the error is another one.
    """
    chain, cause = [], error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    texts = [str(e) for e in chain]
    died = [match for text in texts for match in DIED.finditer(text)]
    if not died and not any(map(SLOW.search, texts)):
        return None
    pids = {int(pid) for match in died for pid in match['pids'].split(',')}
    notes = [
        f'{reader_name(note)} had begun to read {file_of(dataset, note.index)}'
        for note, dataset in open_notes(loaded_datasets(runner))
        if not died or note.pid in pids
    ]
    told = next(t for t in texts if DIED.search(t) or SLOW.search(t)).strip()
    advice = (
        'A worker that the system killed was mostly short of memory: use fewer workers '
        '(train_dataloader.num_workers) or smaller batches.'
        if died
        else ''
    )
    where = '; '.join(notes) or 'no file of a data set of s4d_mm was being read'
    return f'{told.rstrip(".")}: {where}. {advice}'.strip()


def loaded_datasets(runner: Runner) -> list:
    """The datasets of s4d_mm whose loaders a runner has built."""
    loops = (runner._train_loop, runner._val_loop, runner._test_loop)
    loaders = [loop.dataloader for loop in loops if hasattr(loop, 'dataloader')]
    return [part for loader in loaders for part in datasets_with_faults(loader.dataset)]
