# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, before it starts: how many processes run, and how they talk."""
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner


def prepare_distributed(cfg: Config) -> None:
    """Choose the distributed backend: NCCL with GPUs (or what the config
    names), gloo without.

    mmengine itself needs a GPU for each process: its ``init_dist`` sets a CUDA
    device and its runner passes one to DDP. Without GPUs the process group is
    started here, and ``model_wrapper_cfg`` says that there are no devices.

    Args:
        cfg (Config): Config of the run with its ``launcher``. Changed in
            place.

    Raises:
        RuntimeError: If the launcher cannot be used without GPUs.
    """
    if cfg.launcher == 'none':
        return
    dist_cfg = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    if get_device() != 'cpu':
        dist_cfg.setdefault('backend', 'nccl')
        return
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'--launcher {cfg.launcher} needs GPUs and there are none; '
            'without GPUs use --launcher pytorch (tools/dist_train.sh)')
    dist_cfg['backend'] = 'gloo'
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def log_distributed(runner: Runner) -> None:
    """Say in the log what was chosen."""
    backend = dist.get_backend() if dist.is_initialized() else 'none'
    runner.logger.info(f'Launcher {runner.launcher}: '
                       f'world size {runner.world_size}, backend {backend}, '
                       f'device {get_device()}.')
