# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation of a training batch on the device, by torchvision's transforms.

These are imported when an augmentation is built, since that takes a second.
Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...augment_options import Color, per_channel, require


class BatchAugment(nn.Module):
    """Apply a transform of torchvision to each sample of a batch.

    Each sample has its own random numbers, from torch's generators; all its
    views and frames are augmented alike.

    Args:
        transform (nn.Module): Takes and returns uint8 pixels (..., 3, H, W).
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            x (Tensor): uint8, clips (B, V, 3, T, H, W) or images
                (B, V, 3, H, W).

        Returns:
            Tensor: uint8, in the same order of axes; ``x`` stays as it is.

        Raises:
            ValueError: If ``x`` is something else.
        """
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
        num_policies (int): Operations a sample, each done with probability
            0.5.
        magnitude_level (float): Strength, 0..10.
        magnitude_std (float): Standard deviation of the strength. Defaults to
            0.
        hparams (dict, optional): ``pad_val``, the colour of what comes from
            outside of the picture, 0..255, a number or one for each channel
            (default 128); ``interpolation``, 'nearest' or 'bilinear' (the
            default), since torchvision moves tensors by no other. Defaults to
            None.

    Raises:
        ValueError: If an option is out of range.

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
        from ...rand_augment import RandAugmentIncreasing

        super().__init__(
            RandAugmentIncreasing.from_options(
                'BatchRandAugment',
                policies,
                num_policies,
                magnitude_level,
                magnitude_std,
                {'pad_val': 128, 'interpolation': 'bilinear', **(hparams or {})},
                ('nearest', 'bilinear'),
            )
        )


@MODELS.register_module()
class BatchRandomResizedCrop(BatchAugment):
    """Cut a random window out of each sample, resize it, and mirror some.

    It is resized bilinearly without antialiasing, as by OpenCV in the workers.

    Args:
        size (int): Height and width of the result.
        area_range (tuple[float]): Smallest and largest share of the area.
            Defaults to (0.08, 1.0).
        flip_ratio (float): Share of the samples that are mirrored left to
            right. Defaults to 0.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self, size: int, area_range: tuple[float, float] = (0.08, 1.0), flip_ratio: float = 0.0
    ) -> None:
        from torchvision.transforms import v2

        part = 'BatchRandomResizedCrop'
        low, high = area_range
        needs = '(smallest, largest), above 0 and at most 1'
        require(isinstance(size, int) and size > 0, part, 'size', size, 'a positive int')
        require(0 < low <= high <= 1, part, 'area_range', area_range, needs)
        require(0 <= flip_ratio <= 1, part, 'flip_ratio', flip_ratio, '0 to 1')
        super().__init__(
            nn.Sequential(
                v2.RandomResizedCrop(size, scale=(low, high), antialias=False),
                v2.RandomHorizontalFlip(flip_ratio),
            )
        )


@MODELS.register_module()
class BatchRandomErasing(BatchAugment):
    """Random Erasing (arXiv 1708.04896) on the device.

    A window of some samples, the same in all their views and frames, becomes
    one colour or noise. The options are those of mmpretrain's
    ``RandomErasing``. A window that does not fit into the picture is drawn
    again, up to 10 times, as in timm.

    Args:
        erase_prob (float): Share of the samples. Defaults to 0.5.
        min_area_ratio (float): Smallest share of the area. Defaults to 0.02.
        max_area_ratio (float): Largest share of the area. Defaults to 0.4.
        mode (str): 'const' for one colour, 'rand' for normal noise, new for
            each frame. Defaults to 'const'.
        fill_color (float | Sequence[float]): The colour, or the mean of the
            noise, 0..255, a number or one for each channel. Defaults to 128.
        fill_std (float | Sequence[float], optional): Standard deviation of
            the noise; needed for 'rand'. Defaults to None.

    Raises:
        ValueError: If an option is out of range.
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
        from torchvision.transforms import v2

        from .erasing import ErasingWithNoise

        part = 'BatchRandomErasing'
        areas = (min_area_ratio, max_area_ratio)
        noise = mode == 'rand'
        require(0 <= erase_prob <= 1, part, 'erase_prob', erase_prob, '0 to 1')
        require(
            0 <= areas[0] <= areas[1] <= 1,
            part,
            '(min_area_ratio, max_area_ratio)',
            areas,
            '0 to 1, the smaller one first',
        )
        require(mode in ('const', 'rand'), part, 'mode', mode, "'const' or 'rand'")
        require(
            noise == (fill_std is not None),
            part,
            'fill_std',
            fill_std,
            "given with mode='rand', and only then",
        )
        options = dict(p=erase_prob, scale=areas, ratio=(3 / 10, 10 / 3))
        color = per_channel(fill_color, part, 'fill_color')
        if noise:
            transform = ErasingWithNoise(color, per_channel(fill_std, part, 'fill_std'), **options)
        else:
            transform = v2.RandomErasing(value=color, **options)
        super().__init__(transform)


def crop_and_resize(x: Tensor, boxes: Tensor, size: int, interpolation: str = 'bilinear') -> Tensor:
    """Cut the windows of ``RandomCropBoxes`` out of a batch and resize them.

    The result is that of ``ClipRandomResizedCrop`` before that one rounds it to
    whole grey levels.

    Args:
        x (Tensor): Clips or images, uint8 or float, (B, 3, [T, ]H, W).
        boxes (Tensor): int64, on the host, (B, V, 5): first column, first
            row, column after the last, row after the last, 1 to mirror left to
            right.
        size (int): Height and width of the result.
        interpolation (str): 'bilinear' or 'bicubic'. Defaults to 'bilinear'.

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
