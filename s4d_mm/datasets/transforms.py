# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps that mmaction2 and mmpretrain do not have: from a file name to RGB frames.

Letters: V views (windows) of a clip, T frames, H and W pixels.
"""

import os.path as osp
import random
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmaction.datasets.transforms import RandomResizedCrop
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ..media import MediaReadError, NumberedFrames, list_frames, read_image
from ..packed import find_packed
from ..rand_augment import RandAugmentIncreasing

CV2_CODES = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC)


# --------------------------------------------------------------------- loading
@TRANSFORMS.register_module()
class ClipInit(BaseTransform):
    """Open ``filename``: a video file, a folder of frames, or a packed clip.

    Adds ``total_frames``, ``start_index`` (0), and ``video_reader`` and ``avg_fps`` (video file,
    packed clip) or ``frame_paths`` (folder). A packed clip may be cut already: ``fixed_crop``.
    """

    def transform(self, results: dict) -> dict:
        path = results['filename']
        results['start_index'] = 0
        reader = find_packed(path)
        if reader is not None:
            results['fixed_crop'] = reader.window
        elif osp.isdir(_existing_file(results)):
            results['frame_paths'] = list_frames(path)
            results['total_frames'] = len(results['frame_paths'])
            return results
        else:
            reader = NumberedFrames(path)
        results.update(video_reader=reader, total_frames=len(reader), avg_fps=reader.fps)
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class SampleClipViews(BaseTransform):
    """Temporal views of S4D's test protocol: ``frame_inds``, one view after the other.

    Of every ``frame_interval``-th frame, the first view is the first ``clip_len``, the last view
    is the last ``clip_len``, and any others are evenly spread between. A clip too short for that
    is padded by repeating its last such frame; with ``merge_equal`` it gets a single view, which
    needs ``DualModalDataPreprocessor(pack_views=True)``. ``predict_span`` is for prediction alone:
    frames of a video over which a window spreads its ``clip_len`` frames, for data whose clips are
    such frames already, as DFEW's of 16.
    """

    clip_len: int = 16
    frame_interval: int = 4
    num_views: int = 2
    merge_equal: bool = False
    predict_span: int | None = None

    def __post_init__(self) -> None:
        if (self.predict_span or 0) % self.clip_len:
            raise ValueError(
                f'predict_span={self.predict_span} of SampleClipViews must be a multiple of '
                f'clip_len={self.clip_len}.'
            )

    def transform(self, results: dict) -> dict:
        frames = np.arange(0, results['total_frames'], self.frame_interval)
        missing = max(self.clip_len - len(frames), 0)
        frames = np.pad(frames, (0, missing), mode='edge')
        last = len(frames) - self.clip_len
        num_views = 1 if self.merge_equal and last == 0 else self.num_views
        starts = np.round(np.linspace(0, last, num_views)).astype(np.int64)
        picks = starts[:, None] + np.arange(self.clip_len)  # views x clip_len
        return _with_frames(results, frames[picks].reshape(-1), self, num_views)


@TRANSFORMS.register_module()
@dataclass(eq=False)
class SampleClipWindow(BaseTransform):
    """A training clip of S4D's fine-tuning: ``frame_inds`` spread over a window.

    The window has ``clip_len * frame_interval`` frames and starts anywhere. The ``clip_len`` frames
    go from its first to its last, both taken, rounded down, so that they lie a little more than
    ``frame_interval`` apart (64 / 15 for 16 frames of 64). Of a clip that is no longer than the
    window, one frame in ``frame_interval`` is taken so, and its last frame is repeated. As in the
    authors' code, the last frame of a longer clip is never taken.
    """

    clip_len: int = 16
    frame_interval: int = 4

    def transform(self, results: dict) -> dict:
        total, window = results['total_frames'], self.clip_len * self.frame_interval
        if total > window:
            start, length = np.random.randint(total - window), window
            count = self.clip_len
        else:
            start, length = 0, total
            count = total // self.frame_interval
        frames = np.linspace(start, start + length, count)
        frames = np.minimum(frames.astype(np.int64), start + length - 1)
        frames = np.pad(frames, (0, self.clip_len - count), constant_values=total - 1)
        return _with_frames(results, frames, self, 1)


@TRANSFORMS.register_module()
class ClipDecode(BaseTransform):
    """Decode the frames ``frame_inds``, each distinct one once, and close the clip.

    Adds ``imgs``, ``original_shape`` and ``img_shape``. ``imgs`` is a list of RGB uint8 arrays
    (H, W, 3) that share no memory, because some steps, as mmaction2's ``Flip``, work in place.
    """

    def transform(self, results: dict) -> dict:
        asked = results['frame_inds']
        inds, first, where = np.unique(asked, return_index=True, return_inverse=True)
        reader = results.pop('video_reader', None)
        if reader is not None:
            frames = list(reader.read(inds.tolist()))
            names = [f'{results["filename"]}, frame {i}' for i in inds]
        else:
            paths = results.pop('frame_paths')
            names = [paths[i] for i in inds]
            frames = [read_image(path) for path in names]
        for name, frame in zip(names, frames):
            if frame.shape != frames[0].shape:
                raise MediaReadError(
                    'Frames of a clip must have one size (height, width): '
                    f'{names[0]} has {frames[0].shape[:2]}, {name} has {frame.shape[:2]}.'
                )
        places = enumerate(where.reshape(-1).tolist())
        imgs = [frames[i] if first[i] == place else frames[i].copy() for place, i in places]
        results['imgs'] = imgs
        results['original_shape'] = results['img_shape'] = imgs[0].shape[:2]
        return results


@TRANSFORMS.register_module()
class ImageLoad(BaseTransform):
    """Read the image ``filename`` as a clip of one frame, with the keys of :class:`ClipDecode`."""

    def transform(self, results: dict) -> dict:
        packed = find_packed(results['filename'])
        img = read_image(_existing_file(results)) if packed is None else next(packed.read([0]))
        results['imgs'] = [img]
        results['original_shape'] = results['img_shape'] = img.shape[:2]
        results.update(total_frames=1, num_clips=1, clip_len=1)
        return results


# --------------------------------------------------------- resizing and windows
@TRANSFORMS.register_module()
@dataclass(eq=False)
class ClipResize(BaseTransform):
    """Resize frames to ``scale`` (width, height) as Pillow and the authors do: antialiased.

    torch's resizing of uint8 pixels differs from Pillow's by a grey level or two at most.
    OpenCV makes sharper pictures than the authors' models know.
    """

    scale: tuple[int, int]

    def transform(self, results: dict) -> dict:
        width, height = self.scale
        results['imgs'] = list(_resize(results['imgs'], height, width))
        results['img_shape'] = height, width
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class FixedCrop(BaseTransform):
    """Cut a fixed window: rows and columns (first, after the last) in pixels of the frame.

    S4D keeps rows 0 to 160 and columns 32 to 192 of the 224 x 224 frames of VoxCeleb2.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    def transform(self, results: dict) -> dict:
        (top, bottom), (left, right) = self.rows, self.columns
        if results.get('fixed_crop') == [[top, bottom], [left, right]]:
            return results  # so it was packed
        for img in results['imgs']:
            if img.shape[0] < bottom or img.shape[1] < right:
                raise ValueError(
                    f'{results["filename"]} has frames of {img.shape[0]} x {img.shape[1]} pixels '
                    f'(height x width), too small for {self}. Resize before it, or leave it out if '
                    'the faces are already cut.'
                )
        results['imgs'] = [img[top:bottom, left:right] for img in results['imgs']]
        results['img_shape'] = (bottom - top, right - left)
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class ClipRandomResizedCrop(BaseTransform):
    """Cut random windows out of a clip, the same for all frames of a view, and resize them.

    Gives the pixels of mmaction2's ``RandomResizedCrop``, ``Resize`` and ``Flip`` for the same
    window, ``times`` times over the same frames, as an array (V * T, size, size, 3), views one
    after the other. ``area_range`` is the smallest and largest share of the frame's area,
    ``aspect_ratio_range`` that of width to height, ``flip_ratio`` the share of the views that are
    mirrored. ``interpolation`` is 'bilinear' or 'bicubic'; with ``antialias`` as Pillow resizes, as
    for the images of S4D's pre-training, whose clips are resized without. With ``scale`` (width,
    height) the windows are those of frames that are resized to it before; frames that this would
    enlarge are resized once, from the original pixels, which differs by about half a grey level on
    average. Adds ``crop_boxes``, int64 (V, 5): first column, first row, column after the last, row
    after the last, and 1 if the view is mirrored.
    """

    size: int
    times: int = 1
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3)
    flip_ratio: float = 0.0
    interpolation: str = 'bilinear'
    antialias: bool = False
    scale: tuple[int, int] | None = None

    def draw(self, height: int, width: int) -> np.ndarray:
        """Draw the windows for frames of this size: (V, 5)."""
        boxes = []
        for _ in range(self.times):
            box = RandomResizedCrop.get_crop_bbox(
                (height, width), tuple(self.area_range), tuple(self.aspect_ratio_range)
            )
            flip = self.flip_ratio > 0 and random.random() < self.flip_ratio
            boxes.append((*box, flip))
        return np.array(boxes, np.int64)

    def transform(self, results: dict) -> dict:
        imgs, size = results['imgs'], (self.size, self.size)
        height, width = imgs[0].shape[:2]
        target_width, target_height = self.scale or (width, height)
        boxes = self.draw(target_height, target_width)
        steps = np.array([width / target_width, height / target_height])
        if (steps > 1).any() or (self.antialias and self.scale):
            imgs, steps = _resize(imgs, target_height, target_width), np.ones(2)
        out = np.empty((len(boxes), len(imgs), *size, 3), np.uint8)
        how = CV2_CODES[self.interpolation]
        for view, (x1, y1, x2, y2, flip) in zip(out, boxes.tolist()):
            if self.antialias:
                view[:] = _resize([i[y1:y2, x1:x2] for i in imgs], *size, self.interpolation)
            # columns and rows of the source for those of the result, from pixel centre to centre
            step = steps * (x2 - x1, y2 - y1) / self.size
            start = steps * (x1, y1) + (step - 1) / 2
            matrix = np.column_stack([np.diag(step), start])
            for frame, img in zip(view, imgs):
                if (steps < 1).any():
                    options = dict(
                        flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
                    )
                    cv2.warpAffine(img, matrix, size, frame, **options)
                elif not self.antialias:
                    cv2.resize(img[y1:y2, x1:x2], size, frame, interpolation=how)
                if flip:
                    cv2.flip(frame, 1, frame)
        results['imgs'] = out.reshape(-1, *size, 3)  # V*T size size 3
        results['img_shape'] = size
        results['crop_boxes'] = boxes
        return results


