# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning head: TSN's consensus over the frames of a clip.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from mmaction.models.heads import TSNHead
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ClipTSNHead(TSNHead):
    """mmaction2's ``TSNHead`` for the feature maps of ``Recognizer3D``.

    ``TSNHead`` needs to be told how many frames a sample has, which
    ``Recognizer3D`` does not do; here the feature map's own T are the segments
    of the consensus. The arguments are those of ``TSNHead``.
    """

    def forward(self, x: Tensor, num_segs: int = 1, **kwargs) -> Tensor:
        """Class scores.

        Args:
            x (Tensor): Feature map (B, C, T, H, W), or (B, C, H, W) with
                ``num_segs`` rows per sample.
            num_segs (int): As in ``TSNHead``, for 4-D maps. Defaults to 1.
            **kwargs: What mmaction2 hands to heads; not needed.

        Returns:
            Tensor: Scores (B, classes).
        """
        if x.ndim == 5:
            num_segs = x.shape[2]
            x = x.transpose(1, 2).flatten(0, 1)  # B*T C H W
        return super().forward(x, num_segs, **kwargs)
