# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps 4 and 5, when pre-training: random windows of a clip or image,
resized, in one go.

Letters: V views (windows) of a clip, T frames, H and W pixels.
"""

import random

import cv2
import numpy as np
from mmaction.datasets.transforms import RandomResizedCrop
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ...media import is_turned, open_image, to_rgb
from .loading import require_file

INTERPOLATION = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC)


@TRANSFORMS.register_module()
class RandomCropBoxes(BaseTransform):
    """Draw random windows and leave it to the device to cut them out.

    The windows are those of mmaction2's ``RandomResizedCrop``, one for all
    frames of a view. ``DualModalDataPreprocessor(crops=...)`` cuts and
    resizes. So a clip goes to the device once, not once for each window. Put
    ``'crop_boxes'`` into ``meta_keys`` of ``PackActionInputs``.

    Required Keys:

    - imgs

    Modified Keys:

    - imgs (an array (T, H, W, 3))

    Added Keys:

    - crop_boxes (int64, (V, 5): first column, first row, column after the
      last, row after the last, and 1 if the view is mirrored)

    Args:
        times (int): V, how many windows. Defaults to 1.
        area_range (tuple[float]): Smallest and largest share of the frame's
            area. Defaults to (0.08, 1.0).
        aspect_ratio_range (tuple[float]): Smallest and largest ratio of width
            to height. Defaults to (3 / 4, 4 / 3).
        flip_ratio (float): Share of the views that are mirrored left to
            right. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        times: int = 1,
        area_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_ratio: float = 0.0,
    ) -> None:
        name = type(self).__name__
        if not isinstance(times, int) or times < 1:
            raise ValueError(f'times of {name} must be a positive int, but got {times!r}.')
        for key, (low, high), most in (
            ('area_range', area_range, 1.0),
            ('aspect_ratio_range', aspect_ratio_range, np.inf),
        ):
            if not 0 < low <= high <= most:
                raise ValueError(
                    f'{key} of {name} must be (smallest, largest), above 0 '
                    f'and at most {most}, but got {(low, high)!r}.'
                )
        if not 0 <= flip_ratio <= 1:
            raise ValueError(f'flip_ratio of {name} must be from 0 to 1, but got {flip_ratio!r}.')
        self.times = times
        self.area_range = tuple(area_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.flip_ratio = flip_ratio

    def draw(self, height: int, width: int) -> np.ndarray:
        """Draw the windows for frames of this size: (V, 5)."""
        boxes = []
        for _ in range(self.times):
            box = RandomResizedCrop.get_crop_bbox(
                (height, width), self.area_range, self.aspect_ratio_range
            )
            flip = self.flip_ratio > 0 and random.random() < self.flip_ratio
            boxes.append((*box, flip))
        return np.array(boxes, np.int64)

    def transform(self, results: dict) -> dict:
        imgs = results['imgs']
        results['crop_boxes'] = self.draw(*imgs[0].shape[:2])
        results['imgs'] = np.stack(imgs)  # T H W 3
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(times={self.times}, '
            f'area_range={self.area_range}, '
            f'aspect_ratio_range={self.aspect_ratio_range}, '
            f'flip_ratio={self.flip_ratio})'
        )


@TRANSFORMS.register_module()
class ClipRandomResizedCrop(RandomCropBoxes):
    """Cut random windows out of a clip and resize them.

    Gives the pixels of mmaction2's ``RandomResizedCrop``, ``Resize`` and
    ``Flip`` for the same window, ``times`` times over the same frames, but
    writes each resized frame straight to its place.

    Required Keys:

    - imgs

    Modified Keys:

    - imgs (an array (V * T, size, size, 3), views one after the other, as
      ``FormatShape`` wants them)

    Added Keys:

    - img_shape
    - crop_boxes (see :class:`RandomCropBoxes`)

    Args:
        size (int): Height and width of the views.
        interpolation (str): 'bilinear' or 'bicubic'. Defaults to 'bilinear'.
        **kwargs: ``times``, ``area_range``, ``aspect_ratio_range`` and
            ``flip_ratio`` of :class:`RandomCropBoxes`.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> crop = ClipRandomResizedCrop(size=160, times=4)
        >>> frames = [np.zeros((192, 192, 3), np.uint8)] * 16
        >>> crop(dict(imgs=frames))['imgs'].shape
        (64, 160, 160, 3)
    """

    def __init__(self, size: int, interpolation: str = 'bilinear', **kwargs) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        if not isinstance(size, int) or size < 1:
            raise ValueError(f'size of {name} must be a positive int, but got {size!r}.')
        if interpolation not in INTERPOLATION:
            raise ValueError(
                f'interpolation of {name} must be one of '
                f'{tuple(INTERPOLATION)}, but got '
                f'{interpolation!r}.'
            )
        self.size = size
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        imgs = results['imgs']
        return self._cut(results, imgs, self.draw(*imgs[0].shape[:2]))

    def _cut(self, results: dict, imgs: list, boxes: np.ndarray) -> dict:
        """Cut ``boxes`` out of ``imgs`` and resize them."""
        size = (self.size, self.size)
        out = np.empty((len(boxes), len(imgs), *size, 3), np.uint8)
        how = INTERPOLATION[self.interpolation]
        for view, (x1, y1, x2, y2, flip) in zip(out, boxes.tolist()):
            for frame, img in zip(view, imgs):
                window = img[y1:y2, x1:x2]
                cv2.resize(window, size, frame, interpolation=how)
                if flip:
                    cv2.flip(frame, 1, frame)
        results['imgs'] = out.reshape(-1, *size, 3)  # V*T size size 3
        results['img_shape'] = size
        results['crop_boxes'] = boxes
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, size={self.size}, interpolation={self.interpolation!r})'


