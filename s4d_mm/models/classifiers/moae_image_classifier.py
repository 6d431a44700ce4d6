# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmpretrain's image classifier, with necks that have a loss."""
from typing import List

from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor


@MODELS.register_module()
class MoAEImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` for necks of mmaction2's contract,
    such as :class:`MoAENeck`: they return the features and a dict of losses,
    which is added to those of the head.

    mmpretrain's heads want pooled features, and no ``GlobalAveragePooling``
    can follow the neck here, so feature maps and tokens are averaged.

    The arguments are those of ``ImageClassifier``.
    """

    def extract_feat(self, inputs: Tensor, stage: str = 'neck'):
        """Features, as ``ImageClassifier.extract_feat`` returns them."""
        return self._extract(inputs, stage)[0]

    def loss(self, inputs: Tensor, data_samples: List) -> dict:
        """Losses of the head and of the neck.

        Args:
            inputs (Tensor): Images (B, 3, H, W).
            data_samples (list[DataSample]): With ``gt_label``.

        Returns:
            dict[str, Tensor]: The losses.
        """
        feats, neck_losses = self._extract(inputs, 'neck')
        return {**self.head.loss(feats, data_samples), **neck_losses}

    def _extract(self, inputs: Tensor, stage: str) -> tuple:
        stages = ('backbone', 'neck', 'pre_logits')
        if stage not in stages:
            raise ValueError(f'stage={stage!r} is not one of {stages}.')
        x, losses = self.backbone(inputs), dict()
        if stage != 'backbone' and self.with_neck:
            x, losses = self.neck(x)
            x = x if isinstance(x, tuple) else (x, )  # what the heads expect
            x = tuple(map(_average, x))
        return (self.head.pre_logits(x) if stage == 'pre_logits' else
                x), losses


def _average(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, N, C) or (B, C) -> (B, C)."""
    if x.ndim == 3:
        return x.mean(dim=1)
    return x.flatten(2).mean(dim=2) if x.ndim > 3 else x
