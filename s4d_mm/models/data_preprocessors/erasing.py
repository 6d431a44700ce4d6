# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Random Erasing with noise, imported where it is used (see ``batch_augments.py``)."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2


class ErasingWithNoise(v2.RandomErasing):
    """torchvision's RandomErasing with normal noise of these grey levels.

    Args:
        mean (list[float]): Of each channel, 0..255.
        std (list[float]): Standard deviation of each channel.
        **kwargs: ``p``, ``scale`` and ``ratio`` of torchvision's RandomErasing.
    """

    def __init__(self, mean: list[float], std: list[float], **kwargs) -> None:
        super().__init__(**kwargs)
        self.register_buffer('mean', torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer('std', torch.tensor(std)[:, None, None], persistent=False)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Erase the window of ``params``, if one was found."""
        if params['v'] is not None:
            shape = (*inpt.shape[:-2], params['h'], params['w'])
            noise = torch.randn(shape, device=inpt.device) * self.std + self.mean
            params = dict(params, v=noise.round().clamp(0, 255))
        return super().transform(inpt, params)
