# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation of a training batch on the device, uint8 to uint8.

The options and the random draws are those of mmpretrain's transforms, which
are asked for them on the host; only numbers of the host go to the device, so
the host never waits for it.

Letters: B samples, V views of a sample, C colour channels (3, RGB), T frames,
H and W pixels, S pixels a side of a crop.
"""

import random
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from math import ceil
from typing import Any, Callable, NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.registry import MODELS, TRANSFORMS
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from ...datasets.transforms import RandomCropBoxes
from .device_crops import TAPS, crop_and_resize

WARPS = ('nearest', 'bilinear', 'bicubic')  # what grid_sample knows
Color = Union[float, Sequence[float]]


class ProcessRandom:
    """Within it, ``random`` and ``numpy.random`` draw a stream of this process
    alone.

    A run gives all its processes one seed. Without this, the first samples of
    all GPUs would be augmented alike, the second ones too, and so on. The
    stream starts at the first use, from the next number of ``numpy.random``
    and the rank: it follows the seed of the run, and takes nothing more from
    the numbers outside.
    """

    def __init__(self) -> None:
        self.inner = self.outer = None

    @staticmethod
    def _swap(state: tuple) -> tuple:
        """Set the state of both modules and return the one before."""
        before = random.getstate(), np.random.get_state()
        random.setstate(state[0])
        np.random.set_state(state[1])
        return before

    def __enter__(self) -> None:
        if self.inner is None:
            seed = np.random.RandomState([np.random.randint(2**31 - 1), get_rank()])
            self.inner = (random.Random(seed.bytes(8)).getstate(), seed.get_state())
        self.outer = self._swap(self.inner)

    def __exit__(self, *_: Any) -> None:
        self.inner = self._swap(self.outer)


class BatchAugment(nn.Module, metaclass=ABCMeta):
    """Base of the augmentations: checks the batch, then :meth:`augment`."""

    def forward(self, x: Tensor) -> Tensor:
        """Augment a batch, each sample in its own way, all its views and
        frames alike.

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
                f'{type(self).__name__} needs uint8 clips (B, V, 3, T, H, W) '
                f'or images (B, V, 3, H, W), but got {x.dtype} of the shape '
                f'{tuple(x.shape)}. End the pipeline with FormatShape, and '
                'leave Normalize out.'
            )
        return self.augment(x)

    @abstractmethod
    def augment(self, x: Tensor) -> Tensor:
        """:meth:`forward` of a batch that is checked."""


def build_transform(name: str, **kwargs) -> Any:
    """A transform of mmpretrain, which checks its options and draws.

    Raises:
        ValueError: If it does not take the options.
    """
    try:
        return TRANSFORMS.build(dict(type=name, _scope_='mmpretrain', **kwargs))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Batch{name} takes the options of mmpretrain's {name}, but got "
            f'{kwargs!r}: {error!r}. Correct that option.'
        ) from error


def require(fits: bool, name: str, option: str, value: Any, needs: str) -> None:
    """Raise a ``ValueError`` about an option that does not fit."""
    if not fits:
        raise ValueError(f'{option} of {name} must be {needs}, but got {value!r}.')


def colors(value: Color, name: str, option: str) -> Tensor:
    """A colour, 0..255, as a tensor (3, ) of float32."""
    values = list(value) if isinstance(value, Sequence) else [value] * 3
    require(
        len(values) == 3 and all(isinstance(v, (int, float)) for v in values),
        name,
        option,
        value,
        'a number, or one for each of 3 channels',
    )
    return torch.tensor(values, dtype=torch.float32)


# Operations on the frames of a sample: x, uint8 (..., 3, H, W); the value that
# was drawn; the transform of mmpretrain with the other options; the colour of
# what comes from outside of the picture, (3, 1, 1).


