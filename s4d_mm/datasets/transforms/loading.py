# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps 1 and 3: from a file name to RGB frames.

``ClipInit`` opens a clip, mmaction2's ``SampleFrames`` or ``SampleClipViews``
(step 2) chooses frames, ``ClipDecode`` decodes just these. ``ImageLoad`` does
all three for an image and leaves the same keys, so that every later step
serves clips and images alike.
"""

import os
import os.path as osp
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112
TRANSPARENT = (124, 117, 104, 255)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')


class MediaReadError(OSError):
    """A video, frame or image file is there but cannot be decoded."""


def require_file(path: str, results: dict) -> None:
    if not osp.exists(path):
        sample = results.get('sample_id')
        named = '' if sample is None else f' (sample {sample!r})'
        raise FileNotFoundError(
            f'{path} does not exist{named}. Check data_root, data_prefix and suffix of the dataset.'
        )


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image file with Pillow, which, unlike OpenCV, never takes a
    truncated file for a whole one.

    Args:
        path (str): The file.

    Yields:
        PIL.Image.Image: The image, not yet decoded.

    Raises:
        MediaReadError: If the file is no image, or Pillow cannot decode it
            inside the ``with`` block. Other errors of the block stay as they
            are.
    """
    try:
        with open(path, 'rb') as f, Image.open(f) as image:
            yield image
    except Exception as e:
        if not (isinstance(e, OSError) or _of_pillow(e)):
            raise
        raise MediaReadError(f'Cannot decode image {path}: {e}') from e


def _of_pillow(error: Exception) -> bool:
    """Whether an error was raised inside of Pillow. Its type would not tell: a
    broken file can be a SyntaxError, a RuntimeError or struct.error, and
    broken EXIF data a TypeError, AttributeError or KeyError.
    """
    return any(
        frame.f_globals.get('__name__', '').startswith('PIL.')
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def is_turned(image: Image.Image, least: int = 5) -> bool:
    """Whether the EXIF orientation of an image is at least this one: 2, not
    upright; 5, turned by 90 degrees.
    """
    return image.getexif().get(EXIF_ORIENTATION) in range(least, 9)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decode an open image, turned upright as its EXIF data say.

    Args:
        image (PIL.Image.Image): The image.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).
    """
    if is_turned(image, least=2):
        image = ImageOps.exif_transpose(image)
    if image.mode == 'LA':  # on mmcv's colour, not on black
        canvas = Image.new('RGBA', image.size, TRANSPARENT)
        image = Image.alpha_composite(canvas, image.convert('RGBA'))
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return np.array(image)


def read_image(path: str) -> np.ndarray:
    """Read an image file.

    Args:
        path (str): The file.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).

    Raises:
        MediaReadError: If the file is truncated or no image.
    """
    with open_image(path) as image:
        return to_rgb(image)


def _natural_key(name: str) -> list:
    """Sort key by which ``2.jpg`` comes before ``10.jpg``."""
    parts = re.split('([0-9]+)', name)  # text, number, text, ...
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def list_frames(folder: str) -> list[str]:
    """Paths of the frames in a folder, in natural order.

    Args:
        folder (str): The folder. Files that are no images are skipped.

    Returns:
        list[str]: Paths.

    Raises:
        MediaReadError: If there is none.
    """
    names = [
        n
        for n in os.listdir(folder)
        if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith('.')
    ]
    if not names:
        raise MediaReadError(
            f'Frame folder {folder} has no image files ({", ".join(IMAGE_SUFFIXES)}).'
        )
    return [osp.join(folder, n) for n in sorted(names, key=_natural_key)]


@TRANSFORMS.register_module()
class ClipInit(BaseTransform):
    """Open a clip: a video file or a folder of frames.

    Required Keys:

    - filename

    Added Keys:

    - total_frames
    - start_index (0: both kinds of reader count from there)
    - avg_fps (video file only)
    - video_reader (video file) or frame_paths (folder)

    Args:
        num_threads (int): Decoding threads of a video file. Data loader
            workers already fill the cores, so that more rarely helps.
            Defaults to 1.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        MediaReadError: If the video cannot be opened or the folder is empty.
    """

    def __init__(self, num_threads: int = 1) -> None:
        self.num_threads = num_threads

    def transform(self, results: dict) -> dict:
        path = results['filename']
        require_file(path, results)
        results['start_index'] = 0
        if osp.isdir(path):
            results['frame_paths'] = list_frames(path)
            results['total_frames'] = len(results['frame_paths'])
            return results

        import decord

        try:
            reader = decord.VideoReader(path, num_threads=self.num_threads)
            results['total_frames'] = len(reader)
            results['avg_fps'] = reader.get_avg_fps()
        except Exception as e:  # decord raises several types
            raise MediaReadError(f'Cannot open video {path}: {e}') from e
        if results['total_frames'] == 0:
            raise MediaReadError(f'Video {path} has no frames.')
        results['video_reader'] = reader
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_threads={self.num_threads})'


@TRANSFORMS.register_module()
class ClipDecode(BaseTransform):
    """Decode the chosen frames, each distinct one once, and close the clip.

    Required Keys:

    - filename
    - frame_inds
    - video_reader or frame_paths (see :class:`ClipInit`)

    Added Keys:

    - imgs (list of RGB uint8 arrays (H, W, 3) that share no memory, because
      some steps, as mmaction2's ``Flip``, work in place)
    - original_shape
    - img_shape

    Raises:
        MediaReadError: If a frame cannot be decoded.
    """

    def transform(self, results: dict) -> dict:
        inds, where = np.unique(results['frame_inds'], return_inverse=True)
        reader = results.pop('video_reader', None)
        if reader is not None:
            try:
                frames = list(reader.get_batch(inds).asnumpy())
            except Exception as e:  # decord raises several types
                raise MediaReadError(
                    f'Cannot decode frames {inds.tolist()} of video {results["filename"]}: {e}'
                ) from e
        else:
            paths = results.pop('frame_paths')
            frames = [read_image(paths[i]) for i in inds]

        imgs, seen = [], set()
        for i in where.reshape(-1).tolist():
            imgs.append(frames[i].copy() if i in seen else frames[i])
            seen.add(i)
        results['imgs'] = imgs
        results['original_shape'] = imgs[0].shape[:2]
        results['img_shape'] = imgs[0].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


@TRANSFORMS.register_module()
class ImageLoad(BaseTransform):
    """Read an image as a clip of one frame.

    Required Keys:

    - filename

    Added Keys:

    - imgs (list with one RGB uint8 array (H, W, 3))
    - original_shape
    - img_shape
    - total_frames, num_clips, clip_len (all 1)

    Raises:
        FileNotFoundError: If there is no such file.
        MediaReadError: If it is truncated or no image.
    """

    def transform(self, results: dict) -> dict:
        require_file(results['filename'], results)
        img = read_image(results['filename'])
        results['imgs'] = [img]
        results['original_shape'] = img.shape[:2]
        results['img_shape'] = img.shape[:2]
        results.update(total_frames=1, num_clips=1, clip_len=1)
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
