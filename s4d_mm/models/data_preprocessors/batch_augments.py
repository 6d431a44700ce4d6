# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation of a training batch on the device, by torchvision's transforms.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

Color = Union[float, Sequence[float]]


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

    The options are those of mmpretrain's ``RandAugment``. The operations are
    torchvision's, so pixels differ a little from that one's.

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
        hparams: Optional[dict] = None,
    ) -> None:
        part = 'BatchRandAugment'
        hparams = {'pad_val': 128, 'interpolation': 'bilinear', **(hparams or {})}
        known = set(hparams) == {'pad_val', 'interpolation'}
        positive = isinstance(num_policies, int) and num_policies > 0
        how = hparams['interpolation']
        require(policies == 'timm_increasing', part, 'policies', policies, "'timm_increasing'")
        require(positive, part, 'num_policies', num_policies, 'a positive int')
        require(0 <= magnitude_level <= 10, part, 'magnitude_level', magnitude_level, '0 to 10')
        require(magnitude_std >= 0, part, 'magnitude_std', magnitude_std, '0 or more')
        require(known, part, 'hparams', hparams, 'a dict of pad_val and interpolation')
        require(
            how in ('nearest', 'bilinear'), part, 'interpolation', how, "'nearest' or 'bilinear'"
        )
        super().__init__(
            RandAugmentIncreasing(
                num_policies,
                magnitude_level / 10,
                magnitude_std / 10,
                interpolation=v2.InterpolationMode(how),
                fill=per_channel(hparams['pad_val'], part, 'pad_val'),
            )
        )


class RandAugmentIncreasing(v2.RandAugment):
    """torchvision's RandAugment with operations and strengths of timm's "increasing" set.

    In timm's words it is ``rand-m{10 * level}-n{num_ops}-mstd{10 * std}-inc1``.

    Args:
        num_ops (int): Operations a sample, each done with probability 0.5.
        level (float): Strength, 0..1.
        std (float): Standard deviation of the level.
        **kwargs: ``interpolation`` and ``fill`` of torchvision's RandAugment.
    """

    # strength of an operation, in torchvision's units, by level (0..1) and size
    # of the picture; whether its sign is random
    _AUGMENTATION_SPACE = {
        'AutoContrast': (lambda level, height, width: 0, False),
        'Equalize': (lambda level, height, width: 0, False),
        'Invert': (lambda level, height, width: 0, False),
        'Rotate': (lambda level, height, width: 30 * level, True),
        'Posterize': (lambda level, height, width: 4 - int(4 * level), False),
        'Solarize': (lambda level, height, width: 256 - int(256 * level), False),
        'SolarizeAdd': (lambda level, height, width: int(110 * level), False),
        'Color': (lambda level, height, width: 0.9 * level, True),
        'Contrast': (lambda level, height, width: 0.9 * level, True),
        'Brightness': (lambda level, height, width: 0.9 * level, True),
        'Sharpness': (lambda level, height, width: 0.9 * level, True),
        'ShearX': (lambda level, height, width: 0.3 * level, True),
        'ShearY': (lambda level, height, width: 0.3 * level, True),
        'TranslateX': (lambda level, height, width: 0.45 * level * width, True),
        'TranslateY': (lambda level, height, width: 0.45 * level * height, True),
    }

    def __init__(self, num_ops: int, level: float, std: float, **kwargs) -> None:
        super().__init__(num_ops, **kwargs)
        self.level = level
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """Augment uint8 pixels (..., 3, H, W), all frames alike."""
        for _ in range(self.num_ops):
            name, (strength, signed) = self._get_random_item(self._AUGMENTATION_SPACE)
            if torch.rand(()) < 0.5:
                continue
            level = self.level + self.std * float(torch.randn(()))
            magnitude = strength(min(max(level, 0), 1), *x.shape[-2:])
            if signed and torch.rand(()) < 0.5:
                magnitude = -magnitude
            x = self._apply_image_or_video_transform(
                x, name, magnitude, self.interpolation, self._fill
            )
        return x

    def _apply_image_or_video_transform(
        self, image: Tensor, transform_id: str, magnitude: float, *args: Any
    ) -> Tensor:
        """Do an operation; two are not as in torchvision."""
        if transform_id == 'Solarize':  # 256 is no grey level, and torchvision refuses it
            return image if magnitude > 255 else TF.solarize(image, magnitude)
        if transform_id == 'SolarizeAdd':
            return torch.where(image < 128, image + magnitude, image)
        return super()._apply_image_or_video_transform(image, transform_id, magnitude, *args)


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
        fill_std: Optional[Color] = None,
    ) -> None:
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


class ErasingWithNoise(v2.RandomErasing):
    """torchvision's RandomErasing with normal noise of these grey levels.

    Args:
        mean (list[float]): Of each channel, 0..255.
        std (list[float]): Standard deviation of each channel.
        **kwargs: ``p``, ``scale`` and ``ratio`` of torchvision's RandomErasing.
    """

    def __init__(self, mean: list[float], std: list[float], **kwargs) -> None:
        super().__init__(**kwargs)
        self.register_buffer('mean', torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer('std', torch.tensor(std)[:, None, None], persistent=False)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Erase the window of ``params``, if one was found."""
        if params['v'] is not None:
            shape = (*inpt.shape[:-2], params['h'], params['w'])
            noise = torch.randn(shape, device=inpt.device) * self.std + self.mean
            params = dict(params, v=noise.round().clamp(0, 255))
        return super().transform(inpt, params)


def require(fits: bool, part: str, option: str, value: Any, needs: str) -> None:
    """Raise a ``ValueError`` about an option that does not fit."""
    if not fits:
        raise ValueError(f'{option} of {part} must be {needs}, but got {value!r}.')


def per_channel(value: Color, part: str, option: str) -> list[float]:
    """A grey level, or one for each of 3 channels, as a list of 3."""
    values = list(value) if isinstance(value, Sequence) else [value] * 3
    fits = len(values) == 3 and all(isinstance(v, (int, float)) and 0 <= v <= 255 for v in values)
    require(fits, part, option, value, 'a number from 0 to 255, or one for each of 3 channels')
    return [float(v) for v in values]


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