def warp(x: Tensor, matrix: Sequence, interpolation: str, fill: Tensor) -> Tensor:
    """Move pixels by an affine matrix, as OpenCV's ``warpAffine``.

    Not torchvision's ``affine``, which has no 'bicubic' for tensors, and sends
    its matrix to the device in a way that makes the host wait.

    Args:
        x (Tensor): uint8, (..., 3, H, W).
        matrix (Sequence): 2 x 3, from a pixel (column, row, 1) to its place.
        interpolation (str): 'nearest', 'bilinear' or 'bicubic'.
        fill (Tensor): What lies outside, (3, 1, 1), 0..255.

    Returns:
        Tensor: uint8, of the same shape.
    """
    height, width = x.shape[-2:]
    back = cv2.invertAffineTransform(np.array(matrix, np.float64)).tolist()
    column = torch.arange(width, dtype=torch.float32, device=x.device)
    row = torch.arange(height, dtype=torch.float32, device=x.device)[:, None]
    grid = torch.stack(
        [
            (2 * (column * a + (row * b + c)) + 1) / size - 1
            for (a, b, c), size in zip(back, (width, height))
        ],
        -1,
    )  # H W 2
    fill = fill.float()
    frames = x.reshape(-1, *x.shape[-3:]) - fill  # with 0 outside
    frames = F.grid_sample(
        frames,
        grid.expand(len(frames), -1, -1, -1),
        mode=interpolation,
        padding_mode='zeros',
        align_corners=False,
    )
    return frames.add_(fill).round_().clamp_(0, 255).to(x.dtype).view_as(x)


def rotate(x: Tensor, angle: float, transform: Any, fill: Tensor) -> Tensor:
    """Rotate clockwise, in degrees."""
    height, width = x.shape[-2:]
    center = transform.center or ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, -angle, transform.scale)
    return warp(x, matrix, transform.interpolation, fill)


def shear(x: Tensor, value: float, transform: Any, fill: Tensor) -> Tensor:
    """Shear by ``value`` pixels for each pixel of the other axis."""
    matrix = [[1, value, 0], [0, 1, 0]]
    if transform.direction == 'vertical':
        matrix = [[1, 0, 0], [value, 1, 0]]
    return warp(x, matrix, transform.interpolation, fill)


def translate(x: Tensor, value: float, transform: Any, fill: Tensor) -> Tensor:
    """Move by a share of the side."""
    matrix = [[1, 0, value * x.shape[-1]], [0, 1, 0]]
    if transform.direction == 'vertical':
        matrix = [[1, 0, 0], [0, 1, value * x.shape[-2]]]
    return warp(x, matrix, transform.interpolation, fill)


def solarize(x: Tensor, threshold: float, *_: Any) -> Tensor:
    """Invert the levels from ``threshold`` on; above 255 there are none."""
    return x if threshold > 255 else TF.solarize(x, ceil(threshold))


def solarize_add(x: Tensor, value: float, transform: Any, _: Tensor) -> Tensor:
    """Make levels below the threshold brighter."""
    brighter = (x + value).clamp_(max=255).to(x.dtype)
    return torch.where(x < transform.thr, brighter, x)


def sharpen(x: Tensor, value: float, *_: Any) -> Tensor:
    """Away from the smoothed picture (weights 1, in the middle 5).

    Not torchvision's ``adjust_sharpness``, which leaves the border as it is,
    and sends its weights to the device in a way that makes the host wait.
    """
    frames = x.reshape(-1, *x.shape[-3:]).float()
    around = F.pad(frames, (1, 1, 1, 1), mode='reflect')
    smooth = F.avg_pool2d(around, 3, 1).mul_(9).add_(frames, alpha=4)
    smooth = smooth.div_(13).round_()
    frames = frames.mul_(1 + value).add_(smooth, alpha=-value)
    return frames.clamp_(0, 255).to(x.dtype).view_as(x)


class Operation(NamedTuple):
    """How a transform of mmpretrain is done on the device.

    ``parameter`` is its attribute with a fixed value, None where it has no
    value at all; ``signed``, whether the value may become negative.
    """

    apply: Callable
    parameter: Optional[str] = None
    signed: bool = False

    def draw(self, transform: Any) -> Optional[float]:
        """Draw the value, in mmpretrain's way and order."""
        if self.parameter is None:
            return None
        value = getattr(transform, self.parameter)
        if value is None:
            value = transform.random_magnitude()
        if self.signed:
            value = transform.random_negative(value)
        return float(value)


