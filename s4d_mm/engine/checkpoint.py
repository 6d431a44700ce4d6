# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoints of a training: saved so that a kill leaves one to resume from, and chosen again."""

import contextlib
import json
import os
import os.path as osp
from collections.abc import Iterator
from glob import escape, glob

from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..datasets.config import trained_on
from ..files.atomic_write import PART_SUFFIX, atomic_write
from ..files.last_checkpoint import ResumeError, checkpoints_in, find_checkpoint, is_plain_name

LOCK = '.training.lock'
PATIENCE = 10  # seconds in which what is left of a killed training ends
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
MISSING = '(not set)'
# settings that do not change the results of a training
HARMLESS = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', '_scope_')
OUTDATED = 'outdated_ckpts'  # in the message hub: names of files that the newest replaces


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` (0.10.7) for a run that may be killed at any moment.

    - An older checkpoint is removed after the newer one is whole and ``last_checkpoint`` names it,
      not before it is written. One whose removal a kill prevented is removed by the run that
      resumes. A single ``save_best`` is replaced in the same order.
    - What a killed run left half written is removed at the start of the next one.
    - :meth:`save_now` saves in the middle of an epoch.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.saved_iter: int | None = None
        if self.args:  # mmengine would hand it to save_checkpoint, which knows no other
            raise ValueError(f'default_hooks.checkpoint has no argument {next(iter(self.args))!r}.')

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and remove what an earlier run left half written."""
        super().before_train(runner)
        hub = runner.message_hub
        outdated = hub.get_info(OUTDATED) or []
        hub.update_info(OUTDATED, [name for name in outdated if is_plain_name(name)])
        # a validation that was the best one saves the last checkpoint again
        self.last_ckpt = self.last_ckpt or hub.get_info('last_ckpt')
        if is_main_process():
            for path in glob(osp.join(escape(str(self.out_dir)), f'*.pth.*{PART_SUFFIX}')):
                os.remove(path)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put in what the model has seen, and the config as plain values."""
        settings = settings_of(runner.cfg)
        checkpoint['meta'].update(trained_on=trained_on(runner.cfg), settings=settings)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids[0])
                hub.update_info(OUTDATED, [*(hub.get_info(OUTDATED) or []), oldest])
            self.keep_ckpt_ids.append(step)  # and forget the oldest
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save(runner, self.filename_tmpl.format(step), meta)

    def _save(self, runner: Runner, name: str, meta: dict) -> None:
        """Save, note the name, then remove what the new file replaces."""
        hub = runner.message_hub
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        if is_main_process():
            atomic_write(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
            for outdated in set(hub.get_info(OUTDATED) or []) - {name}:
                self._remove(self.file_backend.join_path(self.out_dir, outdated))
        hub.update_info(OUTDATED, [])
        self.saved_iter = meta['iter']

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        old = getattr(self, 'best_ckpt_path', None)
        self.best_ckpt_path = None  # mmengine would remove it before the better one is written
        super()._save_best_checkpoint(runner, metrics)
        if self.best_ckpt_path is None:
            self.best_ckpt_path = old
        elif old not in (None, self.best_ckpt_path) and is_main_process():
            self._remove(old)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)

    def save_now(self, runner: Runner) -> None:
        """Save after a training step, in ``after_train_iter``, unless this step is saved already.

        The checkpoint ``iter_<n>.pth`` of an epoch that is not finished does not count in
        ``max_keep_ckpts``; the first one after the training was resumed replaces it.
        """
        done = runner.iter + 1
        if self.saved_iter == done:
            return
        if not self.by_epoch:
            self._save_checkpoint(runner)
            return
        hub, name = runner.message_hub, f'iter_{done}.pth'
        hub.update_info(OUTDATED, [*(hub.get_info(OUTDATED) or []), name])
        self._save(runner, name, dict(epoch=runner.epoch, iter=done))


@contextlib.contextmanager
def alone_in(cfg: Config) -> Iterator[None]:
    """Within the block, no other training may run in the work folder.

    The first process holds a lock on a file there, which ends with the process.
    """
    if os.environ.get(RANKS.get(cfg.launcher, ''), '0') != '0':
        yield
        return
    os.makedirs(cfg.work_dir, exist_ok=True)
    lock = osp.join(cfg.work_dir, LOCK)
    try:
        with FileLock(lock, timeout=PATIENCE):
            yield
    except Timeout:
        raise ResumeError(
            f'Another training is running in {cfg.work_dir}. Wait for its end, or give another '
            f'--work-dir. "fuser {lock}" finds its process.'
        ) from None


def prepare_training(cfg: Config) -> None:
    """Choose the checkpoint that ``resume`` asks for, or make sure that the folder is free.

    Raises:
        ResumeError: If there is no checkpoint to resume from; or if the folder of a new training
            holds those of another.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not cfg.get('resume'):
        found = checkpoints_in(cfg.work_dir)
        if found:
            raise ResumeError(
                f'{cfg.work_dir} holds the checkpoints of a training (such as {found[-1]}). Give '
                '--resume to continue it, or another --work-dir, or remove them.'
            )
    elif cfg.get('load_from') is None:
        cfg.load_from = find_checkpoint(cfg.work_dir, hook.get('out_dir'))
        if cfg.load_from is None:
            raise ResumeError(f'--resume: no checkpoint in {cfg.work_dir}. Check --work-dir.')


def settings_of(cfg: Config) -> dict:
    """A config as plain values, as a checkpoint holds them in ``meta.settings``."""
    return json.loads(json.dumps(cfg.to_dict(), default=str))


def changed_settings(before: object, now: object, key: str = '') -> list[str]:
    """Where two parts of a config differ, each as ``model.depth is 4, was 6``.

    What does not change results is left out.
    """
    old, new = dict(_flat(before, key)), dict(_flat(now, key))
    return [
        f'{name} is {new.get(name, MISSING)!r}, was {old.get(name, MISSING)!r}'
        for name in {**old, **new}
        if old.get(name, MISSING) != new.get(name, MISSING) and name.split('.')[-1] not in HARMLESS
    ]


def _flat(node: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, (dict, list, tuple)) and node:
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _flat(value, f'{key}.{name}' if key else str(name))
    else:
        yield key, node
