# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation of a training batch on the device: torchvision's transforms, windows, Mixup pairs.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmaction.models.utils import CutmixBlending, MixupBlending
from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.transforms import v2

from ..rand_augment import Color, RandAugmentIncreasing, per_channel


class BatchAugment(nn.Module):
    """Apply a transform of torchvision to each sample of a batch.

    Each sample has its own random numbers, from torch's generators; all its views and frames are
    augmented alike. ``transform`` takes and returns uint8 pixels (..., 3, H, W).
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """Augmented copy of uint8 clips (B, V, 3, T, H, W) or images (B, V, 3, H, W)."""
        if x.dtype != torch.uint8 or x.ndim not in (5, 6) or x.shape[2] != 3:
            raise ValueError(
                f'{type(self).__name__} needs uint8 clips (B, V, 3, T, H, W) or images '
                f'(B, V, 3, H, W), but got {x.dtype} of the shape {tuple(x.shape)}. End the '
                'pipeline with FormatShape, and leave Normalize out.'
            )
        frames = x.movedim(2, -3)  # B V [T] 3 H W
        out = torch.stack([self.transform(sample) for sample in frames])
        return out.movedim(-3, 2).contiguous()


@MODELS.register_module()
class BatchRandAugment(BatchAugment):
    """RandAugment (arXiv 1909.13719) on the device.

    The options are those of ``ClipRandAugment``, and so are the operations, but torchvision's
    for tensors, so pixels differ a little from Pillow's.

    Args:
        policies (str): 'timm_increasing', the only set of operations here.
        num_policies (int): Operations a sample, each done with probability 0.5.
        magnitude_level (float): Strength, 0..10.
        magnitude_std (float): Standard deviation of the strength.
        hparams (dict, optional): ``pad_val``, the colour of what comes from outside of the
            picture, 0..255, a number or one for each channel (default 128); ``interpolation``,
            'nearest' or 'bilinear' (the default), since torchvision moves tensors by no other.

    Examples:
        >>> augment = BatchRandAugment('timm_increasing', 4, 7, 0.5)
        >>> clips = torch.zeros(2, 1, 3, 16, 160, 160, dtype=torch.uint8)
        >>> augment(clips).shape
        torch.Size([2, 1, 3, 16, 160, 160])
    """

    def __init__(
        self,
        policies: str,
        num_policies: int,
        magnitude_level: float,
        magnitude_std: float = 0.0,
        hparams: dict | None = None,
    ) -> None:
        hparams = {'interpolation': 'bilinear', **(hparams or {})}
        super().__init__(
            RandAugmentIncreasing(policies, num_policies, magnitude_level, magnitude_std, **hparams)
        )


@MODELS.register_module()
class BatchRandomResizedCrop(BatchAugment):
    """Cut a random window out of each sample, resize it, and mirror some.

    It is resized bilinearly without antialiasing, as by OpenCV in the workers.

    Args:
        size (int): Height and width of the result.
        area_range (tuple[float]): Smallest and largest share of the area.
        flip_ratio (float): Share of the samples that are mirrored left to right.
    """

    def __init__(
        self, size: int, area_range: tuple[float, float] = (0.08, 1.0), flip_ratio: float = 0.0
    ) -> None:
        super().__init__(
            nn.Sequential(
                v2.RandomResizedCrop(size, scale=area_range, antialias=False),
                v2.RandomHorizontalFlip(flip_ratio),
            )
        )


@MODELS.register_module()
class BatchRandomErasing(BatchAugment):
    """Random Erasing (arXiv 1708.04896) on the device.

    A window of some samples, the same in all their views and frames, becomes one colour or noise.
    The options are those of mmpretrain's ``RandomErasing``. A window that does not fit into the
    picture is drawn again, up to 10 times, as in timm.

    Args:
        erase_prob (float): Share of the samples.
        min_area_ratio (float): Smallest share of the area.
        max_area_ratio (float): Largest share of the area.
        mode (str): 'const' for one colour, 'rand' for normal noise, new for each frame.
        fill_color (float | Sequence[float]): The colour, or the mean of the noise, 0..255, a
            number or one for each channel.
        fill_std (float | Sequence[float], optional): Standard deviation of the noise; needed for
            'rand'.
    """

    def __init__(
        self,
        erase_prob: float = 0.5,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 0.4,
        mode: str = 'const',
        fill_color: Color = 128,
        fill_std: Color | None = None,
    ) -> None:
        if mode not in ('const', 'rand') or (mode == 'rand') != (fill_std is not None):
            raise ValueError(
                "mode of BatchRandomErasing must be 'const', or 'rand' with fill_std, but got "
                f'mode={mode!r} and fill_std={fill_std!r}.'
            )
        options = dict(p=erase_prob, scale=(min_area_ratio, max_area_ratio), ratio=(3 / 10, 10 / 3))
        if mode == 'rand':
            options['std'] = per_channel(fill_std)
        kind = v2.RandomErasing if mode == 'const' else ErasingWithNoise
        super().__init__(kind(value=per_channel(fill_color), **options))


class ErasingWithNoise(v2.RandomErasing):
    """torchvision's RandomErasing with normal noise around ``value``, ``std`` in grey levels."""

    def __init__(self, std: Sequence[float], **kwargs) -> None:
        super().__init__(**kwargs)
        self.register_buffer('mean', torch.tensor(self.value)[:, None, None], persistent=False)
        self.register_buffer('std', torch.tensor(std)[:, None, None], persistent=False)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Erase the window of ``params``, if one was found."""
        if params['v'] is not None:
            shape = (*inpt.shape[:-2], params['h'], params['w'])
            noise = torch.randn(shape, device=inpt.device) * self.std + self.mean
            params = dict(params, v=noise.round().clamp(0, 255))
        return super().transform(inpt, params)


def crop_and_resize(x: Tensor, boxes: Tensor, size: int, interpolation: str = 'bilinear') -> Tensor:
    """Cut the windows of ``RandomCropBoxes`` out of a batch and resize them.

    The result is that of ``ClipRandomResizedCrop`` before that one rounds it to whole grey levels.

    Args:
        x (Tensor): Clips or images, uint8 or float, (B, 3, [T, ]H, W).
        boxes (Tensor): int64, on the host, (B, V, 5): first column, first row, column after the
            last, row after the last, 1 to mirror left to right.
        size (int): Height and width of the result.
        interpolation (str): 'bilinear' or 'bicubic'.

    Returns:
        Tensor: float32, 0..255, (B, V, 3, [T, ]size, size).
    """
    out = torch.empty((*boxes.shape[:2], *x.shape[1:-2], size, size), device=x.device)
    for sample, boxes_of_sample, views in zip(x, boxes.tolist(), out):
        for (left, top, right, bottom, mirror), view in zip(boxes_of_sample, views):
            window = sample[..., top:bottom, left:right].float().flatten(0, -3)  # 3*T rows columns
            window = F.interpolate(window[None], (size, size), mode=interpolation)[0]
            view.copy_((window.flip(-1) if mirror else window).view_as(view))
    return out.clamp_(0, 255)  # bicubic overshoots


@MODELS.register_module()
class ReversedMixupBlending(MixupBlending):
    """mmaction2's ``MixupBlending``, but the first sample is mixed with the last, and so on.

    As in timm and the authors' code. In mmaction2 a sample may be its own partner.

    Args:
        num_classes (int): Number of classes.
        alpha (float): Both parameters of the Beta distribution of the share.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix float pixels (B, ..., H, W) and one-hot labels (B, num_classes)."""
        share = self.beta.sample().to(imgs)
        return (
            share * imgs + (1 - share) * imgs.flip(0),
            share * label + (1 - share) * label.flip(0),
        )


@MODELS.register_module()
class ReversedCutmixBlending(CutmixBlending):
    """mmaction2's ``CutmixBlending``, but the first sample gets a window of the last, and so on.

    The label's share is that of the pixels, also where the window is cut off at the border.

    Args:
        num_classes (int): Number of classes.
        alpha (float): Both parameters of the Beta distribution of the share.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix float pixels (B, ..., H, W), in place, and one-hot labels (B, num_classes)."""
        left, top, right, bottom = map(int, self.rand_bbox(imgs.shape, self.beta.sample()))
        window = imgs[..., top:bottom, left:right]
        window.copy_(window.flip(0))
        share = 1 - window[0].numel() / imgs[0].numel()
        return imgs, share * label + (1 - share) * label.flip(0)