OPERATIONS = dict(
    AutoContrast=Operation(lambda x, *_: TF.autocontrast(x)),
    Equalize=Operation(lambda x, *_: TF.equalize(x)),
    Invert=Operation(lambda x, *_: TF.invert(x)),
    Rotate=Operation(rotate, 'angle', True),
    Posterize=Operation(lambda x, v, *_: TF.posterize(x, ceil(v)), 'bits'),
    Solarize=Operation(solarize, 'thr'),
    SolarizeAdd=Operation(solarize_add, 'magnitude'),
    ColorTransform=Operation(lambda x, v, *_: TF.adjust_saturation(x, 1 + v), 'magnitude', True),
    Contrast=Operation(lambda x, v, *_: TF.adjust_contrast(x, 1 + v), 'magnitude', True),
    Brightness=Operation(lambda x, v, *_: TF.adjust_brightness(x, 1 + v), 'magnitude', True),
    Sharpness=Operation(sharpen, 'magnitude', True),
    Shear=Operation(shear, 'magnitude', True),
    Translate=Operation(translate, 'magnitude', True),
)
# torchvision takes no factor below 0
FACTORS = ('ColorTransform', 'Contrast', 'Brightness')


@MODELS.register_module()
class BatchRandAugment(BatchAugment):
    """RandAugment (arXiv 1909.13719) on the device.

    Each sample has its own operations, the same for all its views and frames.
    Options, policies and draws are those of mmpretrain's ``RandAugment``: with
    one seed the operations and their values are the same. The levels are
    rounded to uint8 after each operation, as there. What differs:

    - An operation that is chosen twice draws twice, as in timm. Under
      ``TransformBroadcaster(share_random_params=True)`` it draws once.
    - ColorTransform and Contrast take the channels as RGB, as timm does on
      Pillow's images. mmpretrain takes them as BGR, which mmaction2's are
      not: a pixel's grey has the weights of red and blue exchanged.
    - ColorTransform, Contrast and Brightness are torchvision's, and up to 2
      levels away from mmcv's, which rounds elsewhere.
    - Rotate, Shear and Translate do not round positions to 1/32 pixel, as
      OpenCV did before its release 5: a level or two.

    Args:
        policies (str | list[dict]): Name or list of policies. mmpretrain's
            names are 'timm_increasing' and 'simple_increasing'.
        num_policies (int): Operations a sample, each done with its ``prob``
            (0.5).
        magnitude_level (float): Strength, from 0 to ``total_level``.
        magnitude_std (float | str): Standard deviation of the strength, or
            'inf' for any from 0 to ``magnitude_level``. Defaults to 0.
        total_level (float): The largest strength. Defaults to 10.
        hparams (dict): Options for all policies that have them: ``pad_val``,
            0..255, a number or one for each channel, and ``interpolation``,
            'nearest', 'bilinear' or 'bicubic'. Defaults to
            ``dict(pad_val=128)``.

    Raises:
        ValueError: If an option is out of range, or a policy has no operation
            on the device.

    Examples:
        >>> augment = BatchRandAugment('timm_increasing', 4, 7, 0.5)
        >>> clips = torch.zeros(2, 1, 3, 16, 160, 160, dtype=torch.uint8)
        >>> augment(clips).shape
        torch.Size([2, 1, 3, 16, 160, 160])
    """

    def __init__(
        self,
        policies: Union[str, list[dict]],
        num_policies: int,
        magnitude_level: float,
        magnitude_std: Union[float, str] = 0.0,
        total_level: float = 10,
        hparams: dict = dict(pad_val=128),
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require(
            isinstance(num_policies, int) and num_policies > 0,
            name,
            'num_policies',
            num_policies,
            'a positive int',
        )
        require(total_level > 0, name, 'total_level', total_level, 'above 0')
        require(
            0 <= magnitude_level <= total_level,
            name,
            'magnitude_level',
            magnitude_level,
            f'from 0 to total_level={total_level}',
        )
        require(
            magnitude_std == 'inf' or isinstance(magnitude_std, (int, float)),
            name,
            'magnitude_std',
            magnitude_std,
            "a number or 'inf'",
        )
        self.transform = build_transform(
            'RandAugment',
            policies=policies,
            num_policies=num_policies,
            magnitude_level=magnitude_level,
            magnitude_std=magnitude_std,
            total_level=total_level,
            hparams=hparams,
        )
        fills = []
        for transform in self.transform:
            policy = type(transform).__name__
            require(
                policy in OPERATIONS, name, 'policies', policy, f'of the types {tuple(OPERATIONS)}'
            )
            how = getattr(transform, 'interpolation', WARPS[0])
            require(how in WARPS, name, f'interpolation of {policy}', how, f'one of {WARPS}')
            if policy in FACTORS:
                limits = transform.magnitude_range or [transform.magnitude]
                lowest = min(limits)
                if transform.random_negative_prob > 0:
                    lowest = min(lowest, -max(limits))
                require(
                    lowest >= -1,
                    name,
                    f'magnitude of {policy}',
                    limits,
                    'from -1 to 1 (more, if never made negative)',
                )
            fills.append(colors(getattr(transform, 'pad_val', 0), name, 'pad_val'))
        self.register_buffer(
            'fills',
            torch.stack(fills)[..., None, None],  # policies 3 1 1
            persistent=False,
        )

    def draw(self) -> list[tuple[int, Optional[float]]]:
        """Draw the operations of a sample: which policy, and its value."""
        drawn = []
        for i in self.transform.random_policy_indices():
            transform = self.transform.transforms[i]
            if not transform.random_disable():
                drawn.append((i, self._operation(i).draw(transform)))
        return drawn

    def _operation(self, i: int) -> Operation:
        return OPERATIONS[type(self.transform.transforms[i]).__name__]

    def operate(self, x: Tensor, drawn: list[tuple[int, Optional[float]]]) -> Tensor:
        """Do these operations on frames, uint8 (..., 3, H, W)."""
        for i, value in drawn:
            x = self._operation(i).apply(x, value, self.transform.transforms[i], self.fills[i])
        return x

    def augment(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        # B V C [T] H W -> B V [T] C H W
        for frames, result in zip(x.movedim(2, -3), out.movedim(2, -3)):
            result.copy_(self.operate(frames, self.draw()))
        return out

    def extra_repr(self) -> str:
        return f'{self.transform!r}'


@MODELS.register_module()
class BatchRandomResizedCrop(BatchAugment):
    """Cut a random window out of each sample, resize it, and mirror some.

    The windows are those of :class:`RandomCropBoxes`, one for all views and
    frames of a sample, and the pixels those of :class:`ClipRandomResizedCrop`
    up to 1 level, where both round.

    Args:
        size (int): S, height and width of the result.
        interpolation (str): 'bilinear' or 'bicubic'. Defaults to 'bilinear'.
        **kwargs: ``area_range``, ``aspect_ratio_range`` and ``flip_ratio`` of
            :class:`RandomCropBoxes`.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(self, size: int, interpolation: str = 'bilinear', **kwargs) -> None:
        super().__init__()
        name = type(self).__name__
        require(isinstance(size, int) and size > 0, name, 'size', size, 'a positive int')
        require(
            interpolation in TAPS, name, 'interpolation', interpolation, f'one of {tuple(TAPS)}'
        )
        require(
            'times' not in kwargs,
            name,
            'times',
            kwargs.get('times'),
            'left out: a sample has one window',
        )
        self.size = size
        self.interpolation = interpolation
        self.boxes = RandomCropBoxes(**kwargs)

    def augment(self, x: Tensor) -> Tensor:
        batch, views = x.shape[:2]
        boxes = [self.boxes.draw(*x.shape[-2:]) for _ in range(batch)]
        boxes = np.repeat(boxes, views, 0)  # B*V 1 5
        boxes = torch.from_numpy(boxes).to(x.device, non_blocking=True)
        out = crop_and_resize(x.flatten(0, 1), boxes, self.size, self.interpolation)
        return out.round_().to(x.dtype).unflatten(0, (batch, views))[:, :, 0]

    def extra_repr(self) -> str:
        return f'size={self.size}, interpolation={self.interpolation!r}, {self.boxes!r}'


@MODELS.register_module()
class BatchRandomErasing(BatchAugment):
    """Random Erasing (arXiv 1708.04896) on the device.

    A window of some samples, the same in all their views and frames, becomes
    one colour or noise. Options and windows are those of mmpretrain's
    ``RandomErasing``: with one seed and one colour the windows are the same.
    Noise comes from torch's generator of the device, new for each frame, and
    not from numpy's, which draws the windows.

    Args:
        erase_prob (float): Share of the samples. Defaults to 0.5.
        min_area_ratio (float): Smallest share of the area. Defaults to 0.02.
        max_area_ratio (float): Largest share of the area. Defaults to 0.4.
        aspect_range (tuple[float]): Smallest and largest ratio of height to
            width. Defaults to (3 / 10, 10 / 3).
        mode (str): 'const' for one colour, 'rand' for noise. Defaults to
            'const'.
        fill_color (float | Sequence[float]): The colour, or the mean of the
            noise, 0..255. Defaults to (128, 128, 128).
        fill_std (float | Sequence[float], optional): Standard deviation of
            normal noise, 0..255. Defaults to None, which makes the noise
            uniform in 0..255.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        erase_prob: float = 0.5,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 0.4,
        aspect_range: tuple[float, float] = (3 / 10, 10 / 3),
        mode: str = 'const',
        fill_color: Color = (128, 128, 128),
        fill_std: Optional[Color] = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require(0 <= erase_prob <= 1, name, 'erase_prob', erase_prob, 'from 0 to 1')
        areas = min_area_ratio, max_area_ratio
        require(
            0 <= areas[0] <= areas[1] <= 1,
            name,
            'min_area_ratio, max_area_ratio',
            areas,
            'from 0 to 1, the smaller one first',
        )
        require(
            len(aspect_range) == 2 and 0 < aspect_range[0] <= aspect_range[1],
            name,
            'aspect_range',
            aspect_range,
            '(smallest, largest), above 0',
        )
        require(mode in ('const', 'rand'), name, 'mode', mode, "'const' or 'rand'")
        self.mode = mode
        self.register_buffer('color', colors(fill_color, name, 'fill_color'), persistent=False)
        self.register_buffer(
            'std',
            None if fill_std is None else colors(fill_std, name, 'fill_std'),
            persistent=False,
        )
        self.transform = build_transform(
            'RandomErasing',
            erase_prob=float(erase_prob),
            min_area_ratio=float(min_area_ratio),
            max_area_ratio=float(max_area_ratio),
            aspect_range=tuple(map(float, aspect_range)),
        )

    def augment(self, x: Tensor) -> Tensor:
        x = x.clone()
        for sample in x.movedim(2, -1):  # V [T] H W C
            if self.transform.random_disable():
                continue
            top, left, height, width = self.transform.random_patch(*x.shape[-2:])
            window = sample[..., top : top + height, left : left + width, :]
            window.copy_(self._fill(window))
        return x

    def _fill(self, window: Tensor) -> Tensor:
        """New pixels for a window (..., C)."""
        if self.mode == 'const':
            return self.color.expand_as(window)
        if self.std is None:
            return torch.randint_like(window, 256, dtype=torch.float32)
        noise = torch.randn(window.shape, device=window.device)
        return noise.mul_(self.std).add_(self.color).clamp_(0, 255)

    def extra_repr(self) -> str:
        t = self.transform
        return (
            f'erase_prob={t.erase_prob}, '
            f'min_area_ratio={t.min_area_ratio}, '
            f'max_area_ratio={t.max_area_ratio}, '
            f'aspect_range={t.aspect_range}, mode={self.mode!r}'
        )
