# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Mixup and CutMix of a training batch with itself reversed.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from mmaction.models.utils import CutmixBlending, MixupBlending
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ReversedMixupBlending(MixupBlending):
    """mmaction2's ``MixupBlending``, but the first sample is mixed with the last, and so on.

    As in timm and the authors' code. In mmaction2 a sample may be its own partner.

    Args:
        num_classes (int): Number of classes.
        alpha (float): Both parameters of the Beta distribution of the share.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix float pixels (B, ..., H, W) and one-hot labels (B, num_classes)."""
        share = self.beta.sample().to(imgs)
        return (
            share * imgs + (1 - share) * imgs.flip(0),
            share * label + (1 - share) * label.flip(0),
        )


@MODELS.register_module()
class ReversedCutmixBlending(CutmixBlending):
    """mmaction2's ``CutmixBlending``, but the first sample gets a window of the last, and so on.

    The label's share is that of the pixels, also where the window is cut off at the border.

    Args:
        num_classes (int): Number of classes.
        alpha (float): Both parameters of the Beta distribution of the share.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix float pixels (B, ..., H, W), in place, and one-hot labels (B, num_classes)."""
        left, top, right, bottom = map(int, self.rand_bbox(imgs.shape, self.beta.sample()))
        window = imgs[..., top:bottom, left:right]
        window.copy_(window.flip(0))
        share = 1 - window[0].numel() / imgs[0].numel()
        return imgs, share * label + (1 - share) * label.flip(0)
