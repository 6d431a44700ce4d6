# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning: the joint model of images and videos, with a classifier for each.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
import torch.nn.functional as F
from mmaction.models.heads import BaseHead
from mmaction.models.recognizers import Recognizer3D
from mmengine.registry import MODELS
from torch import Tensor, nn

from .state_dict import hand_over_blocks, take_authors_names
from .tokens import Features, pool

SampleList = list['ActionDataSample']  # noqa: F821


@MODELS.register_module()
class DualModalRecognizer(Recognizer3D):
    """``Recognizer3D`` of S4D.

    The backbone has the first blocks of an encoder, :class:`MoAENeck` the last ones, and
    :class:`DualModalHead` a classifier per modality. The model computes what ``Recognizer3D``
    computes. When the checkpoint of a whole encoder is loaded, as after pre-training, the blocks
    that the backbone does not have go to the neck.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)
        self.register_load_state_dict_pre_hook(hand_over_blocks)


def predict_views(head: BaseHead, scores: Tensor, data_samples: SampleList) -> SampleList:
    """Average the scores (sum of V, classes) of the views of each sample.

    The samples get ``pred_score`` and ``pred_label``. With ``num_views`` in their meta information,
    that is V of each; otherwise all have the same.
    """
    views = len(scores) // len(data_samples)
    views = [sample.metainfo.get('num_views', views) for sample in data_samples]
    for sample, part in zip(data_samples, scores.split(views)):
        head.predict_by_feat(part, [sample])
    return data_samples


@MODELS.register_module()
class DualModalHead(BaseHead):
    """Classification head with a linear classifier per modality (S4D, arXiv 2409.06154).

    Averages all tokens, then LayerNorm, then the classifier of the batch's modality, which is
    the ``input_type`` in the meta information of its data samples.

    Takes what the backbones of mmaction2 and mmpretrain return: of several stages the last, of a
    feature map with a class token the class token. In ``Recognizer2D`` the features of a sample's
    ``num_segs`` segments (frames) are averaged.

    Args:
        num_classes (dict[str, int]): Number of classes of 'video' and/or 'image'.
        in_channels (int): C.
        loss_cls (dict, optional): Loss that takes soft labels. Defaults to None, which means
            mmaction2's ``CrossEntropyLoss``.
        label_smooth_eps (float): Label smoothing, 0..1.
        dropout_ratio (float): Dropout before the classifier.
        with_norm (bool): LayerNorm after averaging (`fc_norm`).
        init_std (float): Standard deviation of the classifiers' initial weights.
        average_clips (str, optional): How to average the views of a sample in testing: 'prob',
            'score' or None, as in mmaction2.
        init_cfg (dict, optional): mmengine initialisation config.
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
        if not isinstance(num_classes, dict) or not {'video', 'image'} >= set(num_classes) > set():
            raise ValueError(
                'num_classes of DualModalHead must be a dict like dict(video=7, image=7), but got '
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

    def features(self, x: Features, num_segs: int = 1) -> Tensor:
        """Pooled and normalised features (B / num_segs, C)."""
        return self.fc_norm(pool(x).unflatten(0, (-1, num_segs)).mean(dim=1))

    def forward(
        self, x: Features, input_types: str | None = None, num_segs: int = 1, **kwargs
    ) -> Tensor | dict[str, Tensor]:
        """Class scores (B, classes) of the modality ``input_types``, or a dict of each modality."""
        x = self.dropout(self.features(x, num_segs))
        if input_types is None:
            return {name: classifier(x) for name, classifier in self.classifiers.items()}
        return self.classifiers[input_types](x)

    def loss(
        self, feats: Features, data_samples: SampleList, num_segs: int = 1, **kwargs
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``{modality}_top1_acc`` of a batch of one modality.

        ``gt_label`` of a sample is an id (1, ) or a soft label (classes, ).
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
        self, feats: Features, data_samples: SampleList, num_segs: int = 1, **kwargs
    ) -> SampleList:
        """Predictions, averaged over the views of a sample: see :func:`predict_views`."""
        scores = self(feats, self._modality(data_samples), num_segs)
        return predict_views(self, scores, data_samples)

    def _modality(self, data_samples: SampleList) -> str:
        names = {sample.metainfo.get('input_type') for sample in data_samples}
        if None in names or len(names) > 1:
            raise ValueError(
                f'DualModalHead needs one `input_type` in a batch, but got {names}: use '
                "DualModalDataPreprocessor and batch_sampler=dict(type='DualModalBatchSampler')."
            )
        (name,) = names
        if name not in self.classifiers:
            raise ValueError(
                f'DualModalHead got a sample of modality {name!r}, but num_classes is '
                f'{self.num_classes}. Add it there.'
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
                f'Soft labels of the {name} samples have {labels.shape[1]} classes, but num_classes'
                f'[{name!r}]={count} in DualModalHead. Make num_classes of the blending agree.'
            )
        return labels.float() * (1 - self.label_smooth_eps) + self.label_smooth_eps / count
