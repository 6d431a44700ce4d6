# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Update each weight as soon as its gradient is there."""

from contextlib import contextmanager
from typing import Optional

import torch
from mmengine.dist import is_distributed
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.optim import Optimizer

DTYPES = ('float32', 'bfloat16')


@OPTIM_WRAPPERS.register_module()
class InBackwardOptimWrapper(OptimWrapper):
    """Optimizer wrapper that updates each weight within the backward pass and
    frees its gradient at once.

    At no time are there gradients of all weights, which are a quarter of what
    training with AdamW keeps in float32 (with ``compile=True`` there are: a
    compiled backward pass hands them over together). The updates are those of
    mmengine's ``OptimWrapper``, to the bit. Method: "How to save memory by
    fusing the optimizer step into the backward pass", PyTorch tutorials, 2023.

    Whatever needs all gradients before the first update is refused: clipping
    by the norm, accumulation, a launcher with its averaging over processes,
    and loss scaling (float16). The optimizer has to treat each weight by
    itself, as AdamW and SGD do; L-BFGS does not, nor do those that clip by
    the norm of all gradients (``max_grad_norm`` of mmpretrain's ``Lamb``). A
    loss that is not finite has reached the weights when a hook sees it.

    Args:
        optimizer (Optimizer): The optimizer.
        dtype (str): 'float32', or 'bfloat16' for autocast. Defaults to
            'float32'.
        accumulative_counts (int): Must be 1. Defaults to 1.
        clip_grad (dict, optional): Must be None. Defaults to None.

    Raises:
        ValueError: If one of the arguments is refused.
        RuntimeError: If the run has a launcher, or, in the backward pass, if
            a weight gets its gradient in parts.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        dtype: str = 'float32',
        accumulative_counts: int = 1,
        clip_grad: Optional[dict] = None,
    ) -> None:
        advice = "Leave it out, or use another optim_wrapper, as type='{}'."
        if dtype not in DTYPES:
            raise ValueError(
                f'dtype of InBackwardOptimWrapper must be one of {DTYPES}, '
                f'but is {dtype!r}. float16 needs all gradients to scale the '
                "loss; for that, use type='AmpOptimWrapper'."
            )
        if accumulative_counts != 1:
            raise ValueError(
                'InBackwardOptimWrapper has no gradients left to accumulate, '
                f'but accumulative_counts is {accumulative_counts}. '
                + advice.format('OptimWrapper')
            )
        if clip_grad is not None:
            raise ValueError(
                'InBackwardOptimWrapper never has all gradients, whose norm '
                f'clip_grad={clip_grad!r} needs. ' + advice.format('OptimWrapper')
            )
        if is_distributed():
            raise RuntimeError(
                'InBackwardOptimWrapper updates the weights before gradients '
                'of processes are averaged. Start tools/train.py without a '
                "launcher, or use type='OptimWrapper' or 'AmpOptimWrapper'."
            )
        super().__init__(optimizer)
        self.dtype = getattr(torch, dtype)
        self._updated = set()  # in this backward pass
        for index, group in enumerate(optimizer.param_groups):
            for param in group['params']:
                if param.requires_grad:
                    param.register_post_accumulate_grad_hook(
                        lambda p, index=index: self._update(p, index)
                    )

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Backward pass, with the updates.

        Args:
            loss (Tensor): Scalar.
            **kwargs: Of ``Tensor.backward``.
        """
        self._updated.clear()
        super().backward(loss, **kwargs)

    def _update(self, param: Tensor, index: int) -> None:
        """Step of the optimizer for one weight, of this group."""
        if id(param) in self._updated:
            raise RuntimeError(
                f'A weight of the shape {tuple(param.shape)} got its gradient '
                'in parts, the second one after InBackwardOptimWrapper had '
                'updated the weight. So does torch.utils.checkpoint with '
                'use_reentrant=True in a module that runs twice in a step: '
                "set with_cp=False, or use type='OptimWrapper'."
            )
        self._updated.add(id(param))
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [dict(groups[index], params=[param])]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        param.grad = None

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast, if ``dtype`` asks for it.

        Args:
            model (nn.Module): The training model.
        """
        device_type = next(model.parameters()).device.type
        with (
            super().optim_context(model),
            torch.autocast(device_type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield
