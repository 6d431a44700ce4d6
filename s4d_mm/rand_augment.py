# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""RandAugment (arXiv 1909.13719) with timm's operations, the same for all frames of a clip.

The pixels are those of Pillow. What moves the pixels of several frames is computed for all of them
at once, and what depends on one value of one channel is looked up in a table.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

Operations = list[tuple[str, float]]
Frames = list[np.ndarray]

# strength of an operation by level (0..1) and size of the picture; whether its sign is random
SPACE = {
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
OF_VALUES = {  # each value of a channel has one result
    'Invert': lambda image, strength: ImageOps.invert(image),
    'Posterize': lambda image, strength: ImageOps.posterize(image, int(strength)),
    'Solarize': lambda image, strength: ImageOps.solarize(image, int(strength)),
    'SolarizeAdd': lambda image, add: image.point([i + add * (i < 128) for i in range(256)] * 3),
    'Brightness': lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + strength),
}
OF_PICTURES = {
    'AutoContrast': lambda image, strength: ImageOps.autocontrast(image),
    'Equalize': lambda image, strength: ImageOps.equalize(image),
    'Color': lambda image, strength: ImageEnhance.Color(image).enhance(1 + strength),
    'Contrast': lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + strength),
}
AT_ONCE = 8  # frames that are moved at once: more do not fit into the cache
RAMP = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)


class RandAugmentIncreasing:
    """RandAugment with the operations and strengths of timm's "increasing" set.

    The options are those of mmpretrain's ``RandAugment``; in timm's words they are
    ``rand-m{magnitude_level}-n{num_policies}-mstd{magnitude_std}-inc1``. Each operation is drawn on
    its own, also when the same one comes twice.

    Args:
        policies (str): 'timm_increasing', the only set of operations here.
        num_policies (int): Operations a sample, each done with probability 0.5.
        magnitude_level (float): Strength, 0..10.
        magnitude_std (float): Standard deviation of the strength.
        pad_val (float | Sequence[float]): Colour of what comes from outside of the picture, 0..255.
        interpolation (str): 'nearest', 'bilinear' or 'bicubic'.
    """

    def __init__(
        self,
        policies: str,
        num_policies: int,
        magnitude_level: float,
        magnitude_std: float = 0.0,
        pad_val: float | Sequence[float] = 128,
        interpolation: str = 'bicubic',
    ) -> None:
        if policies != 'timm_increasing':
            raise ValueError(f"policies={policies!r} of RandAugment must be 'timm_increasing'.")
        self.num_policies = num_policies
        self.level, self.std = magnitude_level / 10, magnitude_std / 10
        color = pad_val if isinstance(pad_val, Sequence) else [pad_val] * 3
        self.color = tuple(int(value) for value in color)
        self.resampling = Image.Resampling[interpolation.upper()]

    def draw(self, height: int, width: int) -> Operations:
        """Names and strengths of the operations for pictures of this size, by torch's generator."""
        operations = []
        for _ in range(self.num_policies):
            name = tuple(SPACE)[int(torch.randint(len(SPACE), ()))]
            if torch.rand(()) < 0.5:
                continue
            level = self.level + self.std * float(torch.randn(()))
            strength, signed = SPACE[name]
            value = strength(min(max(level, 0), 1), height, width)
            if signed and torch.rand(()) < 0.5:
                value = -value
            operations.append((name, value))
        return operations

    def operate(self, frames: Frames, operations: Operations) -> Frames:
        """Do the operations, one after the other, to frames of one size, uint8 (H, W, 3)."""
        for name, strength in operations:
            if name in OF_VALUES:
                table = np.asarray(OF_VALUES[name](Image.fromarray(RAMP), strength))
                frames = [cv2.LUT(frame, table) for frame in frames]
                continue
            if name == 'Sharpness':  # torchvision's pixels are Pillow's
                pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
                pixels = TF.adjust_sharpness(pixels, 1 + strength).permute(0, 2, 3, 1)
                frames = list(pixels.contiguous().numpy())
                continue
            if name not in OF_PICTURES:
                matrix = map_of(name, strength, *frames[0].shape[:2])
                if len(frames) > 3 and self.resampling == Image.Resampling.BICUBIC:
                    frames = warp_bicubic(frames, matrix, self.color)
                    continue
            images = map(Image.fromarray, frames)
            if name in OF_PICTURES:
                images = [OF_PICTURES[name](image, strength) for image in images]
            else:
                how = Image.Transform.AFFINE, matrix, self.resampling
                images = [one.transform(one.size, *how, fillcolor=self.color) for one in images]
            frames = [np.array(image) for image in images]
        return frames


def map_of(name: str, strength: float, height: int, width: int) -> tuple[float, ...]:
    """Pillow's affine map (a, ..., f): the source is x = a x + b y + c, y = d x + e y + f."""
    if name == 'Rotate':  # degrees, anticlockwise, round the middle
        sine, cosine = math.sin(math.radians(strength)), math.cos(math.radians(strength))
        x, y = width / 2, height / 2
        return cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y
    return {
        'ShearX': (1, strength, 0, 0, 1, 0),
        'ShearY': (1, 0, 0, strength, 1, 0),
        'TranslateX': (1, 0, -strength, 0, 1, 0),
        'TranslateY': (1, 0, 0, 0, 1, -strength),
    }[name]


def warp_bicubic(frames: Frames, matrix: Sequence[float], color: Sequence[int]) -> Frames:
    """Move the pixels of all frames alike; Pillow's ``transform(..., AFFINE, BICUBIC)``.

    It differs by 1 grey level at most. Each pixel is a weighted sum of up to 16, with the same
    weights in all frames: torch's ``embedding_bag`` of a table with a row for each pixel.
    """
    a, b, c, d, e, f = matrix
    height, width = frames[0].shape[:2]
    x = torch.arange(width, dtype=torch.float64) + 0.5
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    x, y = (a * x + b * y + c).flatten(), (d * x + e * y + f).flatten()
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    (columns, of_columns), (rows, of_rows) = _neighbours(x, width), _neighbours(y, height)
    places = (rows[:, None] * width + columns).flatten(0, 1)  # up to 16, H * W
    places = places.masked_fill_(outside, height * width).t().contiguous()
    weights = (of_rows[:, None] * of_columns).flatten(0, 1).t().contiguous()
    moved = []
    for start in range(0, len(frames), AT_ONCE):
        some = frames[start : start + AT_ONCE]
        table = torch.empty(height * width + 1, 3 * len(some))
        table[:-1] = torch.from_numpy(cv2.merge(some)).flatten(0, 1)
        table[-1] = torch.tensor(color, dtype=torch.float32).repeat(len(some))
        out = F.embedding_bag(places, table, mode='sum', per_sample_weights=weights)
        # cut off as in Pillow; rounding has left some whole numbers a little below
        out = out.add_(1e-3).clamp_(0, 255).byte().view(height, width, len(some), 3)
        moved.extend(out.permute(2, 0, 1, 3).contiguous().numpy())
    return moved


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Indices and weights, (4, P), of the pixels in a line that count for each position, or fewer.

    The weights are those of Keys' cubic convolution with a = -1.
    """
    first = (position - 0.5).floor()
    t = (position - 0.5 - first).float()
    u = 1 - t
    weights = torch.stack([-t * u * u, 1 - 2 * t * t + t**3, 1 - 2 * u * u + u**3, -u * t * t])
    indices = first.int() + torch.arange(-1, 3, dtype=torch.int32)[:, None]
    used = (weights != 0).any(dim=1)
    return indices.clamp_(0, size - 1)[used], weights[used]
