# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning head: one classifier for images, one for videos.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
import torch.nn.functional as F
from mmaction.models.heads import BaseHead
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import pool
from .views_i3d_head import predict_views

SampleList = list['ActionDataSample']  # noqa: F821


@MODELS.register_module()
class DualModalHead(BaseHead):
    """Classification head with a linear classifier per modality (S4D, arXiv 2409.06154).

    Averages all tokens, then LayerNorm, then the classifier of the batch's modality, which is
    the ``input_type`` in the meta information of its data samples.

    Takes what the backbones of mmaction2 and mmpretrain return. In ``Recognizer2D`` the features
    of a sample's segments (frames) are averaged.

    Args:
        num_classes (dict[str, int]): Number of classes of 'video' and/or
            'image'.
        in_channels (int): C.
        loss_cls (dict, optional): Loss that takes soft labels. Defaults to None, which means
            mmaction2's ``CrossEntropyLoss``.
        label_smooth_eps (float): Label smoothing, 0..1. Defaults to 0.
        dropout_ratio (float): Dropout before the classifier. Defaults to 0.
        with_norm (bool): LayerNorm after averaging (`fc_norm`). Defaults to
            True.
        init_std (float): Standard deviation of the classifiers' initial
            weights. Defaults to 0.02.
        average_clips (str, optional): How to average the views of a sample in
            testing: 'prob', 'score' or None, as in mmaction2. Defaults to
            'prob'.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to
            None.
    """

    def __init__(
        self,
        num_classes: dict[str, int],
        in_channels: int,
        loss_cls: dict | None = None,
        label_smooth_eps: float = 0.0,
        dropout_ratio: float = 0.0,
        with_norm: bool = True,
        init_std: float = 0.02,
        average_clips: str | None = 'prob',
        init_cfg: dict | None = None,
    ) -> None:
        if (
            not isinstance(num_classes, dict)
            or not num_classes
            or not set(num_classes) <= {'video', 'image'}
        ):
            raise ValueError(
                'num_classes of DualModalHead must be a dict '
                'like dict(video=7, image=7), but got '
                f'{num_classes!r}.'
            )
        super().__init__(
            num_classes=dict(num_classes),
            in_channels=in_channels,
            loss_cls=loss_cls or dict(type='mmaction.CrossEntropyLoss'),
            label_smooth_eps=label_smooth_eps,
            average_clips=average_clips,
            init_cfg=init_cfg,
        )
        self.init_std = init_std
        self.fc_norm = nn.LayerNorm(in_channels, eps=1e-6) if with_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout_ratio)
        self.classifiers = nn.ModuleDict(
            {name: nn.Linear(in_channels, count) for name, count in self.num_classes.items()}
        )

    def init_weights(self) -> None:
        """Initialise the classifiers, then by ``init_cfg`` if given."""
        for classifier in self.classifiers.values():
            nn.init.trunc_normal_(classifier.weight, std=self.init_std)
            nn.init.zeros_(classifier.bias)
        super().init_weights()

    def features(self, x: Tensor | tuple[Tensor], num_segs: int = 1) -> Tensor:
        """Pooled and normalised features.

        Args:
            x (Tensor | tuple[Tensor]): Tokens (B, N, C), a feature map
                (B, C, [T, ]H, W), or pooled features (B, C); of a tuple the
                last, so of a pair of feature map and class token the class
                token.
            num_segs (int): Rows of ``x`` that belong to one sample and are averaged. Defaults
                to 1.

        Returns:
            Tensor: (B / num_segs, C).

        Raises:
            ValueError: If the channels are not ``in_channels``, or the
                features are the pathways of a SlowFast network.
        """
        x = pool(x)
        if x.shape[-1] != self.in_channels:
            raise ValueError(
                f'DualModalHead has in_channels='
                f'{self.in_channels}, but the features have '
                f'{x.shape[-1]} channels.'
            )
        return self.fc_norm(x.unflatten(0, (-1, num_segs)).mean(dim=1))

    def forward(
        self,
        x: Tensor | tuple[Tensor],
        input_types: str | None = None,
        num_segs: int = 1,
        **kwargs,
    ) -> Tensor | dict[str, Tensor]:
        """Class scores.

        Args:
            x (Tensor | tuple[Tensor]): See :meth:`features`.
            input_types (str, optional): Modality of all samples. Defaults to None, which means
                scores of every classifier.
            num_segs (int): See :meth:`features`. Defaults to 1.
            **kwargs: What mmaction2 hands from backbone to head; not needed.

        Returns:
            Tensor | dict[str, Tensor]: Scores (B, classes), or a dict of those, per modality.
        """
        x = self.dropout(self.features(x, num_segs))
        if input_types is None:
            return {name: classifier(x) for name, classifier in self.classifiers.items()}
        return self.classifiers[input_types](x)

    def loss(
        self,
        feats: Tensor | tuple[Tensor],
        data_samples: SampleList,
        num_segs: int = 1,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Classification loss.

        Args:
            feats (Tensor | tuple[Tensor]): See :meth:`features`.
            data_samples (list[ActionDataSample]): Of one modality, with ``gt_label``, an id (1, )
                or a soft label (classes, ).
            num_segs (int): See :meth:`features`. Defaults to 1.
            **kwargs: What mmaction2 hands from backbone to head; not needed.

        Returns:
            dict[str, Tensor]: ``loss_cls`` and ``{modality}_top1_acc``.
        """
        name = self._modality(data_samples)
        scores = self(feats, name, num_segs)  # B*V classes
        labels = self._soft_labels(name, data_samples).to(scores.device)
        labels = labels.repeat_interleave(len(scores) // len(labels), dim=0)
        loss = self.loss_cls(scores, labels)
        # the other classifier takes part with weight 0, so that distributed training finds a
        # gradient for every parameter
        for other, classifier in self.classifiers.items():
            if other != name:
                loss = loss + 0.0 * sum(p.sum() for p in classifier.parameters())
        hits = scores.detach().argmax(1) == labels.argmax(1)
        return {'loss_cls': loss, f'{name}_top1_acc': hits.float().mean()}

    def predict(
        self,
        feats: Tensor | tuple[Tensor],
        data_samples: SampleList,
        num_segs: int = 1,
        **kwargs,
    ) -> SampleList:
        """Predictions, averaged over the views of a sample.

        Args:
            feats (Tensor | tuple[Tensor]): See :meth:`features`, with the V views of a sample one
                after the other.
            data_samples (list[ActionDataSample]): Of one modality. They get ``pred_score`` and
                ``pred_label``. With ``num_views`` in their meta information, that is V of each
                sample; otherwise all have the same.
            num_segs (int): See :meth:`features`. Defaults to 1.
            **kwargs: What mmaction2 hands from backbone to head; not needed.

        Returns:
            list[ActionDataSample]: The data samples.
        """
        scores = self(feats, self._modality(data_samples), num_segs)
        return predict_views(self, scores, data_samples)

    def _modality(self, data_samples: SampleList) -> str:
        """The modality of a batch."""
        names = {sample.metainfo.get('input_type') for sample in data_samples}
        if None in names:
            raise ValueError(
                'DualModalHead needs `input_type` (video or image) in the '
                'data samples: use DualModalDataPreprocessor, or put it into '
                'meta_keys of PackActionInputs.'
            )
        if len(names) > 1:
            raise ValueError(
                f'DualModalHead got a batch of the modalities {sorted(names)}, but takes one at a '
                "time. Use batch_sampler=dict(type='DualModalBatchSampler')."
            )
        (name,) = names
        if name not in self.classifiers:
            raise ValueError(
                f'DualModalHead got a sample of modality {name!r}, but '
                f'num_classes is {self.num_classes}. Add it there.'
            )
        return name

    def _soft_labels(self, name: str, data_samples: SampleList) -> Tensor:
        """Smoothed soft labels (B, classes), float32."""
        labels = torch.stack([sample.gt_label for sample in data_samples])
        count = self.num_classes[name]
        if labels.shape[1] == 1:
            labels = F.one_hot(labels.squeeze(1), count)
        if labels.shape[1] != count:
            raise ValueError(
                f'Soft labels of the {name} samples have {labels.shape[1]} '
                f'classes, but DualModalHead has num_classes[{name!r}]='
                f'{count}. Make num_classes of the blending agree.'
            )
        return labels.float() * (1 - self.label_smooth_eps) + self.label_smooth_eps / count
