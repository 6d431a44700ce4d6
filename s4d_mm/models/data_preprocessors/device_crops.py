# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Cut windows out of clips on the device and resize them.

Letters: B clips, V windows of a clip, C channels, T frames, H and W pixels of
the clip, S pixels a side of the result.
"""

import torch
from torch import Tensor


# taps around a position, relative to the pixel below it
TAPS = dict(bilinear=(0, 1), bicubic=(-1, 0, 1, 2))


def tap_weights(distance: Tensor, interpolation: str) -> Tensor:
    """Weight of a pixel at this distance (0..2) from the position, as
    OpenCV's.
    """
    if interpolation == 'bilinear':
        return 1 - distance
    a, d = -0.75, distance
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = ((d - 5) * d + 8) * a * d - 4 * a
    return torch.where(d <= 1, near, far)


def resize_matrix(
    start: Tensor, end: Tensor, flip: Tensor, source: int, size: int, interpolation: str
) -> Tensor:
    """The matrices that cut the pixels ``start .. end`` out of an axis of
    ``source`` pixels and resize them to ``size``.

    Args:
        start (Tensor): First pixel, (B, V).
        end (Tensor): Pixel after the last, (B, V).
        flip (Tensor): Whether to turn the axis round, bool, (B, V).
        source (int): Pixels of the axis.
        size (int): S.
        interpolation (str): 'bilinear' or 'bicubic'.

    Returns:
        Tensor: float32, (B, V, S, source).
    """
    start, end = start[..., None], end[..., None]  # B V 1
    steps = torch.arange(size, device=start.device)
    steps = torch.where(flip[..., None], size - 1 - steps, steps)  # B V S
    # pixel centres lie at 0.5, 1.5, ...
    position = (steps + 0.5) * ((end - start) / size) - 0.5
    below = position.floor()
    matrix = position.new_zeros(*position.shape, source)
    for tap in TAPS[interpolation]:
        weight = tap_weights((position - below - tap).abs(), interpolation)
        # what lies outside of the window is its border
        pixel = torch.minimum((below + tap).clamp(min=0).long() + start, end - 1)
        matrix.scatter_add_(-1, pixel[..., None], weight[..., None])
    return matrix


def crop_and_resize(x: Tensor, boxes: Tensor, size: int, interpolation: str = 'bilinear') -> Tensor:
    """Cut windows out of clips and resize them, all frames of a clip alike.

    Resizing is linear in the pixels, along rows and along columns, so it is
    two matrix products. The result is that of ``ClipRandomResizedCrop`` (by
    OpenCV) before that one rounds it to whole numbers.

    Args:
        x (Tensor): Clips or images, uint8 or float, (B, C, [T, ]H, W).
        boxes (Tensor): int64, (B, V, 5): first column, first row, column
            after the last, row after the last, 1 to mirror left to right.
        size (int): S.
        interpolation (str): 'bilinear' or 'bicubic'. Defaults to 'bilinear'.

    Returns:
        Tensor: float32, (B, V, C, [T, ]S, S).
    """
    x1, y1, x2, y2, mirror = boxes.unbind(-1)  # B V each
    flip = mirror.bool()
    rows = resize_matrix(
        y1, y2, torch.zeros_like(flip), x.shape[-2], size, interpolation
    )  # B V S H
    columns = resize_matrix(x1, x2, flip, x.shape[-1], size, interpolation).transpose(
        -1, -2
    )  # B V W S
    frames = x.flatten(1, -3)  # B C*T H W
    out = torch.empty((*boxes.shape[:2], frames.shape[1], size, size), device=x.device)
    # float32, since half precision would lose grey levels
    with torch.autocast(x.device.type, enabled=False):
        for clip, r, c, o in zip(frames, rows, columns, out):
            clip = clip.float()
            for v in range(len(r)):
                torch.matmul(r[v] @ clip, c[v], out=o[v])
    if interpolation == 'bicubic':
        out.clamp_(0, 255)
    return out.unflatten(2, x.shape[1:-2])
