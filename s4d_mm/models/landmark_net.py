# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: the landmark network of S2D, frozen, up to the layer that S2D uses.

The network is the MobileFaceNet of InsightFace_Pytorch, trained for 68 landmarks.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..files.checkpoint import StateDict, load_weights
from ..files.errors import WeightsError
from .state_dict import group_keys

WHERE_TO_GET_LANDMARKS = (
    'The file is landmark/mobilefacenet_model_best.pth.tar of https://github.com/MSA-LMC/S2D, the '
    'same as in checkpoint/ of https://github.com/cunjian/pytorch_face_landmark (git blob '
    '3f7d78be085b0dc33ec914bc1d70fc991ba04bfa). It has no licence, so that it is not given here.'
)
STRIDE = 8  # of the feature map, in pixels
# layers after the one that S2D uses
TAIL = ('conv_45.', 'conv_5.', 'conv_6_sep.', 'output_layer.')


def conv_unit(channels: int, out: int, kernel: int = 1, **options) -> nn.Sequential:
    """Convolution without bias, batch norm, and a PReLU of each channel."""
    conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False, **options)
    layers = OrderedDict(conv=conv, bn=nn.BatchNorm2d(out), prelu=nn.PReLU(out))
    return nn.Sequential(layers)


class DepthWise(nn.Sequential):
    """Widen, convolve each channel, narrow; with a skip if ``residual``, else at half the size."""

    def __init__(self, channels: int, out: int, width: int, residual: bool = False) -> None:
        super().__init__()
        self.conv = conv_unit(channels, width)
        self.conv_dw = conv_unit(width, width, 3, stride=1 if residual else 2, groups=width)
        self.project = conv_unit(width, out)[:2]  # no PReLU
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, H, W)."""
        return x + super().forward(x) if self.residual else super().forward(x)


def residual_stage(channels: int, width: int, depth: int) -> nn.Sequential:
    """Several residual :class:`DepthWise`."""
    units = [DepthWise(channels, channels, width, residual=True) for _ in range(depth)]
    return nn.Sequential(OrderedDict(model=nn.Sequential(*units)))


@MODELS.register_module()
class LandmarkMobileFaceNet(BaseModule):
    """Feature map of a face-landmark network, frozen (S2D, arXiv 2312.05447).

    MobileFaceNet up to ``conv_4``. It is always in evaluation and computes without gradient.
    Without trained weights it refuses to run.

    Args:
        checkpoint (str, optional): File or address of the trained weights. They are read before a
            training, or at the first use, unless a checkpoint of the model has brought them.
        input_size (int): Height and width in pixels that frames are resized to, a multiple of 8.
            The map has an eighth of it.
        channels (Sequence[int]): Channels of the stem, of ``conv_3`` and of ``conv_4``.
        widths (Sequence[int]): Inner channels of ``conv_23``, ``conv_3``, ``conv_34`` and
            ``conv_4``.
        depths (Sequence[int]): Units of ``conv_3`` and of ``conv_4``.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        input_size: int = 112,
        channels: Sequence[int] = (64, 64, 128),
        widths: Sequence[int] = (128, 128, 256, 256),
        depths: Sequence[int] = (4, 6),
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.input_size = input_size
        self.has_weights = False
        stem, middle, self.out_channels = channels
        self.conv1 = conv_unit(3, stem, 3, stride=2)
        self.conv2_dw = conv_unit(stem, stem, 3, groups=stem)
        self.conv_23 = DepthWise(stem, middle, widths[0])
        self.conv_3 = residual_stage(middle, widths[1], depths[0])
        self.conv_34 = DepthWise(middle, self.out_channels, widths[2])
        self.conv_4 = residual_stage(self.out_channels, widths[3], depths[1])
        self.requires_grad_(False)
        super().train(False)

    @property
    def grid(self) -> int:
        """Rows, and columns, of the feature map."""
        return self.input_size // STRIDE

    def train(self, mode: bool = True) -> 'LandmarkMobileFaceNet':
        """Stay in evaluation, whatever the mode."""
        return super().train(False)

    def init_weights(self) -> None:
        """Read ``checkpoint``, if there is one and no weights were loaded before."""
        if self.checkpoint is None or self.has_weights:
            return
        self.load_state_dict(cut_tail(load_weights(self.checkpoint), self.checkpoint))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # the parts load after this: what they find is what counts
        self.has_weights |= all(
            getattr(state_dict.get(prefix + key), 'shape', None) == value.shape
            for key, value in self.state_dict().items()
            if not key.endswith('num_batches_tracked')
        )

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Feature map (M, channels, input_size / 8, input_size / 8) of frames (M, 3, H, W).

        The frames are normalised as for the ViT: S2D gives the very same.
        """
        self.require_weights()
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size,) * 2, mode='bilinear', align_corners=True)
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        return self.conv_4(self.conv_34(self.conv_3(x)))

    def require_weights(self) -> None:
        """Read ``checkpoint`` unless there are trained weights; raise if there are none then."""
        self.init_weights()
        if not self.has_weights:
            raise WeightsError(
                'LandmarkMobileFaceNet has no trained weights, and S2D is of no use without them. '
                'Give the file in model.backbone.landmark.checkpoint, or a checkpoint of the '
                f'model that holds them. {WHERE_TO_GET_LANDMARKS}'
            )


def is_landmark_net(state_dict: StateDict) -> bool:
    """Whether weights are those of a MobileFaceNet."""
    return {'conv1.conv.weight', 'conv_4.model.0.project.conv.weight'} <= state_dict.keys()


def cut_tail(state_dict: StateDict, source: str) -> StateDict:
    """Weights of a landmark file without the layers that S2D does not use, as float32.

    Raises:
        WeightsError: Naming the file ``source``, if it is not of a MobileFaceNet.
    """
    if not is_landmark_net(state_dict):
        raise WeightsError(
            f'{source} is not the landmark network of S2D, a MobileFaceNet. It has:\n'
            f'{group_keys(state_dict)}\n{WHERE_TO_GET_LANDMARKS}'
        )
    return {
        k: v.float() if v.is_floating_point() else v
        for k, v in state_dict.items()
        if isinstance(v, Tensor) and not k.startswith(TAIL)
    }
