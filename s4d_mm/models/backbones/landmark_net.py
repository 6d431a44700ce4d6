# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: the landmark network of S2D, frozen, up to the layer that S2D uses.

The network is the MobileFaceNet of InsightFace_Pytorch, trained for 68 landmarks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...converters.landmarks import WHERE_TO_GET_LANDMARKS, landmark_weights
from ...files.checkpoint import load_weights
from ...files.errors import WeightsError
from ..settings import require_positive_ints

STRIDE = 8  # of the feature map, in pixels


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, and a PReLU of each channel if ``act``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        if act:
            self.prelu = nn.PReLU(out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, H, W)."""
        x = self.bn(self.conv(x))
        return self.prelu(x) if self.act else x


class DepthWise(nn.Module):
    """Widen, convolve each channel, narrow; with a skip if ``residual``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        stride: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv = ConvUnit(in_channels, width)
        self.conv_dw = ConvUnit(width, width, 3, stride, width)
        self.project = ConvUnit(width, out_channels, act=False)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, H, W)."""
        out = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class ResidualStage(nn.Module):
    """Several residual :class:`DepthWise`."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(DepthWise(channels, channels, width, residual=True) for _ in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, H, W)."""
        return self.model(x)


@MODELS.register_module()
class LandmarkMobileFaceNet(BaseModule):
    """Feature map of a face-landmark network, frozen (S2D, arXiv 2312.05447).

    MobileFaceNet up to ``conv_4``; the layers after that, which find the landmarks, are left out.
    The network is always in evaluation and computes without gradient. It needs trained weights,
    from ``checkpoint`` or from the checkpoint of the whole model: without them it refuses to run.

    Args:
        checkpoint (str, optional): File or address of the trained weights. They are read before a
            training, or at the first use, unless a checkpoint of the model has brought them.
            Defaults to None.
        input_size (int): Height and width in pixels that frames are resized to, a multiple of 8.
            The map has an eighth of it. Defaults to 112.
        channels (Sequence[int]): Channels of the stem, of ``conv_3`` and of ``conv_4``. Defaults
            to (64, 64, 128).
        widths (Sequence[int]): Inner channels of ``conv_23``, ``conv_3``, ``conv_34`` and
            ``conv_4``. Defaults to (128, 128, 256, 256).
        depths (Sequence[int]): Units of ``conv_3`` and of ``conv_4``. Defaults to (4, 6).
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
        for name, values, count in (
            ('channels', channels, 3),
            ('widths', widths, 4),
            ('depths', depths, 2),
        ):
            if len(values) != count:
                raise ValueError(
                    f'{name} of LandmarkMobileFaceNet must have {count} numbers, but is {values!r}.'
                )
            require_positive_ints(
                'LandmarkMobileFaceNet', **{f'{name}[{i}]': v for i, v in enumerate(values)}
            )
        require_positive_ints('LandmarkMobileFaceNet', input_size=input_size)
        if input_size % STRIDE:
            raise ValueError(
                f'input_size of LandmarkMobileFaceNet must be a multiple of {STRIDE}, but is '
                f'{input_size}.'
            )
        self.checkpoint = checkpoint
        self.input_size = input_size
        self.out_channels = channels[2]
        self.has_weights = False
        stem, middle, last = channels
        self.conv1 = ConvUnit(3, stem, 3, 2)
        self.conv2_dw = ConvUnit(stem, stem, 3, 1, stem)
        self.conv_23 = DepthWise(stem, middle, widths[0], 2)
        self.conv_3 = ResidualStage(middle, widths[1], depths[0])
        self.conv_34 = DepthWise(middle, last, widths[2], 2)
        self.conv_4 = ResidualStage(last, widths[3], depths[1])
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
        """Read ``checkpoint``, if there is one and no weights were loaded before.

        Raises:
            WeightsError: If the file is not of a landmark network of these sizes.
            WeightsNotFoundError: If there is no such file.
        """
        if self.checkpoint is not None and not self.has_weights:
            self.load_state_dict(
                landmark_weights(load_weights(self.checkpoint), self.state_dict(), self.checkpoint)
            )

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
        """Compute the feature map.

        Args:
            x (Tensor): Frames (M, 3, H, W), normalised as for the ViT (S2D gives the very same).

        Returns:
            Tensor: (M, channels, input_size / 8, input_size / 8).

        Raises:
            WeightsError: If the network has no trained weights.
        """
        self.require_weights()
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size,) * 2, mode='bilinear', align_corners=True)
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        return self.conv_4(self.conv_34(self.conv_3(x)))

    def require_weights(self) -> None:
        """Read ``checkpoint`` unless there are trained weights.

        Raises:
            WeightsError: If there are none after that.
        """
        if self.has_weights:
            return
        self.init_weights()
        if not self.has_weights:
            raise WeightsError(
                'LandmarkMobileFaceNet has no trained weights, and S2D is of no use without them. '
                'Give the file in model.backbone.landmark.checkpoint, or a checkpoint of the '
                f'model that holds them. {WHERE_TO_GET_LANDMARKS}'
            )
