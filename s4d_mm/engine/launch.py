# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How a run starts: which fold, how many processes, and how they talk."""

import re
from typing import Optional

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def build_runner(cfg: Config) -> Runner:
    """Start the processes' talk and build the runner of a config.

    Args:
        cfg (Config): Config of the run with its ``launcher`` and
            ``work_dir``. ``runner_type`` names a runner of one's own.

    Returns:
        Runner: Ready to train or test.
    """
    prepare_distributed(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    log_distributed(runner)
    return runner


def prepare_distributed(cfg: Config) -> None:
    """Choose the distributed backend.

    It is NCCL with GPUs (or what the config names), gloo without.

    mmengine itself needs a GPU for each process: its ``init_dist`` sets a CUDA
    device and its runner passes one to DDP. Without GPUs the process group is
    started here, and ``model_wrapper_cfg`` says that there are no devices.

    Args:
        cfg (Config): Config of the run with its ``launcher``. Changed in
            place.

    Raises:
        RuntimeError: If the launcher cannot be used without GPUs.
        ValueError: If the strategy cannot be used as it is asked for.
    """
    prepare_strategy(cfg)
    if cfg.launcher == 'none':
        return
    dist_cfg = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    if get_device() != 'cpu':
        dist_cfg.setdefault('backend', 'nccl')
        return
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'--launcher {cfg.launcher} needs GPUs and there are none; '
            'without GPUs use --launcher pytorch (tools/dist_train.sh)'
        )
    dist_cfg['backend'] = 'gloo'
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def prepare_strategy(cfg: Config) -> None:
    """Give the FSDP strategy what only the whole config says.

    This is the batch size for ``auto_scale_lr``.

    Args:
        cfg (Config): Config of a training. ``strategy`` is changed in place.

    Raises:
        ValueError: If there is no process group for it, or another strategy cannot do what
            is asked for.
    """
    strategy = cfg.get('strategy') or {}
    name = strategy.get('type')
    if name == 'S4DFSDPStrategy':
        if cfg.launcher == 'none':
            raise ValueError(
                f'strategy {name} needs a launcher, also for one process: '
                'tools/dist_train.sh CONFIG NUMBER_OF_PROCESSES.'
            )
        strategy.setdefault('batch_size', cfg.train_dataloader.batch_size)
    elif 'runner_type' in cfg and (cfg.get('auto_scale_lr') or {}).get('enable'):
        raise ValueError(
            f'auto_scale_lr does not work with {cfg.runner_type} and strategy {name}, because '
            'the batch sampler has a batch size for each modality. Use the ordinary Runner or '
            'S4DFSDPStrategy.'
        )


def log_distributed(runner: Runner) -> None:
    """Say in the log what was chosen."""
    backend = dist.get_backend() if dist.is_initialized() else 'none'
    launcher = runner.cfg.get('launcher')  # FlexibleRunner has no attribute
    runner.logger.info(
        f'Launcher {launcher}: '
        f'world size {runner.world_size}, backend {backend}, '
        f'device {get_device()}.'
    )


def apply_fold(cfg: Config, options: Optional[dict]) -> None:
    """Make ``--cfg-options fold=N`` choose the annotation files of a fold.

    A variable of a config file is only read when the file is, so the option
    alone would change nothing.

    Args:
        cfg (Config): Config of the run. ``set_<number>_`` in the ``ann_file``
            of all datasets is changed in place.
        options (dict, optional): Parsed ``--cfg-options``.

    Raises:
        ValueError: If the option is there, but no annotation file has a fold.
    """
    if not options or 'fold' not in options:
        return
    fold, changed = options['fold'], 0

    def visit(node) -> None:
        nonlocal changed
        if isinstance(node, dict):
            name = node.get('ann_file')
            if isinstance(name, str):
                node['ann_file'], count = re.subn(r'\bset_\d+_', f'set_{fold}_', name)
                changed += count
            for value in node.values():
                visit(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                visit(value)

    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        visit(cfg.get(key))
    if not changed:
        raise ValueError(
            f'--cfg-options fold={fold}: no ann_file of {cfg.filename} is '
            'named by a fold (set_<number>_...), so there is nothing to '
            'choose. Leave the option out.'
        )


def check_batch_size(cfg: Config) -> None:
    """Make sure that ``--auto-scale-lr`` reads the batch size that is used.

    mmengine reads ``train_dataloader.batch_size``; the batch sampler has one
    for each modality.

    Raises:
        ValueError: If it is none of them.
    """
    loader = cfg.train_dataloader
    sizes = (loader.get('batch_sampler') or {}).get('batch_size')
    if isinstance(sizes, dict) and loader.batch_size not in sizes.values():
        raise ValueError(
            f'--auto-scale-lr reads train_dataloader.batch_size='
            f'{loader.batch_size}, which is none of train_dataloader.'
            f'batch_sampler.batch_size={dict(sizes)}. Set it to the one that '
            'auto_scale_lr.base_batch_size counts.'
        )


def finish_distributed() -> None:
    """Wait for the other processes and close the process group.

    Left open, gloo's threads can end a process with an abort after its work
    is done, and torchrun then reports a failure.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