@TRANSFORMS.register_module()
class ImageLoadRandomResizedCrop(ClipRandomResizedCrop):
    """Read random windows of an image and resize them.

    Draws the windows before it decodes, so that a jpg can be decoded at the
    smallest of its scales (1, 1/2, 1/4, 1/8) in which every window still has
    ``size`` pixels a side. Where that is the whole scale, or the file no jpg,
    it is ``ImageLoad`` and :class:`ClipRandomResizedCrop`, number by number.

    Required Keys:

    - filename

    Added Keys:

    - imgs (an array (V, size, size, 3))
    - original_shape
    - img_shape
    - crop_boxes (in pixels of the decoded image)
    - total_frames, num_clips, clip_len (all 1)

    Args:
        size (int): Height and width of the views.
        interpolation (str): 'bilinear' or 'bicubic'. Defaults to 'bilinear'.
        **kwargs: ``times``, ``area_range``, ``aspect_ratio_range`` and
            ``flip_ratio`` of :class:`RandomCropBoxes`.

    Raises:
        FileNotFoundError: If there is no such file.
        MediaReadError: If it is truncated or no image.
        ValueError: If an argument is out of range.
    """

    def transform(self, results: dict) -> dict:
        path = results['filename']
        require_file(path, results)
        with open_image(path) as image:
            width, height = image.size
            turned = is_turned(image)
            shape = (width, height) if turned else (height, width)
            boxes = self.draw(*shape)
            sides = (boxes[:, 2:4] - boxes[:, :2]).min(axis=0)  # x, y
            least = np.ceil(self.size / sides * shape[::-1]).astype(int)
            least = least[::-1] if turned else least
            if (least < image.size).all():
                # Pillow takes the smallest scale that is not below this
                image.draft(image.mode, tuple(least.tolist()))
            img = to_rgb(image)
        scale = np.array(img.shape[1::-1]) / shape[::-1]  # x, y
        if (scale < 1).any():
            boxes[:, :4] = np.round(boxes[:, :4] * np.tile(scale, 2))
        results.update(original_shape=shape, total_frames=1, num_clips=1, clip_len=1)
        return self._cut(results, [img], boxes)
