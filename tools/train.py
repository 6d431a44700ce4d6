# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train a model: masked pre-training or fine-tuning, as the config says.

python tools/train.py configs/quickstart/s4d_quickstart_pretrain.py
"""

import argparse
import ctypes
import os
import signal
import sys

from mmengine.config import Config
from run_arguments import parse_run_arguments


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    add = parser.add_argument
    add('config', help='train config file path')
    add('--resume', nargs='?', const='auto', help='checkpoint; without a path the latest one')
    add('--amp', action='store_true', help='train in mixed precision')
    add('--no-validate', action='store_true', help='do not validate during training')
    add('--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    add('--seed', type=int, help='random seed')
    add('--diff-rank-seed', action='store_true', help='another seed for each process')
    add('--deterministic', action='store_true', help='use only deterministic algorithms of CUDNN')
    return parse_run_arguments(parser, argv, 'resume')


def end_with_torchrun() -> None:
    """End this process when the torchrun that started it has ended, however it did (Linux)."""
    if not sys.platform.startswith('linux') or 'TORCHELASTIC_RUN_ID' not in os.environ:
        return
    parent, set_parent_death_signal = os.getppid(), 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended in between
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    end_with_torchrun()
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.engine.checkpoint import ResumeError, alone_in, prepare_training
from s4d_mm.engine.checks import require_batches
from s4d_mm.engine.launch import (
    build_runner,
    errors_as_messages,
    finish_distributed,
    load_run_config,
    scale_learning_rate,
)
from s4d_mm.engine.options import ConfigError


def make_config(args: argparse.Namespace) -> Config:
    """The config of the training that the arguments ask for, for :func:`build_runner`."""
    cfg = load_run_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.amp:
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper', 'CpuFallbackAmpOptimWrapper'):
            raise ConfigError(
                f'--amp is not supported with the optimizer wrapper {wrapper} of {cfg.filename}'
            )
        cfg.optim_wrapper.type = 'CpuFallbackAmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    given = dict(
        seed=args.seed,
        diff_rank_seed=args.diff_rank_seed or None,
        deterministic=args.deterministic or None,
    )
    given = {name: value for name, value in given.items() if value is not None}
    cfg.randomness = {**(cfg.get('randomness') or dict(seed=None)), **given}
    return cfg


def main(argv: list | None = None) -> None:
    args = parse_args(argv)
    with errors_as_messages(config=True):
        cfg = make_config(args)
    try:
        with alone_in(cfg):
            prepare_training(cfg)
            with errors_as_messages(cfg.work_dir, config=True):
                runner = build_runner(cfg)
                require_batches(runner.train_loop.dataloader, 'train_dataloader')
            with errors_as_messages(cfg.work_dir):
                runner.train()
            finish_distributed()
    except ResumeError as e:
        print(e, file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
