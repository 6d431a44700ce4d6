# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""mmengine's ``CheckpointHook``, in an order that always leaves a checkpoint to resume from."""

import contextlib
import os
import os.path as osp
from glob import escape, glob
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ...datasets.config_classes import trained_on
from ...evaluation.metrics.expression_metric import FIGURES, ExpressionMetric
from ...files.atomic_write import PART_SUFFIX, atomic_write
from ...files.last_checkpoint import is_plain_name
from .data_check_hook import parts_of


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Save checkpoints so that a run may be killed at any moment.

    It takes the arguments of mmengine's hook (0.10.7). What differs:

    - An older checkpoint, also a best one, is removed after the newer one is whole, not before it
      is written. One whose removal a kill prevented is removed by the run that resumes.
    - The note ``last_checkpoint`` is written after its file, and whole (so are the files
      themselves, where :mod:`s4d_mm.guard` is on).
    - What a killed run left half written is removed at the start of the next one.
    - The epoch and the iteration in a checkpoint are those that were completed, also where
      ``FlexibleRunner`` saves the best one after validation.
    - :meth:`save_now` saves in the middle of an epoch.
    - A name that it does not know is refused when it is built, and a ``save_best`` that
      ``ExpressionMetric`` does not give before the first step.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.args:  # mmengine would hand it to save_checkpoint, which knows no other
            raise ValueError(
                f'The checkpoint hook has no {next(iter(self.args))!r}. Check the keys of '
                'default_hooks.checkpoint.'
            )

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and remove what an earlier run left half written.

        Args:
            runner (Runner): Of the training.

        Raises:
            ValueError: If the validation does not give the metric of ``save_best``.
        """
        if self.save_best and runner.val_loop is not None:
            self._check_save_best(runner.val_loop)
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)
        # of the resumed checkpoint: what the next one replaces
        outdated = runner.message_hub.get_info('outdated_ckpts') or []
        self.file_backend.later = [
            osp.join(self.out_dir, name) for name in outdated if is_plain_name(name)
        ]
        self.saved_iter: int | None = None
        self._meta: dict = {}
        if is_main_process():
            self._remove_parts(runner)

    def _check_save_best(self, loop: BaseLoop) -> None:
        metrics = loop.evaluator.metrics
        if not all(isinstance(metric, ExpressionMetric) for metric in metrics):
            return  # of others the names are not known
        kinds = {getattr(part, 'INPUT_TYPE', None) for part in parts_of(loop.dataloader.dataset)}
        names = [
            '/'.join(filter(None, (metric.prefix, kind if len(kinds) > 1 else None, figure)))
            for metric in metrics
            for kind in sorted(kinds, key=str)
            for figure in FIGURES
        ]
        for name in self.save_best:
            if name not in ('auto', *names) and 'recall/' not in name:
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={name!r} is no metric of the validation, '
                    f'which gives {", ".join(names)}.'
                )

    def _remove_parts(self, runner: Runner) -> None:
        folder = escape(str(self.out_dir))
        found = glob(osp.join(folder, f'*.pth.*{PART_SUFFIX}'))
        note = osp.join(escape(runner.work_dir), f'last_checkpoint.*{PART_SUFFIX}')
        for path in (*found, *glob(note)):
            os.remove(path)
            runner.logger.info(f'Removed {path}, which an earlier run left half written.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put in what the model has seen, and what was completed.

        ``FlexibleRunner`` counts from the moment of saving.
        """
        checkpoint['meta'].update({**self._meta, 'trained_on': trained_on(runner.cfg)})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, oldest))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save(runner, self.filename_tmpl.format(step), meta)

    def _save(self, runner: Runner, name: str, meta: dict, outdated: tuple = ()) -> None:
        """Save, note the name, then remove what the new file replaces.

        Args:
            runner (Runner): Of the training.
            name (str): Of the file.
            meta (dict): ``epoch`` and ``iter`` that were completed.
            outdated (tuple[str]): Names of further files that the one after this replaces.
        """
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub = runner.message_hub
        hub.update_info('last_ckpt', self.last_ckpt)
        replaced = [osp.basename(path) for path in self._outdated()]
        hub.update_info('outdated_ckpts', [*replaced, *outdated])
        self._meta = dict(meta)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
            )
        finally:
            self._meta = {}
        if is_main_process():
            atomic_write(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        self.file_backend.remove_now(self._outdated())
        self.saved_iter = meta['iter']

    def _outdated(self) -> list[str]:
        """What may be removed; a best checkpoint may have replaced one of its own name."""
        best = [getattr(self, 'best_ckpt_path', None)]
        best += getattr(self, 'best_ckpt_path_dict', {}).values()
        return [path for path in self.file_backend.later if path not in (self.last_ckpt, *best)]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self._meta = dict(epoch=runner.epoch, iter=runner.iter)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self._meta = {}
        self.file_backend.remove_now(self._outdated())

    def save_now(self, runner: Runner) -> str:
        """Save after a training step, whatever the interval, unless this step is saved already.

        The checkpoint ``iter_<n>.pth`` of an epoch that is not finished does not count in
        ``max_keep_ckpts``; the first one after the training was resumed replaces it.

        Args:
            runner (Runner): Of a training, in ``after_train_iter``.

        Returns:
            str: The file.
        """
        done = runner.iter + 1
        if self.saved_iter != done:
            if self.by_epoch:
                name = f'iter_{done}.pth'
                meta = dict(epoch=runner.epoch, iter=done)
                self._save(runner, name, meta, outdated=(name,))
            else:
                self._save_checkpoint(runner)
        return self.last_ckpt


class _RemovesLater:
    """A file backend of mmengine that removes files when it is told that it is time.

    Args:
        backend (BaseStorageBackend): The backend.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.later: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remember a file, or a folder."""
        if path not in self.later:
            self.later.append(path)

    rmtree = remove

    def remove_now(self, paths: list[str]) -> None:
        """Forget what was remembered, and remove these paths, in the main process."""
        self.later = []
        if not is_main_process():
            return
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                if self._backend.isfile(path):
                    self._backend.remove(path)
