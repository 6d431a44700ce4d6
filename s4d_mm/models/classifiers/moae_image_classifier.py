# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmpretrain's image classifier, with necks that have a loss."""

from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from ..layers.token_layout import pool


@MODELS.register_module()
class MoAEImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` for necks of mmaction2's contract,
    such as :class:`MoAENeck`: they return the features and a dict of losses,
    which is added to those of the head.

    mmpretrain's heads want pooled features, and no ``GlobalAveragePooling``
    can follow the neck here, so the feature map or tokens of the last stage
    are averaged.

    The arguments are those of ``ImageClassifier``.
    """

    def extract_feat(self, inputs: Tensor, stage: str = 'neck'):
        """Features, as ``ImageClassifier.extract_feat`` returns them."""
        return self._extract(inputs, stage)[0]

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
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
        if stage != 'backbone':
            if self.with_neck:
                x = self.neck(x)
                if isinstance(x, tuple) and isinstance(x[-1], dict):
                    x, losses = x
            x = (pool(x),)  # the heads expect a tuple
        return (self.head.pre_logits(x) if stage == 'pre_logits' else x), losses