@TRANSFORMS.register_module()
class ClipRandAugment(BaseTransform):
    """RandAugment (arXiv 1909.13719) as timm does it, the same for all frames.

    The options are those of mmpretrain's ``RandAugment``, with ``pad_val`` (128) and
    ``interpolation`` ('bicubic') in ``hparams``. In contrast to it, the operations are Pillow's,
    which weigh the channels as RGB (Color, Contrast), and an operation that is drawn twice has two
    strengths. Random numbers come from torch's generator.
    """

    def __init__(
        self,
        policies: str,
        num_policies: int,
        magnitude_level: float,
        magnitude_std: float = 0.0,
        hparams: dict | None = None,
    ) -> None:
        self.augment = RandAugmentIncreasing(
            policies, num_policies, magnitude_level, magnitude_std, **(hparams or {})
        )

    def transform(self, results: dict) -> dict:
        imgs = results['imgs']
        operations = self.augment.draw(*imgs[0].shape[:2])
        if operations:
            results['imgs'] = self.augment.operate(imgs, operations)
        return results


def _resize(frames: list, height: int, width: int, interpolation: str = 'bilinear') -> np.ndarray:
    """Resize frames (H, W, 3) of one size, antialiased; (T, height, width, 3)."""
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # H W 3 in memory
    pixels = F.interpolate(pixels, (height, width), mode=interpolation, antialias=True)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _existing_file(results: dict) -> str:
    path = results['filename']
    if not osp.exists(path):
        raise FileNotFoundError(f'{path} does not exist. Check data_root, data_prefix and suffix.')
    return path


def _with_frames(results: dict, frames: np.ndarray, step: BaseTransform, num_clips: int) -> dict:
    results['frame_inds'] = (frames + results['start_index']).astype(np.int32)
    results['clip_len'] = step.clip_len
    results['frame_interval'] = step.frame_interval
    results['num_clips'] = num_clips
    return results
