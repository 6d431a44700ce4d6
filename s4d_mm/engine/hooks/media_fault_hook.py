# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""After each epoch: what could not be read, of all processes."""

import csv
import os.path as osp

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...datasets.media_faults import datasets_with_faults
from ...files.text import safe_cell


@HOOKS.register_module()
class MediaFaultHook(Hook):
    """Report the unreadable samples of all processes.

    Counts them in the log, and lists them in ``unreadable.csv`` in the work
    directory.

    The datasets of s4d_mm replace a training sample that cannot be read by
    another one. With several processes each one sees only a part of the data,
    so this hook also compares the sum with ``max_fault_share``.

    Raises:
        TooManyFaultsError: If too many samples are unreadable.
    """

    def __init__(self) -> None:
        self._reported = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the training data."""
        self._report(runner, runner.train_dataloader.dataset)

    def after_train(self, runner: Runner) -> None:
        """Report a training that counts iterations, which has no epochs."""
        self._report(runner, runner.train_dataloader.dataset)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Report the test data."""
        self._report(runner, runner.test_dataloader.dataset)

    def _report(self, runner: Runner, dataset: Dataset) -> None:
        datasets = list(datasets_with_faults(dataset))
        for part in datasets:
            # of a copy, as the marks themselves lie in the workers' shared memory
            marks = part.faults.marks.clone()
            dist.all_reduce(marks, op='max')
            part.faults.marks.copy_(marks)
        found = [(part, part.faults.indices()) for part in datasets]
        if found == self._reported or not any(indices for _, indices in found):
            return
        self._reported = found
        path = osp.join(runner.work_dir, 'unreadable.csv')
        for part, indices in found:
            runner.logger.warning(
                f'{len(indices)} of {len(part)} {part.INPUT_TYPE} '
                f'samples of {part.ann_file} are unreadable, see {path}'
            )
        if runner.rank == 0:
            write_faults(path, datasets)
        for part in datasets:
            if not part.test_mode:
                part.check_faults()


def write_faults(path: str, datasets: list[Dataset]) -> None:
    """Write the list of unreadable samples.

    Args:
        path (str): The file, a CSV with ``ann_file``, ``sample_id`` and ``path``.
        datasets (list[Dataset]): From :func:`datasets_with_faults`.
    """
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['ann_file', 'sample_id', 'path'])
        for dataset in datasets:
            for index in dataset.faults.indices():
                info = dataset.get_data_info(index)
                row = dataset.ann_file, info['sample_id'], info['filename']
                writer.writerow(map(safe_cell, row))
