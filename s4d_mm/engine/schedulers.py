# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The learning rate of a run: linear warm-up, then a cosine."""

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up, then a cosine.

    All values are shares of a group's own learning rate, so that layer-wise decay and
    ``--auto-scale-lr`` scale both ends too. Batches whose gradients are accumulated have the
    learning rate of their optimizer step.

    Args:
        optimizer (OptimWrapper): The optimizer wrapper.
        warmup_share (float): Part of the run that is warm-up, 0..1. Defaults to 0.05.
        start_ratio (float): Share of the first step. Defaults to 0.
        end_ratio (float): Share that the cosine tends to. Defaults to 0.
        whole_run (bool): False (VideoMAE, and so S4D's fine-tuning): the last step of the warm-up
            has the peak, and the cosine is that of the steps that remain. True (fvcore's
            ``CompositeParamScheduler`` with ``'fixed'`` scaling, and so S4D's pre-training): the
            cosine is that of the whole run, and the warm-up takes the place of its beginning; the
            first step after the warm-up would have the peak. Defaults to False.
        **kwargs: ``begin``, ``end``, ``by_epoch`` ..., as mmengine's schedulers have them. The
            Runner fills in ``end`` with the end of the run.

    Raises:
        ValueError: If ``warmup_share`` is not in 0..1.
    """

    def __init__(
        self,
        optimizer,
        *args,
        warmup_share: float = 0.05,
        start_ratio: float = 0.0,
        end_ratio: float = 0.0,
        whole_run: bool = False,
        **kwargs,
    ) -> None:
        if not 0 <= warmup_share <= 1:
            raise ValueError(f'warmup_share of WarmupCosineLR must be in 0..1: {warmup_share!r}')
        self.warmup_share = warmup_share
        self.start_ratio, self.end_ratio, self.whole_run = start_ratio, end_ratio, whole_run
        super().__init__(optimizer, *args, **kwargs)

    @classmethod
    def build_iter_from_epoch(
        cls, *args, end: int, epoch_length: int, begin: int = 0, by_epoch: bool = True, **kwargs
    ) -> 'WarmupCosineLR':
        """Build the scheduler that changes in each iteration (``convert_to_iter_based``)."""
        begin, end = begin * epoch_length, end * epoch_length
        return cls(*args, begin=begin, end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        parts = getattr(self.optimizer, '_accumulative_counts', 1) if not self.by_epoch else 1
        total = math.ceil((self.end - self.begin) / parts)
        warmup = round(self.warmup_share * total)
        step = self.last_step // parts
        if step < warmup:
            last = warmup if self.whole_run else max(warmup - 1, 1)
            ratio = self.start_ratio + (1 - self.start_ratio) * step / last
        else:
            done = step / total if self.whole_run else (step - warmup) / (total - warmup)
            ratio = self.end_ratio + (1 - self.end_ratio) * (1 + math.cos(math.pi * done)) / 2
        return [value * ratio for value in self.base_values]
