# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmpretrain's image classifier, with a neck that has a loss."""

from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from ..layers import pool
from ..necks.moae_neck import MoAENeck, hand_over_blocks


@MODELS.register_module()
class MoAEImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with :class:`MoAENeck`.

    The neck's loss is added to those of the head. mmpretrain's heads want pooled features, and no
    ``GlobalAveragePooling`` can follow the neck here, so the feature map or tokens of the last
    stage are averaged. As in :class:`DualModalRecognizer`, the neck gets the blocks of a whole
    encoder's checkpoint that the backbone does not have. Other necks work as in
    ``ImageClassifier``.

    Args:
        *args: As ``ImageClassifier``.
        **kwargs: As ``ImageClassifier``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(hand_over_blocks)

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
        feats, neck_losses = self._extract(inputs, 'neck', data_samples)
        return {**self.head.loss(feats, data_samples), **neck_losses}

    def _extract(self, inputs: Tensor, stage: str, data_samples: list | None = None) -> tuple:
        stages = ('backbone', 'neck', 'pre_logits')
        if stage not in stages:
            raise ValueError(f'stage={stage!r} is not one of {stages}.')
        x, losses = self.backbone(inputs), dict()
        if stage != 'backbone':
            if isinstance(self.neck, MoAENeck):
                x, losses = self.neck(x, data_samples)
            elif self.with_neck:
                x = self.neck(x)
            x = (pool(x),)  # the heads expect a tuple
        return (self.head.pre_logits(x) if stage == 'pre_logits' else x), losses
