# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""RandAugment (arXiv 1909.13719) with timm's operations, once for Pillow images and tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

Color = float | Sequence[float]
Picture = Tensor | Image.Image
Operations = list[tuple[str, float]]


def per_channel(value: Color) -> list[float]:
    """A grey level, or one for each of 3 channels, as a list of 3."""
    return [float(v) for v in (value if isinstance(value, Sequence) else [value] * 3)]


class RandAugmentIncreasing(v2.RandAugment):
    """torchvision's RandAugment with operations and strengths of timm's "increasing" set.

    The options are those of mmpretrain's ``RandAugment``; in timm's words they are
    ``rand-m{magnitude_level}-n{num_policies}-mstd{magnitude_std}-inc1``. Each operation is drawn on
    its own, also when the same one comes twice.

    Args:
        policies (str): 'timm_increasing', the only set of operations here.
        num_policies (int): Operations a sample, each done with probability 0.5.
        magnitude_level (float): Strength, 0..10.
        magnitude_std (float): Standard deviation of the strength.
        pad_val (float | Sequence[float]): Colour of what comes from outside of the picture, 0..255.
        interpolation (str): 'nearest', 'bilinear', or for Pillow images 'bicubic'.
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

    def __init__(
        self,
        policies: str,
        num_policies: int,
        magnitude_level: float,
        magnitude_std: float = 0.0,
        pad_val: Color = 128,
        interpolation: str = 'bicubic',
    ) -> None:
        if policies != 'timm_increasing':
            raise ValueError(
                f"policies of RandAugment must be 'timm_increasing', but got {policies!r}."
            )
        super().__init__(
            num_policies,
            interpolation=v2.InterpolationMode(interpolation),
            fill=per_channel(pad_val),
        )
        self.level = magnitude_level / 10
        self.std = magnitude_std / 10

    def forward(self, x: Picture) -> Picture:
        """Augment a Pillow image or uint8 pixels (..., 3, H, W), all frames alike."""
        return self.operate(x, self.draw(*TF.get_size(x)))

    def draw(self, height: int, width: int) -> Operations:
        """Names and strengths of the operations for pictures of this size, by torch's generator."""
        operations = []
        for _ in range(self.num_ops):
            name, (strength, signed) = self._get_random_item(self._AUGMENTATION_SPACE)
            if torch.rand(()) < 0.5:
                continue
            level = self.level + self.std * float(torch.randn(()))
            magnitude = strength(min(max(level, 0), 1), height, width)
            if signed and torch.rand(()) < 0.5:
                magnitude = -magnitude
            operations.append((name, magnitude))
        return operations

    def operate(self, x: Picture, operations: Operations) -> Picture:
        """Do the operations, one after the other."""
        for name, magnitude in operations:
            x = self._apply_image_or_video_transform(
                x, name, magnitude, self.interpolation, self._fill
            )
        return x

    def _apply_image_or_video_transform(
        self, image: Picture, transform_id: str, magnitude: float, *args: Any
    ) -> Picture:
        """Do an operation; four are not as in torchvision."""
        if transform_id == 'Solarize':  # 256 is no grey level, and torchvision refuses it
            return image if magnitude > 255 else TF.solarize(image, magnitude)
        if transform_id == 'SolarizeAdd':
            if isinstance(image, Image.Image):
                return image.point([i + magnitude * (i < 128) for i in range(256)] * 3)
            return torch.where(image < 128, image + magnitude, image)
        if transform_id in ('TranslateX', 'TranslateY'):  # torchvision moves by whole pixels
            by = [magnitude, 0.0] if transform_id == 'TranslateX' else [0.0, magnitude]
            fill = self._fill['others']
            return TF.affine(image, 0.0, by, 1.0, [0.0, 0.0], self.interpolation, fill)
        return super()._apply_image_or_video_transform(image, transform_id, magnitude, *args)
