# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Trainings that are killed and resumed, and what must not differ afterwards."""

import glob
import json
import multiprocessing
import os
import os.path as osp
import signal

import matplotlib.figure  # noqa: F401  here, and not again in each fork
import mmaction.visualization  # noqa: F401
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.hooks import Hook

from s4d_mm.engine.launch import build_runner

STAGES = ('pretrain', 'finetune')
# of a step, not of what is trained
CLOCKS = ('time', 'memory')
# of the message hub
KNOWLEDGE = ('best_score', 'best_validation', 'epoch_begin', 'keep_ckpt_ids', 'validated_iter')


class KillHook(Hook):
    """End this process by SIGKILL, as the kernel does when memory runs out.

    Args:
        stage (str): Where: a method of a hook, such as 'after_train_iter'.
        count (int): At which call, from 1.
    """

    priority = 'LOWEST'

    def __init__(self, stage: str, count: int) -> None:
        self.left = count
        setattr(self, stage, self.tick)

    def tick(self, *args, **kwargs) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def small_config(stage: str, work_dir: str, workers: int = 0, **options) -> Config:
    """The quickstart's pre-training or fine-tuning: two epochs of five or six steps.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        work_dir (str): Folder of the run.
        workers (int): Of the training data. Defaults to 0.
        **options: More of the config, with ``__`` for dots.

    Returns:
        Config: The config.
    """
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'quickstart', f's4d_quickstart_{stage}.py'))
    train = dict(
        num_workers=workers,
        persistent_workers=workers > 0,
        batch_sampler=dict(batch_size=dict(video=5, image=7)),
    )
    changes = dict(
        work_dir=str(work_dir),
        train_dataloader=train,
        train_cfg=dict(max_epochs=2),
        default_hooks=dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1)),
        visualizer=None,
        launcher='none',
    )
    cfg.merge_from_dict(changes)
    if stage == 'finetune':
        test = dict(num_workers=0, persistent_workers=False)
        cfg.merge_from_dict(
            dict(
                train_cfg=dict(val_interval=1),
                val_dataloader=test,
                test_dataloader=test,
                default_hooks=dict(checkpoint=dict(save_best='video/WAR', rule='greater')),
            )
        )
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def train(cfg: Config, kill: tuple[str, int] | None = None) -> int:
    """Train in a process of its own, a fork of this one.

    Args:
        cfg (Config): The config.
        kill (tuple[str, int], optional): Of :class:`KillHook`. Defaults to None.

    Returns:
        int: Exit code.
    """
    return in_fork(run, cfg, kill)


def in_fork(function, *args) -> int:
    """Call a function in a fork of this process.

    Returns:
        int: Exit code.
    """
    process = multiprocessing.get_context('fork').Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


def run(cfg: Config, kill: tuple[str, int] | None = None) -> None:
    """Train in this process."""
    torch.set_num_threads(1)
    runner = build_runner(cfg)
    if kill:
        runner.register_hook(KillHook(*kill))
    runner.train()


def resumed(cfg: Config) -> Config:
    """The same training, to be resumed."""
    cfg = Config(cfg.to_dict())
    cfg.resume = True
    return cfg


def final_state(work_dir: str) -> dict:
    """All that a training leaves and that must be the same after an interruption.

    Args:
        work_dir (str): Folder of the run.

    Returns:
        dict: Weights, optimizer, schedulers and what the last checkpoint's message hub knows; and
        ``summary.json``.
    """
    with open(osp.join(work_dir, 'last_checkpoint')) as f:
        checkpoint = torch.load(f.read(), weights_only=True)
    hub, meta = checkpoint.pop('message_hub'), checkpoint.pop('meta')
    found = dict(checkpoint)
    found['meta'] = {k: meta[k] for k in ('epoch', 'iter', 'seed')}
    found['scalars'] = {
        name: buffer.data[0].tolist()
        for name, buffer in hub['log_scalars'].items()
        if not name.endswith(CLOCKS)
    }
    found['info'] = {
        name: value
        for name, value in hub['runtime_info'].items()
        if name
        in ('best_score', 'best_validation', 'epoch_begin', 'keep_ckpt_ids', 'validated_iter')
    }
    for path in glob.glob(osp.join(work_dir, 'summary.json')):
        with open(path) as f:
            found['summary'] = json.load(f)
    found['files'] = sorted(osp.basename(p) for p in glob.glob(osp.join(work_dir, '*.pth')))
    return found


def differences(one, two, name: str = '') -> list[str]:
    """Names of the parts that are not equal bit by bit.

    Args:
        one (object): Nested dicts, lists and tensors.
        two (object): Others.
        name (str): Of the whole. Defaults to ''.

    Returns:
        list[str]: E.g. ``['.optimizer.state.0.exp_avg']``.
    """
    if isinstance(one, torch.Tensor):
        same = isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
        return [] if same else [name]
    if type(one) is not type(two):
        return [name]
    if isinstance(one, dict):
        if list(map(str, one)) != list(map(str, two)) and set(one) != set(two):
            return [f'{name}: {set(one) ^ set(two)}']
        return [d for key in one for d in differences(one[key], two[key], f'{name}.{key}')]
    if isinstance(one, (list, tuple)):
        if len(one) != len(two):
            return [f'{name}: {len(one)} and {len(two)}']
        return [
            d for i, (a, b) in enumerate(zip(one, two)) for d in differences(a, b, f'{name}.{i}')
        ]
    return [] if one == two else [f'{name}: {one!r} and {two!r}']
