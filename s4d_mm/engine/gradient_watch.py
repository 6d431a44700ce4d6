# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Gradients that are not finite change no weight: a look at them before each optimizer step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class GradientWatch:
    """Measure the gradients of an optimizer in each of its steps, and leave bad steps out.

    It uses torch's seams for this: a hook before each step, and ``found_inf``, by which
    ``GradScaler`` tells fused optimizers (``fused=True``) to change nothing. The host does not
    wait for the device then. For other optimizers it waits once in a step, and takes the
    gradients away if they are bad, so that the optimizer finds nothing to do.

    Args:
        optimizer (Optimizer): Any of torch's.
        names (dict[Tensor, str]): Names of the parameters.
            Defaults to None, where each holds them whole.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        names: dict[Tensor, str],
    ) -> None:
        self.optimizer = optimizer
        self.names = names
        self._norm: Tensor | None = None
        self._norms: Tensor | None = None
        self._params: list[Tensor] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        for handle in self._handles:
            handle.remove()

    def take_norm(self) -> Tensor | None:
        """The norm of all gradients in the last step, once.

        Returns:
            Tensor | None: A scalar in float32 on the device of the gradients: after clipping,
            without the scale of a loss scaler. None if there was no step since the last call.
        """
        norm, self._norm = self._norm, None
        return norm

    def first_bad(self) -> str | None:
        """Where the gradients of the last step went bad, if one of them is not finite.

        Returns:
            str | None: Name of the parameter nearest to the loss, since the backward pass comes
            to it first, and how many parameters are bad.
        """
        bad = [] if self._norms is None else (~self._norms.isfinite()).nonzero().flatten().tolist()
        if not bad:
            return None
        name = self.names.get(self._params[bad[-1]], 'a parameter without a name')
        return f'{name} (and {len(bad) - 1} others of {len(self._params)} parameters)'

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group['params']]
        self._params = [p for p in params if p.grad is not None]
        if not self._params:
            return
        grads = [p.grad for p in self._params]
        self._norms = torch.stack(torch._foreach_norm(grads, 2, dtype=torch.float32))
        norm = torch.linalg.vector_norm(self._norms)
        scale = getattr(optimizer, 'grad_scale', None)  # GradScaler's, in fused optimizers
        self._norm = norm if scale is None else norm / scale
        if getattr(optimizer, '_step_supports_amp_scaling', False):
            # in place of GradScaler's, which it has noted for itself
            optimizer.found_inf = (~norm.isfinite()).float()
        elif not norm.isfinite():
            for param in self._params:
                param.grad = None

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # GradScaler takes away what it has set
        if getattr(optimizer, 'grad_scale', None) is None and hasattr(optimizer, 'found_inf'):
            optimizer.found_inf = None


def spread_bad_losses(module: nn.Module, args: Any, losses: Any) -> None:
    """Make the gradients of all losses NaN where one of them is not finite (a forward hook).

    An infinite loss can have finite gradients. This way one look at the gradients is enough, and
    the sum of the gradients over processes tells all of them, at the price of no message and no
    wait. Other gradients are multiplied by 1; no value is changed. Where ``torch.compile`` traces
    the model this is left out: the gradients alone are looked at.

    Args:
        module (nn.Module): The model that was run.
        args (Any): Its arguments; not used.
        losses (Any): What it returned; of a dict the parts with 'loss' in their names count, as
            for mmengine's ``parse_losses``.
    """
    if torch.compiler.is_compiling():  # which has no place for hooks of tensors
        return
    if not (module.training and isinstance(losses, dict) and torch.is_grad_enabled()):
        return
    parts = []
    for name, value in losses.items():
        if 'loss' in name:
            parts += value if isinstance(value, (list, tuple)) else [value]
    parts = [part for part in parts if isinstance(part, Tensor)]
    if not parts:
        return
    one_or_nan = 1 + 0 * sum(part.detach().float().mean() for part in parts)
    for part in parts:
        if part.requires_grad:
            part.register_hook(lambda grad: grad * one_or_nan.to(grad.device, grad.dtype))
