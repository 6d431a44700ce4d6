# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: any image backbone on the frames of clips.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from ..layers.token_layout import Features


@MODELS.register_module()
class FrameWiseBackbone(BaseModule):
    """Run an image backbone on images, and on each frame of clips.

    With it, backbones of mmpretrain (or 2-D ones of mmaction2) learn from
    images and clips in mmaction2's ``Recognizer3D``, with its necks and heads.
    (mmaction2's ``Recognizer2D`` takes them too, but without a neck.)

    Args:
        backbone (dict): Config of the backbone, which maps (B, 3, H, W) to
            tokens (B, N, C), a feature map (B, C, h, w), pooled features
            (B, C), or a tuple or list of those. A tuple of one is unpacked, as
            mmaction2 does with mmpretrain's backbones.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to
            None.

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
        """Encode images or clips.

        Args:
            x (Tensor): Images (B, 3, H, W) or clips (B, 3, T, H, W).

        Returns:
            Tensor | tuple | list: The backbone's output for images. For
            clips, in its place: feature maps (B, C, T, h, w), tokens
            (B, T*N, C), frame after frame, or pooled features (B, T, C).
        """
        is_clip = x.ndim == 5
        # B 3 T H W -> B*T 3 H W
        out = self.backbone(x.transpose(1, 2).flatten(0, 1) if is_clip else x)
        if isinstance(out, tuple) and len(out) == 1:
            out = out[0]
        return _join_frames(out, x.shape[2]) if is_clip else out


def _join_frames(x: Features, frames: int) -> Features:
    if isinstance(x, (tuple, list)):
        return type(x)(_join_frames(part, frames) for part in x)
    x = x.unflatten(0, (-1, frames))  # B T ...
    if x.ndim == 4:  # B T N C -> B T*N C
        return x.flatten(1, 2)
    return x.transpose(1, 2) if x.ndim == 5 else x  # B T C h w -> B C T h w
