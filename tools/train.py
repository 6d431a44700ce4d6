# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train a model: masked pre-training or fine-tuning, as the config says.

python tools/train.py configs/quickstart/s4d_quickstart_pretrain.py
"""

import argparse
import ctypes
import os
import os.path as osp
import signal
import sys

from mmengine.config import Config
from run_arguments import add_run_arguments


def parse_args(argv: list | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='train config file path')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='checkpoint to resume from; without a path the latest one in the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate checkpoints during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument('--seed', type=int, help='random seed')
    parser.add_argument(
        '--diff-rank-seed',
        action='store_true',
        help='another seed for each process, as the configs have it by default',
    )
    parser.add_argument(
        '--deterministic', action='store_true', help='use only deterministic algorithms of CUDNN'
    )
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    from s4d_mm.files.download import may_exist

    if args.resume not in (None, 'auto') and not may_exist(args.resume):
        parser.error(f'--resume: checkpoint {args.resume} does not exist')
    return args


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
from s4d_mm.engine.hooks.data_check_hook import require_batches
from s4d_mm.engine.launch import (
    build_runner,
    finish_distributed,
    load_run_config,
    run_faults_as_messages,
    scale_learning_rate,
)
from s4d_mm.engine.messages import config_errors_as_messages
from s4d_mm.engine.resume import ResumeError, alone_in, prepare_training
from s4d_mm.files.errors import weights_errors_as_messages


def make_config(args: argparse.Namespace) -> Config:
    """The config of the training that the arguments ask for.

    Args:
        args (argparse.Namespace): Of :func:`parse_args`.

    Returns:
        Config: For :func:`build_runner`.

    Raises:
        KeyError: If the config does not say how the learning rate scales.
        ValueError: If an option does not fit the config.
    """
    cfg = load_run_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.amp:
        use_mixed_precision(cfg)
    if args.auto_scale_lr:
        if cfg.get('auto_scale_lr') is None:
            raise KeyError(
                f'--auto-scale-lr: {args.config} has no "auto_scale_lr = dict(base_batch_size=...)"'
            )
        scale_learning_rate(cfg)
    randomness = dict(cfg.get('randomness') or dict(seed=None))
    given = dict(
        seed=args.seed,
        diff_rank_seed=args.diff_rank_seed or None,
        deterministic=args.deterministic or None,
    )
    randomness.update((name, value) for name, value in given.items() if value is not None)
    cfg.randomness = randomness
    return cfg


def use_mixed_precision(cfg: Config) -> None:
    """Make the optimizer wrapper of a config that of mixed precision.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: If the optimizer wrapper is a special one.
    """
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper', 'CpuFallbackAmpOptimWrapper'):
        raise ValueError(
            f'--amp is not supported with the optimizer wrapper {wrapper} of {cfg.filename}'
        )
    cfg.optim_wrapper.type = 'CpuFallbackAmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def main(argv: list | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    with config_errors_as_messages():
        cfg = make_config(args)
    try:
        with alone_in(cfg):
            prepare_training(cfg)
            train(cfg)
    except ResumeError as e:
        print(e, file=sys.stderr)
        sys.exit(2)


def train(cfg: Config) -> None:
    """Train as a config says."""
    with config_errors_as_messages(), weights_errors_as_messages():
        runner = build_runner(cfg)
        require_batches(runner.train_loop.dataloader, 'train_dataloader')
        with run_faults_as_messages(cfg.work_dir):
            runner.train()
    finish_distributed()


if __name__ == '__main__':
    main()
