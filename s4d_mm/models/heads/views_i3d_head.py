# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning head: mmaction2's I3DHead for clips with different numbers of views."""

from mmaction.models.heads import I3DHead
from mmengine.registry import MODELS
from torch import Tensor

SampleList = list['ActionDataSample']  # noqa: F821


def predict_views(head, scores: Tensor, data_samples: SampleList) -> SampleList:
    """Average the scores of the views of each sample.

    Args:
        head (BaseHead): Head of mmaction2, with ``average_clips``.
        scores (Tensor): (sum of V, classes), the views of a sample one after the other.
        data_samples (list[ActionDataSample]): They get ``pred_score`` and ``pred_label``. With
            ``num_views`` in their meta information, that is V of each; otherwise all have the
            same.

    Returns:
        list[ActionDataSample]: The data samples.
    """
    views = len(scores) // len(data_samples)
    views = [sample.metainfo.get('num_views', views) for sample in data_samples]
    for sample, part in zip(data_samples, scores.split(views)):
        head.predict_by_feat(part, [sample])
    return data_samples


@MODELS.register_module()
class ViewsI3DHead(I3DHead):
    """``I3DHead`` that also takes ``SampleClipViews(merge_equal=True)``.

    A clip whose views are all the same frames is then computed once. The arguments are those of
    ``I3DHead``.
    """

    def predict(self, feats: Tensor, data_samples: SampleList, **kwargs) -> SampleList:
        """Predictions, averaged over the views of a sample.

        Args:
            feats (Tensor): Feature maps (sum of V, C, T, H, W).
            data_samples (list[ActionDataSample]): See :func:`predict_views`.
            **kwargs: What mmaction2 hands to heads.

        Returns:
            list[ActionDataSample]: The data samples.
        """
        return predict_views(self, self(feats, **kwargs), data_samples)
