# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Mixup and CutMix of a batch with itself reversed, as in timm and the authors' code.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from mmaction.models.utils import CutmixBlending, MixupBlending
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ReversedMixupBlending(MixupBlending):
    """mmaction2's ``MixupBlending``, but the first sample is mixed with the last, and so on.

    mmaction2 draws the partners, by which a sample may be its own.

    Args:
        num_classes (int): Number of classes.
        alpha (float): Both parameters of the Beta distribution of the share. Defaults to 0.2.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Blend a batch.

        Args:
            imgs (Tensor): Pixels, float, (B, ..., H, W).
            label (Tensor): One-hot labels, (B, num_classes).

        Returns:
            tuple[Tensor, Tensor]: Both, mixed.
        """
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
        alpha (float): Both parameters of the Beta distribution of the share. Defaults to 0.2.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Blend a batch.

        Args:
            imgs (Tensor): Pixels, float, (B, ..., H, W). They are changed in place.
            label (Tensor): One-hot labels, (B, num_classes).

        Returns:
            tuple[Tensor, Tensor]: Both, mixed.
        """
        left, top, right, bottom = map(int, self.rand_bbox(imgs.shape, self.beta.sample()))
        window = imgs[..., top:bottom, left:right]
        window.copy_(window.flip(0))
        share = 1 - window[0].numel() / imgs[0].numel()
        return imgs, share * label + (1 - share) * label.flip(0)
