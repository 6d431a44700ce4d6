# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What lets S4D's parts and those of mmaction2 and mmpretrain work with each other.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from mmaction.models.heads import I3DHead, TSNHead
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from .joint import SampleList, predict_views
from .moae import MoAENeck
from .state_dict import hand_over_blocks
from .tokens import Features, pool


@MODELS.register_module()
class FrameWiseBackbone(BaseModule):
    """Run an image backbone on images, and on each frame of clips.

    With it, backbones of mmpretrain (or 2-D ones of mmaction2) learn from images and clips in
    mmaction2's ``Recognizer3D``, with its necks and heads. (mmaction2's ``Recognizer2D`` takes
    them too, but without a neck.)

    Args:
        backbone (dict): Config of the backbone, which maps (B, 3, H, W) to tokens (B, N, C), a
            feature map (B, C, h, w), pooled features (B, C), or a tuple or list of those. A tuple
            of one is unpacked, as mmaction2 does with mmpretrain's backbones.
        init_cfg (dict, optional): mmengine initialisation config.

    Examples:
        >>> import mmpretrain.models, torch
        >>> model = FrameWiseBackbone(dict(type='mmpretrain.ResNet', depth=18))
        >>> model(torch.zeros(1, 3, 8, 64, 64)).shape
        torch.Size([1, 512, 8, 2, 2])
    """

    def __init__(self, backbone: dict, init_cfg: dict = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(self, x: Tensor) -> Features:
        """The backbone's output for images (B, 3, H, W), or for clips (B, 3, T, H, W).

        Of clips: feature maps (B, C, T, h, w), tokens (B, T*N, C), frame after frame, or pooled
        features (B, T, C).
        """
        is_clip = x.ndim == 5
        # B 3 T H W -> B*T 3 H W
        out = self.backbone(x.transpose(1, 2).flatten(0, 1) if is_clip else x)
        if isinstance(out, tuple) and len(out) == 1:
            out = out[0]
        return _join_frames(out, x.shape[2]) if is_clip else out

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """That of the image backbone, as ``S4DViT.get_layer_depth``."""
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')


def _join_frames(x: Features, frames: int) -> Features:
    if isinstance(x, (tuple, list)):
        return type(x)(_join_frames(part, frames) for part in x)
    x = x.unflatten(0, (-1, frames))  # B T ...
    if x.ndim == 4:  # B T N C -> B T*N C
        return x.flatten(1, 2)
    return x.transpose(1, 2) if x.ndim == 5 else x  # B T C h w -> B C T h w


@MODELS.register_module()
class ClipTSNHead(TSNHead):
    """mmaction2's ``TSNHead`` for the feature maps of ``Recognizer3D``.

    ``TSNHead`` needs to be told how many frames a sample has, which ``Recognizer3D`` does not do;
    here the feature map's own T are the segments of the consensus.
    """

    def forward(self, x: Tensor, num_segs: int = 1, **kwargs) -> Tensor:
        """Scores (B, classes) of maps (B, C, T, H, W), or (B * num_segs, C, H, W)."""
        if x.ndim == 5:
            num_segs = x.shape[2]
            x = x.transpose(1, 2).flatten(0, 1)  # B*T C H W
        return super().forward(x, num_segs, **kwargs)


@MODELS.register_module()
class ViewsI3DHead(I3DHead):
    """``I3DHead`` that also takes ``SampleClipViews(merge_equal=True)``.

    A clip whose views are all the same frames is then computed once.
    """

    def predict(self, feats: Tensor, data_samples: SampleList, **kwargs) -> SampleList:
        """Predictions of maps (sum of V, C, T, H, W): see :func:`predict_views`."""
        return predict_views(self, self(feats, **kwargs), data_samples)


@MODELS.register_module()
class MoAEImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with :class:`MoAENeck`.

    The neck's loss is added to those of the head. mmpretrain's heads want pooled features, and no
    ``GlobalAveragePooling`` can follow the neck here, so the feature map or tokens of the last
    stage are averaged. As in :class:`DualModalRecognizer`, the neck gets the blocks of a whole
    encoder's checkpoint that the backbone does not have. Other necks work as in
    ``ImageClassifier``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(hand_over_blocks)

    def extract_feat(self, inputs: Tensor, stage: str = 'neck'):
        """Features, as ``ImageClassifier.extract_feat`` returns them."""
        return self._extract(inputs, stage)[0]

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of the head and of the neck for images (B, 3, H, W)."""
        feats, neck_losses = self._extract(inputs, 'neck', data_samples)
        return {**self.head.loss(feats, data_samples), **neck_losses}

    def _extract(self, inputs: Tensor, stage: str, data_samples: list | None = None) -> tuple:
        x, losses = self.backbone(inputs), dict()
        if stage == 'backbone':
            return x, losses
        if isinstance(self.neck, MoAENeck):
            x, losses = self.neck(x, data_samples)
        elif self.with_neck:
            x = self.neck(x)
        x = (pool(x),)  # the heads expect a tuple
        return (self.head.pre_logits(x) if stage == 'pre_logits' else x), losses
