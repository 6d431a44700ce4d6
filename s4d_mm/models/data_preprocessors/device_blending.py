# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Blend the samples of a batch on the device, without the host waiting for it.

mmaction2's blendings copy the labels and the order of the samples to the
device and wait, in every step. Here labels are blended on the host.
"""

import torch
import torch.nn.functional as F
from mmaction.models.utils.blending_utils import (
    BaseMiniBatchBlending,
    CutmixBlending,
    MixupBlending,
    RandomBatchAugment,
)
from mmengine.registry import MODELS
from torch import Tensor


def blend(blending: BaseMiniBatchBlending, x: Tensor, data_samples: list) -> tuple[Tensor, list]:
    """``blending(x, data_samples)``, with the labels on the host if it is one
    of those below or mmaction2's.

    Args:
        blending (BaseMiniBatchBlending): A batch augmentation of mmaction2's
            interface.
        x (Tensor): Pixels, float32, on any device. May be changed.
        data_samples (list): On the host, with ``gt_label``: a class, which
            becomes a probability for each class, or such probabilities.

    Returns:
        tuple: The blended pixels and data samples.
    """
    parts = [blending]
    if type(blending) is RandomBatchAugment:
        parts = [part for part in blending.augments if part is not None]
    if any(
        type(part) not in (BatchMixup, BatchCutMix, MixupBlending, CutmixBlending) for part in parts
    ):
        return blending(x, data_samples)
    labels = torch.stack([s.gt_label for s in data_samples])
    if labels.shape[1] == 1:
        labels = F.one_hot(labels[:, 0].long(), blending.num_classes)
    x, labels = blending.do_blending(x, labels)
    for sample, label in zip(data_samples, labels):
        sample.set_gt_label(label)
    return x, data_samples


@MODELS.register_module()
class BatchMixup(MixupBlending):
    """mmaction2's ``MixupBlending`` (mixup, arXiv 1710.09412) with the same
    draws, without a wait for the device, and with half of the memory.

    Args:
        num_classes (int): Classes.
        alpha (float): Of the Beta distribution, above 0. Defaults to 0.2.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Blend each sample with another one.

        Args:
            imgs (Tensor): Pixels, float, (B, ...).
            label (Tensor): On the host, (B, classes).

        Returns:
            tuple[Tensor]: Both blended.
        """
        share, order = self._draw(imgs.shape)
        mixed = imgs[order.to(imgs.device, non_blocking=True)]
        label = share * label + (1 - share) * label[order]
        return mixed.lerp_(imgs, share), label

    def _draw(self, shape: torch.Size) -> tuple[float, Tensor]:
        """Share of a sample itself, and the other one of each sample."""
        return self.beta.sample().item(), torch.randperm(shape[0])


@MODELS.register_module()
class BatchCutMix(CutmixBlending):
    """mmaction2's ``CutmixBlending`` (CutMix, arXiv 1905.04899) with the same
    draws, without a wait for the device.

    Args:
        num_classes (int): Classes.
        alpha (float): Of the Beta distribution, above 0. Defaults to 0.2.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Put a window of another sample into each.

        Args:
            imgs (Tensor): Pixels (B, ..., H, W). Changed.
            label (Tensor): On the host, (B, classes).

        Returns:
            tuple[Tensor]: Both blended.
        """
        (left, top, right, bottom), order = self._draw(imgs.shape)
        window = imgs[..., top:bottom, left:right]
        window.copy_(window[order.to(imgs.device, non_blocking=True)])
        height, width = imgs.shape[-2:]
        share = 1 - (right - left) * (bottom - top) / (height * width)
        return imgs, share * label + (1 - share) * label[order]

    def _draw(self, shape: torch.Size) -> tuple[list[int], Tensor]:
        """The window, and the other one of each sample."""
        order = torch.randperm(shape[0])
        box = self.rand_bbox(shape, self.beta.sample())
        return [int(x) for x in box], order
