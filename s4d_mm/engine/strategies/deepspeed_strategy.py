# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Training with DeepSpeed's ZeRO."""

import importlib.util
import os.path as osp
import sys
import types
from typing import Optional, Union

from mmengine._strategy import DeepSpeedStrategy
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import OPTIMIZERS, STRATEGIES
from mmengine.runner import load_checkpoint
from torch import nn

from .common import check_auto_scale_lr


@STRATEGIES.register_module()
class S4DDeepSpeedStrategy(DeepSpeedStrategy):
    """mmengine's ``DeepSpeedStrategy``, with what S4D's runs need from it.

    - Ordinary checkpoints can be the start of a training: their weights are
      loaded before DeepSpeed takes the model, so that blocks find their place
      and missing keys are listed, as in an ordinary run.
    - ``auto_scale_lr``, which mmengine passes over without a word, works.
    - Gradients are clipped only if the config says so; recent DeepSpeed clips
      their norm to 1 by default.
    - DeepSpeed without the 1-bit optimizers that mmengine (0.10.7) registers,
      such as 0.19, can be used.

    Args:
        batch_size (int): Samples of a step in one process.
            ``tools/train.py`` fills it in from
            ``train_dataloader.batch_size``.
        load_from (str, optional): Ordinary checkpoint to start from.
            ``tools/train.py`` fills it in. Defaults to None.
        **kwargs: As mmengine's ``DeepSpeedStrategy``.
    """

    def __init__(self, *, batch_size: int = 1, load_from: Optional[str] = None, **kwargs) -> None:
        provide_onebit()
        # mmengine registers DeepSpeed's optimizers for each strategy anew,
        # and refuses names that are taken
        for name, optimizer in list(OPTIMIZERS.module_dict.items()):
            if optimizer.__module__.startswith('deepspeed.'):
                del OPTIMIZERS.module_dict[name]
        kwargs.setdefault('train_micro_batch_size_per_gpu', batch_size)
        if 'gradient_clipping' not in (kwargs.get('config') or {}):
            kwargs.setdefault('gradient_clipping', 0.0)
        super().__init__(**kwargs)
        self.batch_size = batch_size
        self.load_from = load_from

    def prepare(
        self, model: Union[nn.Module, dict], *, dispatch_kwargs: Optional[dict] = None, **kwargs
    ):
        """Build model and optimizer, then hand them to DeepSpeed."""
        if not self._prepared:
            dispatch_kwargs = check_auto_scale_lr(
                dispatch_kwargs, self._auto_scale_lr, self.batch_size
            )
        return super().prepare(model, dispatch_kwargs=dispatch_kwargs, **kwargs)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        model = super()._init_model_weights(model)
        if self.load_from is not None:
            self.logger.info(f'Load checkpoint from {self.load_from}')
            load_checkpoint(
                model, self.load_from, map_location='cpu', revise_keys=[(r'^module\.', '')]
            )
        return model

    def build_optim_wrapper(
        self, optim_wrapper: Union[BaseOptimWrapper, dict], model: Optional[nn.Module] = None
    ) -> BaseOptimWrapper:
        """Build the optimizer, with its learning rate scaled if asked."""
        self.optim_wrapper = super().build_optim_wrapper(optim_wrapper, model)
        self._scale_lr()
        return self.optim_wrapper

    def load_checkpoint(self, filename: str, **kwargs) -> dict:
        """Load a checkpoint that DeepSpeed saved, which is a folder."""
        if not osp.isdir(filename):
            raise ValueError(
                f'DeepSpeed cannot load {filename}, which is not a folder '
                'that it saved. Training starts from an ordinary checkpoint '
                'by load_from with tools/train.py; testing needs no '
                'DeepSpeed: leave `runner_type` and `strategy` out.'
            )
        return super().load_checkpoint(filename, **kwargs)


def provide_onebit() -> bool:
    """Put a stand-in for ``deepspeed.runtime.fp16.onebit`` into
    ``sys.modules`` if DeepSpeed has none.

    mmengine (0.10.7) registers three optimizers of it. Can be deleted when it
    does so only where they exist.

    Returns:
        bool: Whether the stand-in was needed.
    """
    name = 'deepspeed.runtime.fp16.onebit'
    if (
        name in sys.modules
        or not importlib.util.find_spec('deepspeed')
        or importlib.util.find_spec(name)
    ):
        return False
    module = types.ModuleType(name)
    for optimizer in ('OnebitAdam', 'OnebitLamb', 'ZeroOneAdam'):
        setattr(module, optimizer, _missing(optimizer))
    sys.modules[name] = module
    return True


def _missing(name: str) -> type:

    def init(self, *args, **kwargs) -> None:
        raise ImportError(f'{name} is not part of the installed deepspeed.')

    return type(name, (), dict(__init__=init, __module__='deepspeed.(stand-in)'))
