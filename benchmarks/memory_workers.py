# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Memory of data loader workers over an annotation file of many lines.

Each worker looks at annotations all over the file, since a list of Python
objects would be copied page by page as soon as its reference counts change. A
worker's private memory (Uss) with a short file is that of Python itself; what
it grows by with the long file is what the annotations cost in each worker.
"""

import multiprocessing
import os
import os.path as osp
import re
import tempfile

from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

from s4d_mm.datasets import DFEW

from . import timing

MIB = 2**20


class Probe(Dataset):
    """Stands before a dataset: an item reads annotations and tells the
    memory of the process that reads them.
    """

    def __init__(self, dataset: Dataset, workers: int, reads: int) -> None:
        self.dataset = dataset
        self.workers = workers
        self.reads = reads

    def __len__(self) -> int:
        return self.workers

    def __getitem__(self, idx: int) -> dict:
        stride = max(len(self.dataset) // self.reads, 1)
        for i in range(idx % stride, len(self.dataset), stride):
            self.dataset.get_data_info(i)
        return dict(pid=os.getpid(), **memory())


def memory() -> dict[str, int]:
    """Rss, Pss and Uss (what no other process shares) of this process."""
    with open('/proc/self/smaps_rollup') as f:
        text = f.read()
    kib = {key: int(number) for key, number in re.findall(r'^(\w+):\s+(\d+) kB', text, re.M)}
    return dict(
        rss=kib['Rss'] * 1024,
        pss=kib['Pss'] * 1024,
        uss=(kib['Private_Clean'] + kib['Private_Dirty']) * 1024,
    )


def write_annotations(path: str, lines: int) -> str:
    """A list like DFEW's."""
    with open(path, 'w', encoding='utf-8') as f:
        f.write('video_name,label\n')
        f.writelines(f'{i:07d},{i % 7}\n' for i in range(lines))
    return path


def run_workers(lines: int, workers: int, reads: int, serialize: bool) -> dict:
    """Memory of the main process and of its workers, in bytes; to be called
    in a fresh process.
    """
    init_default_scope('mmaction')
    with tempfile.TemporaryDirectory() as folder:
        dataset = DFEW(
            ann_file=write_annotations(osp.join(folder, 'train.csv'), lines),
            serialize_data=serialize,
        )
    main = dict(memory(), peak=timing.peak_resident())
    loader = DataLoader(
        Probe(dataset, workers, reads),
        batch_size=1,
        num_workers=workers,
        collate_fn=lambda batch: batch[0],
        multiprocessing_context='fork',
        persistent_workers=True,
    )
    found = list(loader)  # an item a worker
    if len({w['pid'] for w in found}) != workers:
        raise RuntimeError('The workers did not take one item each.')
    return dict(main=main, workers=found)


def _send(sender, *args) -> None:
    sender.send(run_workers(*args))


def in_fresh_process(*args) -> dict:
    """:func:`run_workers` in a process of its own."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, *args))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def measure(
    workers: int = 8, lines: int = 1_000_000, reads: int = 100_000, unpacked: bool = True
) -> list[dict]:
    """Memory with a short and with a long file.

    Args:
        workers (int): Defaults to 8.
        lines (int): Of the long file. Defaults to 1,000,000.
        reads (int): Annotations that each worker reads. Defaults to 100,000.
        unpacked (bool): Whether to show a list of dicts
            (``serialize_data=False``) too. Defaults to True.

    Returns:
        list[dict]: A row for each, MiB; ``uss_growth_mib`` is what the long
        file adds to each worker.
    """
    cases = [('packed', 1000, True), ('packed', lines, True)]
    if unpacked:
        cases.append(('list of dicts', lines, False))
    rows, base = [], None
    for name, count, serialize in cases:
        found = in_fresh_process(count, workers, reads, serialize)
        uss = sum(w['uss'] for w in found['workers']) / workers
        base = uss if base is None else base
        rows.append(
            dict(
                annotations=name,
                lines=count,
                workers=workers,
                main_rss_mib=found['main']['rss'] / MIB,
                main_peak_mib=found['main']['peak'] / MIB,
                worker_uss_mib=uss / MIB,
                worker_pss_mib=sum(w['pss'] for w in found['workers']) / workers / MIB,
                uss_growth_mib=(uss - base) / MIB,
                total_pss_mib=sum(w['pss'] for w in found['workers']) / MIB,
            )
        )
    return rows
