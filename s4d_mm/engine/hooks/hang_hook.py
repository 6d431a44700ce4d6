# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From the first step to the last: a run that stands still ends, and says who did."""

from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ...datasets.media_faults import datasets_with_faults
from ..hangs import HANG_TIMEOUT, RankBoard, Watchdog
from ..hangs.limit import check_seconds

DATA = 'waits for the data of {stage} step {{}}'
STEP = 'is in {stage} step {{}}'
FIGURES = 'computes the figures of the {stage}'


@HOOKS.register_module()
class HangHook(Hook):
    """End a run in which nothing goes on, with who stands still and on which file.

    A thread in each process sees whether steps are finished (training, validation, test) and
    samples begun. If there is nothing for ``timeout`` seconds it writes to the terminal and into
    the log which rank is behind, which sample file each data loader worker reads since when, and
    the stacks of the threads; then the workers are killed and the process ends with code 1. Files
    are named for the datasets of s4d_mm.

    Args:
        timeout (float): Seconds without progress, also before the first step; 0 for no limit, as
            for a debugger. Defaults to 600.
        heartbeat (float): Seconds without progress after which the log says the same, and again
            each time they have passed; 0 for never. Defaults to 60.

    Raises:
        ValueError: If one of them is no number of seconds.
    """

    priority = 'LOWEST'  # what other hooks do after a step belongs to the step
    _runs = 0  # watched in this process

    def __init__(self, timeout: float = HANG_TIMEOUT, heartbeat: float = 60.0) -> None:
        self.timeout = check_seconds('timeout of HangHook', timeout)
        self.heartbeat = check_seconds('heartbeat of HangHook', heartbeat)
        self.watchdog: Optional[Watchdog] = None
        self._data, self._step = self._texts('training')

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to watch, before the loader starts."""
        self._enter(runner, 'training', runner.iter, runner.train_dataloader)

    def before_val_epoch(self, runner: Runner) -> None:
        """Watch the validation."""
        self._enter(runner, 'validation', 0, runner.val_dataloader)

    def before_test_epoch(self, runner: Runner) -> None:
        """Watch the test."""
        self._enter(runner, 'test', 0, runner.test_dataloader)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """A batch has come."""
        self._mark(self._step, runner.iter + 1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A step is finished."""
        self._mark(self._data, runner.iter + 2)

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train'
    ) -> None:
        """A batch of validation or test has come."""
        self._mark(self._step, batch_idx + 1)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """A step of validation or test is finished."""
        if self.watchdog is None:
            return
        last = batch_idx + 1 == len(self._loader)
        self._mark(self._figures if last else self._data, batch_idx + 2)

    def after_train_epoch(self, runner: Runner) -> None:
        """An epoch is finished."""
        self._mark('ends a training epoch', 0)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """A validation is finished: the training goes on."""
        self._data, self._step = self._texts('training')
        self._mark('ends a validation', 0)

    def after_run(self, runner: Runner) -> None:
        """End the watch."""
        if self.watchdog is not None:
            self.watchdog.stop()

    def _texts(self, stage: str) -> tuple[str, str]:
        return DATA.format(stage=stage), STEP.format(stage=stage)

    def _enter(self, runner: Runner, stage: str, step: int, loader: DataLoader) -> None:
        if not self.timeout:
            return
        self._data, self._step = self._texts(stage)
        self._figures, self._loader = FIGURES.format(stage=stage), loader
        if self.watchdog is None:
            self.watchdog = self._start(runner)
        known = self.watchdog.datasets
        new = [d for d in datasets_with_faults(loader.dataset) if all(d is not k for k in known)]
        self.watchdog.datasets = [*known, *new]
        self._mark(self._data, step + 1)

    def _start(self, runner: Runner) -> Watchdog:
        HangHook._runs += 1
        codes = [getattr(type(runner), n).__code__ for n in ('train', 'val', 'test')]
        board = RankBoard(HangHook._runs)
        watchdog = Watchdog(self.timeout, self.heartbeat, runner.logger, board, codes)
        watchdog.start()
        return watchdog

    def _mark(self, where: str, number: int) -> None:
        if self.watchdog is not None:
            self.watchdog.mark(where, number)
