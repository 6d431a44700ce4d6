# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning head: S2D's self-distillation from the last samples of each class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_world_size
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import Tensor

from ..layers.emotion_anchors import EmotionAnchors
from ..settings import is_number, require_positive_ints
from .views_i3d_head import SampleList, ViewsI3DHead


@MODELS.register_module()
class EmotionAnchorHead(ViewsI3DHead):
    """``I3DHead`` with a second loss, whose soft targets come from emotion anchors (S2D).

    For each class two banks hold the features and the probabilities of its last samples. A sample's
    soft target is the average of the probabilities of the ``top_k`` most similar anchors of every
    class, weighted by cosine. The loss is the binary cross entropy of the scores with it
    (arXiv 2312.05447, section on emotion-anchors-based self-distillation).

    The authors' code deviates from the paper, and this head from the code:

    - Features are those before dropout (``after_dropout=False``); the code stores and compares what
      dropout left over.
    - Anchors of a negative cosine do not count (``clip_negative=True``); in the code the weights
      of a target may sum to about 0, or below it.
    - All processes store the samples of all, in one order (``sync=True``); in the code each process
      has banks of its own. Banks are buffers, so that checkpoints keep them.
    - Samples are stored as they are trained on, before the optimizer's step; the code runs the
      model a second time for it, after the step. A sample that Mixup or CutMix has blended is not
      stored; the code stores it under its own label.
    - As published, FERV39k's recipe stores nothing: it counts every 100th epoch of 100.
      ``update_interval=100`` does so; the targets then are those of random anchors.

    Epochs are those of ``EpochBasedTrainLoop``, from 0.

    Args:
        num_classes (int): Classes.
        in_channels (int): C.
        anchors_per_class (int): Samples in the bank of a class. Defaults to 16.
        top_k (int): Anchors of a class that a target uses. Defaults to 2.
        loss_weights (Sequence[tuple[int, float]]): Epoch from which on the second loss has a
            weight, and the weight, in order; before the first one it is 0. Defaults to the
            authors' ``((30, 0.01), (50, 0.1), (60, 0.5), (80, 1.0))``.
        start_epoch (int): First epoch whose samples are stored. Defaults to 21.
        update_interval (int): Samples are stored in epochs that are a multiple of it. Defaults
            to 1.
        clip_negative (bool): See above. Defaults to True.
        after_dropout (bool): See above. Defaults to False.
        sync (bool): See above. Processes must have batches of one size. Defaults to True.
        **kwargs: As ``I3DHead``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors_per_class: int = 16,
        top_k: int = 2,
        loss_weights: Sequence[tuple[int, float]] = ((30, 0.01), (50, 0.1), (60, 0.5), (80, 1.0)),
        start_epoch: int = 21,
        update_interval: int = 1,
        clip_negative: bool = True,
        after_dropout: bool = False,
        sync: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        require_positive_ints(
            'EmotionAnchorHead',
            anchors_per_class=anchors_per_class,
            top_k=top_k,
            update_interval=update_interval,
        )
        if top_k > anchors_per_class:
            raise ValueError(
                f'top_k={top_k} of EmotionAnchorHead must not be above '
                f'anchors_per_class={anchors_per_class}.'
            )
        epochs = [epoch for epoch, _ in loss_weights]
        if epochs != sorted(set(epochs)) or not all(
            is_number(weight) and weight >= 0 for _, weight in loss_weights
        ):
            raise ValueError(
                'loss_weights of EmotionAnchorHead must be pairs of an epoch and a weight, 0 or '
                f'more, in the order of the epochs, but is {loss_weights!r}.'
            )
        self.loss_weights = tuple(loss_weights)
        self.start_epoch = start_epoch
        self.update_interval = update_interval
        self.after_dropout = after_dropout
        self.sync = sync
        self.anchors = EmotionAnchors(
            num_classes, in_channels, anchors_per_class, top_k, clip_negative
        )

    def loss(self, feats: Tensor, data_samples: SampleList, **kwargs) -> dict[str, Tensor]:
        """Classification loss, and that of the emotion anchors.

        Args:
            feats (Tensor): Feature maps (B, C, T, H, W).
            data_samples (list[ActionDataSample]): With ``gt_label``, an id or a soft label.
            **kwargs: What mmaction2 hands to heads; not needed.

        Returns:
            dict[str, Tensor]: As ``I3DHead``, with ``loss_anchors`` from the first epoch of
            ``loss_weights`` on.
        """
        pooled = feats.mean(dim=(2, 3, 4)) if self.avg_pool is not None else feats.flatten(1)
        dropped = pooled if self.dropout is None else self.dropout(pooled)
        scores = self.fc_cls(dropped)
        losses = self.loss_by_feat(scores, data_samples)
        epoch = MessageHub.get_current_instance().get_info('epoch', 0)
        features = (dropped if self.after_dropout else pooled).detach()
        weight = self.weight_of(epoch)
        if weight > 0:
            targets = self.anchors.soft_targets(features)
            loss = F.binary_cross_entropy_with_logits(scores.float(), targets)
            losses['loss_anchors'] = weight * loss
        if self.training and epoch >= self.start_epoch and epoch % self.update_interval == 0:
            self._store(features, scores.detach(), data_samples)
        return losses

    def weight_of(self, epoch: int) -> float:
        """Weight of the second loss in an epoch."""
        return next((w for start, w in reversed(self.loss_weights) if epoch >= start), 0.0)

    def _store(self, features: Tensor, scores: Tensor, data_samples: SampleList) -> None:
        labels = hard_labels(torch.stack([sample.gt_label for sample in data_samples]))
        rows = torch.cat(
            (features.float(), scores.float().softmax(dim=1), labels[:, None].to(features)), dim=1
        )
        if self.sync and get_world_size() > 1:
            # process r has every r-th sample of the batch of all
            rows = torch.stack(all_gather(rows), dim=1).flatten(0, 1)
        features, probs, labels = rows.split((self.in_channels, self.num_classes, 1), dim=1)
        self.anchors.update(features, probs, labels.squeeze(1).long())


def hard_labels(labels: Tensor) -> Tensor:
    """Class ids; -1 for a soft label of more than one class.

    Args:
        labels (Tensor): Ids (B, 1), or soft labels (B, classes).

    Returns:
        Tensor: (B, ), int64.
    """
    if labels.shape[1] == 1:
        return labels.squeeze(1).long()
    share, ids = labels.max(dim=1)
    return torch.where(share == 1, ids, -1)
