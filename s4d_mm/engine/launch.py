# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The commands around a runner: its config, its processes, its terminal and its errors."""

import contextlib
import datetime
import math
import os
import os.path as osp
import re
import sys
from argparse import Namespace
from collections.abc import Iterator

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..files.atomic_write import DISK_FULL, FileNotWrittenError, free_space
from ..files.errors import weights_errors_as_messages
from .options import ConfigError, load_config
from .stop import HANG_TIMEOUT

# messages of mmengine about itself, which only the log file gets
OF_TOOLBOX = re.compile(
    r'\n-+\nSystem environment|Config:\n|Distributed training is not used|Hooks will be executed|'
    r'Checkpoints will be saved|Exp name: |"FileClient" will be|"HardDiskBackend" is the alias'
)


class TerseRunner(Runner):
    """mmengine's runner, with a terminal on which its log is short; the log file has all of it."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, whose first handler is the terminal's."""
        logger = super().build_logger(*args, **kwargs)
        logger.handlers[0].addFilter(lambda record: not OF_TOOLBOX.match(record.getMessage()))
        return logger


def load_run_config(args: Namespace) -> Config:
    """The config that the arguments of ``tools/run_arguments.py`` ask for."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options, also=())
    cfg.launcher = args.launcher
    stem = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('./work_dirs', stem)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Start the process group and build the runner of a config, or that of ``runner_type``."""
    prepare_distributed(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else TerseRunner.from_cfg(cfg)


def prepare_distributed(cfg: Config) -> None:
    """Choose the distributed backend: NCCL with GPUs (or what the config names), gloo without.

    mmengine itself needs a GPU for each process, so without GPUs the process group is started
    here, and ``model_wrapper_cfg`` says that there are no devices. A process waits for the others
    as long as ``HangHook`` waits for a step, or ``env_cfg.dist_cfg.timeout`` seconds.
    """
    if cfg.launcher == 'none':
        return
    cfg.setdefault('env_cfg', {})  # a config keeps a copy of what it is given
    cfg.env_cfg.setdefault('dist_cfg', {})
    dist_cfg = cfg.env_cfg.dist_cfg
    hook = (cfg.get('default_hooks') or {}).get('hang') or dict(timeout=0)
    seconds = dist_cfg.get('timeout') or hook.get('timeout', HANG_TIMEOUT)
    if get_device() != 'cpu':
        dist_cfg.setdefault('backend', 'nccl')
        if seconds:
            dist_cfg['timeout'] = seconds
        return
    if cfg.launcher != 'pytorch':
        raise ConfigError(f'--launcher {cfg.launcher} needs GPUs. Use --launcher pytorch.')
    dist_cfg['backend'] = 'gloo'
    if not dist.is_initialized():
        timeout = datetime.timedelta(seconds=seconds) if seconds else None
        dist.init_process_group('gloo', timeout=timeout)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def scale_learning_rate(cfg: Config) -> None:
    """Do what ``--auto-scale-lr`` asks for.

    With a ``total_batch_size`` the learning rate is scaled here by that size over
    ``auto_scale_lr.base_batch_size``, whatever the number of processes. Otherwise mmengine does
    it, by ``train_dataloader.batch_size`` of all processes.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if base is None:
        raise ConfigError(f'--auto-scale-lr: {cfg.filename} has no "auto_scale_lr.base_batch_size"')
    batches = cfg.train_dataloader.get('batch_sampler') or {}
    total, sizes = batches.get('total_batch_size'), batches.get('batch_size')
    cfg.auto_scale_lr.enable = total is None  # mmengine's, which reads train_dataloader.batch_size
    if total is None:
        one = cfg.train_dataloader.get('batch_size')
        if isinstance(sizes, dict) and one not in sizes.values():
            raise ConfigError(f'--auto-scale-lr: train_dataloader.batch_size={one} not in {sizes}.')
        return
    totals, bases = (s if isinstance(s, dict) else dict(samples=s) for s in (total, base))
    ratios = {size / bases.get(name, math.nan) for name, size in totals.items()}
    if set(totals) != set(bases) or len(ratios) != 1:
        raise ConfigError(
            f'--auto-scale-lr: train_dataloader.batch_sampler.total_batch_size={total} must be '
            f'auto_scale_lr.base_batch_size={base} times one factor for all modalities.'
        )
    cfg.optim_wrapper.optimizer.lr *= ratios.pop()


@contextlib.contextmanager
def errors_as_messages(work_dir: str | None = None, config: bool = False) -> Iterator[None]:
    """End a command with one sentence where its input is at fault.

    With the environment variable ``S4D_MM_TRACEBACK=1`` errors stay as they are.

    Args:
        work_dir (str, optional): Folder of the run, whose free space is named if a disk is full.
        config (bool): Whether any error of value, key, type or file is the config's.

    Raises:
        SystemExit: With code 2 for errors of the config, 1 for those of weights, numbers and disk.
    """
    of_config = (ValueError, KeyError, TypeError, OSError) if config else (ConfigError,)
    if os.environ.get('S4D_MM_TRACEBACK'):
        yield
        return
    try:
        with weights_errors_as_messages():
            yield
    except FileNotWrittenError as e:
        sys.exit(f'{e} Make room, then go on with --resume.')
    except (*of_config, OSError) as e:
        if isinstance(e, OSError) and e.errno in DISK_FULL and work_dir:
            file, room = e.filename or 'A file of the log', free_space(work_dir)
            sys.exit(f'{file}: {e.strerror}. {room} Make room, then go on with --resume.')
        if not isinstance(e, of_config):
            raise
        text = e.args[0] if isinstance(e, KeyError) and e.args else e
        print(f'{osp.basename(sys.argv[0])}: {text}', file=sys.stderr)
        sys.exit(2)


def finish_distributed() -> None:
    """Wait for the other processes and close the process group.

    Left open, gloo's threads can end a process with an abort after its work is done.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
