# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: a short table of what was chosen."""

from collections.abc import Iterable

import torch
import torch.distributed as torch_dist
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ...version import __version__


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Log devices, processes, optimizer, parameters and data, once, at the start of a run."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Log the table for training."""
        rows = common_rows(runner)
        wrapper = runner.optim_wrapper
        optimizer = getattr(wrapper, 'optimizer', None)
        if optimizer is not None:
            rates = [g['lr'] for g in optimizer.param_groups]
            rows['optimizer'] = (
                f'{type(optimizer).__name__} in {type(wrapper).__name__}, '
                f'{len(rates)} groups, learning rate {min(rates):.3g} .. '
                f'{max(rates):.3g} at the start'
            )
            rows['precision'] = precision(wrapper)
        rows['train data'] = describe_data(runner.train_dataloader)
        rows['seed'] = f'{runner.seed}'
        rows['length'] = f'{runner.max_epochs} epochs, {runner.max_iters} iterations'
        epoch = describe_epoch(runner.train_dataloader)
        if epoch:
            rows['an epoch'] = epoch
        log_table(runner, rows)

    def before_test(self, runner: Runner) -> None:
        """Log the table for testing."""
        rows = common_rows(runner)
        rows['test data'] = describe_data(runner.test_dataloader)
        log_table(runner, rows)


def common_rows(runner: Runner) -> dict[str, str]:
    """The rows that training and testing share: software, devices and model.

    Args:
        runner (Runner): The runner, with its model built.

    Returns:
        dict[str, str]: Text for each name.
    """
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    params = list(model.parameters())
    device = params[0].device
    if device.type == 'cuda':
        device_name = torch.cuda.get_device_name(device)
    else:
        device_name = f'{torch.get_num_threads()} threads'
    if torch_dist.is_initialized():
        backend = f'{torch_dist.get_backend()} backend'
    else:
        backend = 'not distributed'
    total = count_millions(params)
    trained = count_millions(p for p in params if p.requires_grad)
    parts = ', '.join(
        f'{name} {count_millions(part.parameters())}'
        for name, part in model.named_children()
        if any(True for _ in part.parameters())
    )
    return {
        's4d_mm': f'{__version__}, torch {torch.__version__}',
        'device': f'{device.type} ({device_name})',
        'processes': f'{runner.world_size}, {backend}',
        'work dir': runner.work_dir,
        'log file': f'{runner.logger.log_file}, which also has what is not shown here',
        'model': f'{type(model).__name__}, {total} parameters ({trained} trained): {parts}',
    }


def precision(wrapper: OptimWrapper) -> str:
    """In which type the step is computed, and whether the loss is scaled."""
    if not isinstance(wrapper, AmpOptimWrapper):
        return 'float32'
    dtype = wrapper.cast_dtype or torch.get_autocast_dtype(get_device())
    if dtype == torch.float32:
        return 'float32'
    scaled = 'with' if wrapper.loss_scaler.is_enabled() else 'without'
    return f'{str(dtype).split(".")[-1]} where torch allows it, {scaled} a loss scale'


def describe_data(dataloader: DataLoader) -> str:
    """Type and size of the dataset of a data loader, and its batches."""
    dataset = dataloader.dataset
    sampler = dataloader.batch_sampler
    size = getattr(sampler, 'batch_size', dataloader.batch_size)
    return (
        f'{type(dataset).__name__}, {len(dataset)} samples, '
        f'{len(dataloader)} batches of {size} per process'
    )


def describe_epoch(dataloader: DataLoader) -> str:
    """Optimizer steps of each modality in an epoch; '' for samplers of other packages."""
    steps = getattr(dataloader.batch_sampler, 'steps', None) or {}
    each = ', '.join(f'{count} of {name}s' for name, count in steps.items())
    return f'{sum(steps.values())} steps: {each}' if steps else ''


def log_table(runner: Runner, rows: dict[str, str]) -> None:
    """Write the rows into the log, names and texts in a column each."""
    width = max(map(len, rows))
    table = '\n'.join(f'  {name:<{width}}  {text}' for name, text in rows.items())
    runner.logger.info(f'Run summary\n{table}')


def count_millions(params: Iterable[torch.nn.Parameter]) -> str:
    """How many numbers parameters have, in millions."""
    return f'{sum(p.numel() for p in params) / 1e6:.2f}M'
