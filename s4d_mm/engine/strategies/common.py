# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What both strategies need."""

from typing import Optional


def check_auto_scale_lr(
    dispatch_kwargs: Optional[dict], auto_scale_lr: Optional[dict], batch_size: Optional[int]
) -> dict:
    """Put one number where mmengine has the sampler's batch size, which may
    be one for each modality.

    Returns:
        dict: ``dispatch_kwargs`` with that number.

    Raises:
        ValueError: If it is needed and not known.
    """
    key, kwargs = 'train_micro_batch_size_per_gpu', dict(dispatch_kwargs or {})
    if batch_size is not None and key in kwargs:
        kwargs[key] = batch_size
    if (auto_scale_lr or {}).get('enable') and isinstance(kwargs.get(key), dict):
        raise ValueError(
            f'auto_scale_lr needs one batch size, but the sampler has '
            f'{dict(kwargs[key])}. Set strategy.batch_size to the one that '
            'auto_scale_lr.base_batch_size counts.'
        )
    return kwargs
