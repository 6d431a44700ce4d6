# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before a training: which checkpoint it goes on from, and that the folder is free for it."""

import contextlib
import os
import os.path as osp
from collections.abc import Iterator

from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.logging import print_log

from ..files.last_checkpoint import ResumeError, checkpoints_in, find_checkpoint

LOCK = '.training.lock'
PATIENCE = 10  # seconds in which what is left of a killed training ends
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@contextlib.contextmanager
def alone_in(cfg: Config) -> Iterator[None]:
    """Within the block, no other training may run in the work folder.

    The first process holds a lock on a file there, which ends with the process.

    Args:
        cfg (Config): Config of the run with its ``work_dir`` and ``launcher``.

    Raises:
        ResumeError: If another training holds it.
    """
    if os.environ.get(RANKS.get(cfg.launcher, ''), '0') != '0':
        yield
        return
    lock = FileLock(osp.join(cfg.work_dir, LOCK))
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ResumeError(
            f'Another training is running in {cfg.work_dir}. Wait for its end, or give another '
            f'--work-dir. The command "fuser {lock.lock_file}" finds its process.'
        ) from None
    except OSError as e:  # a folder that cannot be written is said by what writes there
        print_log(f'Nothing keeps other trainings out of {cfg.work_dir}: {e}', 'current', 30)
    try:
        yield
    finally:
        lock.release()


def prepare_training(cfg: Config) -> None:
    """Choose the checkpoint of a training that is resumed, or make sure that its folder is free.

    Args:
        cfg (Config): Config of the run with its ``work_dir``. ``load_from`` becomes the
            checkpoint that ``resume`` asks for.

    Raises:
        ResumeError: If there is no checkpoint to resume from; or if the folder of a new training
            holds those of another.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    work_dir, out_dir = cfg.work_dir, hook.get('out_dir')
    if not cfg.get('resume'):
        found = checkpoints_in(work_dir)
        if found:
            raise ResumeError(
                f'{work_dir} holds the checkpoints of a training (such as {found[-1]}). Give '
                '--resume to go on with it, or another --work-dir, or remove them.'
            )
    elif cfg.get('load_from') is None:
        cfg.load_from = find_checkpoint(work_dir, out_dir)
        if cfg.load_from is None:
            raise ResumeError(
                f'--resume: there is no checkpoint in {work_dir}. Check --work-dir, name the file '
                '(--resume FILE), or leave --resume out to begin a training.'
            )
