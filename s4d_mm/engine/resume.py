# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before a training: which checkpoint it goes on from, or that the folder is free for it."""

from mmengine.config import Config

from ..files.last_checkpoint import ResumeError, checkpoints_in, find_checkpoint


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
