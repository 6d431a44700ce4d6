# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: a short table of what was chosen."""

from collections.abc import Iterable

import torch
import torch.distributed as torch_dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import s4d_mm


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Log devices, processes, optimizer, parameters and data, once, at the
    start of a run.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Log the table for training."""
        rows = self._common(runner)
        wrapper = runner.optim_wrapper
        optimizer = getattr(wrapper, 'optimizer', None)
        if optimizer is not None:
            rates = [g['lr'] for g in optimizer.param_groups]
            rows['optimizer'] = (
                f'{type(optimizer).__name__} in {type(wrapper).__name__}, '
                f'{len(rates)} groups, learning rate {min(rates):.3g} .. '
                f'{max(rates):.3g} at the start'
            )
        rows['train data'] = self._data(runner.train_dataloader)
        rows['length'] = f'{runner.max_epochs} epochs, {runner.max_iters} iterations'
        self._log(runner, rows)

    def before_test(self, runner: Runner) -> None:
        """Log the table for testing."""
        rows = self._common(runner)
        rows['test data'] = self._data(runner.test_dataloader)
        self._log(runner, rows)

    @staticmethod
    def _common(runner: Runner) -> dict:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        params = list(model.parameters())
        device = next(iter(params)).device
        name = (
            torch.cuda.get_device_name(device)
            if device.type == 'cuda'
            else f'{torch.get_num_threads()} threads'
        )
        backend = (
            f'{torch_dist.get_backend()} backend'
            if torch_dist.is_initialized()
            else 'not distributed'
        )
        parts = ', '.join(
            f'{k} {_millions(m.parameters())}'
            for k, m in model.named_children()
            if any(True for _ in m.parameters())
        )
        trained = _millions(p for p in params if p.requires_grad)
        return {
            's4d_mm': f'{s4d_mm.__version__}, torch {torch.__version__}',
            'device': f'{device.type} ({name})',
            'processes': f'{runner.world_size}, {backend}',
            'model': f'{type(model).__name__}, '
            f'{_millions(params)} parameters'
            f' ({trained} trained): {parts}',
        }

    @staticmethod
    def _data(dataloader) -> str:
        dataset = dataloader.dataset
        sampler = dataloader.batch_sampler
        size = getattr(sampler, 'batch_size', dataloader.batch_size)
        return (
            f'{type(dataset).__name__}, {len(dataset)} samples, '
            f'{len(dataloader)} batches of {size} per process'
        )

    @staticmethod
    def _log(runner: Runner, rows: dict) -> None:
        width = max(map(len, rows))
        table = '\n'.join(f'  {k:<{width}}  {v}' for k, v in rows.items())
        runner.logger.info(f'Run summary\n{table}')


def _millions(params: Iterable[torch.nn.Parameter]) -> str:
    """Count the numbers of parameters, in millions; sharded ones count whole."""
    total = sum(getattr(p, 'whole_numel', p.numel()) for p in params)  # of S4DFSDPStrategy
    return f'{total / 1e6:.2f}M'
