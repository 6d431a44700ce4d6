# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""After each epoch: what could not be read, of all processes."""

import csv
import os.path as osp
from collections.abc import Iterator
from typing import Optional

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class MediaFaultHook(Hook):
    """Gather the unreadable samples of all processes, count them in the log,
    and write them to ``unreadable.csv`` in the work directory.

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

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Report the test data."""
        self._report(runner, runner.test_dataloader.dataset)

    def _report(self, runner: Runner, dataset) -> None:
        datasets = list(_with_ledger(dataset))
        for one in datasets:
            marks = one.faults.marks.clone()
            dist.all_reduce(marks, op='max')
            one.faults.marks.copy_(marks)
        found = {id(d): d.faults.indices() for d in datasets}
        if not any(found.values()) or found == self._reported:
            return
        self._reported = found
        path = osp.join(runner.work_dir, 'unreadable.csv')
        for one in datasets:
            runner.logger.warning(
                f'{len(found[id(one)])} of {len(one)} {one.INPUT_TYPE} '
                f'samples of {one.ann_file} are unreadable, see {path}'
            )
        if runner.rank == 0:
            with open(path, 'w', newline='', encoding='utf-8') as f:
                writer = csv.writer(f)
                writer.writerow(['ann_file', 'sample_id', 'path'])
                for one in datasets:
                    for i in found[id(one)]:
                        info = one.get_data_info(i)
                        writer.writerow([one.ann_file, info['sample_id'], info['filename']])
        for one in datasets:
            if not one.test_mode:
                one.check_faults()


def _with_ledger(dataset) -> Iterator:
    """The datasets of s4d_mm inside of wrappers such as ConcatDataset."""
    if hasattr(dataset, 'faults'):
        yield dataset
    inner = getattr(dataset, 'datasets', None)
    for one in inner or [getattr(dataset, 'dataset', None)]:
        if one is not None:
            yield from _with_ledger(one)
