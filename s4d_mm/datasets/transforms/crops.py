# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps 4 and 5: resizing, fixed and random windows of a clip or image.

Letters: V views (windows) of a clip, T frames, H and W pixels.
"""

import random

import cv2
import numpy as np
from mmaction.datasets.transforms import RandomResizedCrop
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image

INTERPOLATION = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC)
ANTIALIASED = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)


def resize_antialiased(img: np.ndarray, scale: tuple[int, int], how: str) -> np.ndarray:
    """Resize a frame (H, W, 3) with Pillow to a (width, height).

    Where it shrinks, each pixel is a mean of all those that it covers. OpenCV takes 2 x 2 (4 x 4)
    of them, which makes the picture sharper than the authors' models know.
    """
    return np.array(Image.fromarray(img).resize(scale, ANTIALIASED[how]))


@TRANSFORMS.register_module()
class ClipResize(BaseTransform):
    """Resize frames as Pillow does: bilinear, antialiased.

    So does the authors' code, in training and in testing. The ratio of the
    sides is not kept.

    Required Keys:

    - imgs

    Modified Keys:

    - imgs
    - img_shape

    Args:
        scale (tuple[int]): Width and height of the result.

    Raises:
        ValueError: If ``scale`` is not two positive ints.
    """

    def __init__(self, scale: tuple[int, int]) -> None:
        if len(scale) != 2 or not all(isinstance(s, int) and s > 0 for s in scale):
            raise ValueError(
                'scale of ClipResize must be (width, height), two positive ints, but got '
                f'{scale!r}.'
            )
        self.scale = tuple(scale)

    def transform(self, results: dict) -> dict:
        """Resize every frame."""
        results['imgs'] = [
            resize_antialiased(img, self.scale, 'bilinear') for img in results['imgs']
        ]
        results['img_shape'] = self.scale[::-1]
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(scale={self.scale})'


@TRANSFORMS.register_module()
class FixedCrop(BaseTransform):
    """Cut a fixed window, given in pixels of the frame.

    S4D keeps rows 0 to 160 and columns 32 to 192 of the 224 x 224 frames of
    VoxCeleb2: ``dict(type='FixedCrop', rows=(0, 160), columns=(32, 192))``.

    Required Keys:

    - imgs
    - filename

    Modified Keys:

    - imgs
    - img_shape

    Args:
        rows (tuple[int]): First row and the row after the last.
        columns (tuple[int]): First column and the column after the last.

    Raises:
        ValueError: If a frame is too small for the window.
    """

    def __init__(self, rows: tuple, columns: tuple) -> None:
        for name, span in (('rows', rows), ('columns', columns)):
            if not (len(span) == 2 and 0 <= span[0] < span[1]):
                raise ValueError(
                    f'{name} of FixedCrop must be (start, end) with 0 <= '
                    f'start < end, but got {span!r}.'
                )
        self.rows = tuple(rows)
        self.columns = tuple(columns)

    def transform(self, results: dict) -> dict:
        """Cut every frame."""
        (top, bottom), (left, right) = self.rows, self.columns
        for img in results['imgs']:
            if img.shape[0] < bottom or img.shape[1] < right:
                raise ValueError(
                    f'{results["filename"]} has frames of '
                    f'{img.shape[0]} x {img.shape[1]} pixels (height x '
                    f'width), too small for FixedCrop rows {self.rows} and '
                    f'columns {self.columns}. Resize before it, or leave it '
                    'out of the pipeline if the faces are already cut.'
                )
        results['imgs'] = [img[top:bottom, left:right] for img in results['imgs']]
        results['img_shape'] = (bottom - top, right - left)
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(rows={self.rows}, columns={self.columns})'


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
        """Draw the windows and put the frames into one array."""
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
    writes each resized frame straight to its place. With ``antialias`` Pillow
    resizes, as for the images of S4D's pre-training, whose clips are resized
    without.

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
        antialias (bool): Whether to resize with Pillow, which antialiases, or
            with OpenCV, which does not. Defaults to False.
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

    def __init__(
        self, size: int, interpolation: str = 'bilinear', antialias: bool = False, **kwargs
    ) -> None:
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
        self.antialias = antialias

    def transform(self, results: dict) -> dict:
        """Cut the windows out and resize them."""
        imgs, size = results['imgs'], (self.size, self.size)
        boxes = self.draw(*imgs[0].shape[:2])
        out = np.empty((len(boxes), len(imgs), *size, 3), np.uint8)
        how = INTERPOLATION[self.interpolation]
        for view, (x1, y1, x2, y2, flip) in zip(out, boxes.tolist()):
            for frame, img in zip(view, imgs):
                window = img[y1:y2, x1:x2]
                if self.antialias:
                    frame[:] = resize_antialiased(window, size, self.interpolation)
                else:
                    cv2.resize(window, size, frame, interpolation=how)
                if flip:
                    cv2.flip(frame, 1, frame)
        results['imgs'] = out.reshape(-1, *size, 3)  # V*T size size 3
        results['img_shape'] = size
        results['crop_boxes'] = boxes
        return results

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, size={self.size}, '
            f'interpolation={self.interpolation!r}, antialias={self.antialias})'
        )
