# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps 1 to 3: from a file name to RGB frames.

``ClipInit`` opens a clip, ``SampleClipViews`` (in training ``SampleClipWindow``, in pre-training
mmaction2's ``SampleFrames``) chooses frames, ``ClipDecode`` decodes just these. ``ImageLoad`` does
all three for an image and leaves the same keys, so that every later step serves clips and images
alike.
"""

import os.path as osp

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ...media import MediaReadError, NumberedFrames, list_frames, read_image


def require_file(results: dict) -> str:
    """The file of a sample.

    Raises:
        ValueError: If there is only its content.
        FileNotFoundError: If there is no such file, with the name of the sample.
    """
    if 'filename' not in results:
        raise ValueError(
            f'A step that opens a file got none, only {", ".join(results)}. To predict from pixels '
            'use s4d_mm.apis.ExpressionInferencer.'
        )
    path = results['filename']
    if not osp.exists(path):
        sample = results.get('sample_id')
        named = '' if sample is None else f' (sample {sample!r})'
        raise FileNotFoundError(
            f'{path} does not exist{named}. Check data_root, data_prefix and suffix of the dataset.'
        )
    return path


def require_positive(part: BaseTransform, **values: int) -> None:
    """Raise a ``ValueError`` if an argument of a transform is no positive int."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{name} of {type(part).__name__} must be a positive int, but got {value!r}.'
            )


def require_one_size(paths: list[str], frames: list[np.ndarray]) -> None:
    """Raise a ``MediaReadError`` that names two frames of different sizes, if there are."""
    for path, frame in zip(paths, frames):
        if frame.shape != frames[0].shape:
            (height, width), (other_height, other_width) = frames[0].shape[:2], frame.shape[:2]
            raise MediaReadError(
                f'Frame folder {osp.dirname(path)} has frames of several sizes: '
                f'{osp.basename(paths[0])} is {width} x {height}, {osp.basename(path)} is '
                f'{other_width} x {other_height}. Bring them to one size.'
            )


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
        """Open the clip and count its frames."""
        path = require_file(results)
        results['start_index'] = 0
        if osp.isdir(path):
            results['frame_paths'] = list_frames(path)
            results['total_frames'] = len(results['frame_paths'])
            return results

        reader = NumberedFrames(path, self.num_threads)
        results['total_frames'] = len(reader)
        results['avg_fps'] = reader.fps
        results['video_reader'] = reader
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_threads={self.num_threads})'


@TRANSFORMS.register_module()
class SampleClipViews(BaseTransform):
    """Temporal views of S4D's test protocol.

    Of every ``frame_interval``-th frame, the first view is the first
    ``clip_len``, the last view is the last ``clip_len``, and any others are
    evenly spread between. A clip too short for that is padded by repeating
    its last such frame.

    Required Keys:

    - total_frames
    - start_index

    Added Keys:

    - frame_inds (views one after the other)
    - clip_len
    - frame_interval
    - num_clips

    Args:
        clip_len (int): Frames per view. Defaults to 16.
        frame_interval (int): Distance between the frames. Defaults to 4.
        num_views (int): Number of views; one is the first view.
            Defaults to 2.
        merge_equal (bool): Whether a clip whose views are all the same ones,
            since it has no more than ``clip_len`` such frames, gets a single
            view, which the model computes once. Clips of a batch then differ
            in views, which needs ``DualModalDataPreprocessor(pack_views=
            True)`` and ``DualModalHead``. Defaults to False.
        predict_span (int, optional): Not for this step, but for prediction: frames of a video
            over which a window spreads its ``clip_len`` frames, a multiple of these. For data
            whose clips are such frames already, as DFEW's of 16. Defaults to None, which means
            every ``frame_interval``-th frame.
    """

    def __init__(
        self,
        clip_len: int = 16,
        frame_interval: int = 4,
        num_views: int = 2,
        merge_equal: bool = False,
        predict_span: int | None = None,
    ) -> None:
        require_positive(
            self, clip_len=clip_len, frame_interval=frame_interval, num_views=num_views
        )
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        if predict_span is not None and (predict_span < 1 or predict_span % clip_len):
            raise ValueError(
                f'predict_span={predict_span} of SampleClipViews must be a multiple of '
                f'clip_len={clip_len}.'
            )
        self.num_views = num_views
        self.merge_equal = merge_equal
        self.predict_span = predict_span

    def transform(self, results: dict) -> dict:
        """Choose the frames."""
        frames = np.arange(0, results['total_frames'], self.frame_interval)
        missing = max(self.clip_len - len(frames), 0)
        frames = np.pad(frames, (0, missing), mode='edge')
        last = len(frames) - self.clip_len
        num_views = 1 if self.merge_equal and last == 0 else self.num_views
        starts = np.linspace(0, last, num_views)
        starts = np.round(starts).astype(np.int64)
        picks = starts[:, None] + np.arange(self.clip_len)  # views x clip_len
        inds = frames[picks].reshape(-1) + results['start_index']
        results['frame_inds'] = inds.astype(np.int32)
        results['clip_len'] = self.clip_len
        results['frame_interval'] = self.frame_interval
        results['num_clips'] = num_views
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(clip_len={self.clip_len}, '
            f'frame_interval={self.frame_interval}, '
            f'num_views={self.num_views}, '
            f'merge_equal={self.merge_equal}, '
            f'predict_span={self.predict_span})'
        )


@TRANSFORMS.register_module()
class SampleClipWindow(BaseTransform):
    """A training clip of S4D's fine-tuning: frames spread over a window.

    The window has ``clip_len * frame_interval`` frames and starts anywhere. The
    ``clip_len`` frames go from its first to its last, both taken, rounded
    down, so that they lie a little more than ``frame_interval`` apart (64 / 15
    for 16 frames of 64). Of a clip that is no longer than the window, one frame
    in ``frame_interval`` is taken so, and its last frame is repeated.

    The authors' code draws the window's end below the number of frames, so the
    last frame of a longer clip is never taken; so here.

    Required Keys:

    - total_frames
    - start_index

    Added Keys:

    - frame_inds
    - clip_len
    - frame_interval
    - num_clips (1)

    Args:
        clip_len (int): Frames of the clip. Defaults to 16.
        frame_interval (int): Frames of the window for each frame of the clip.
            Defaults to 4.

    Raises:
        ValueError: If an argument is no positive int.
    """

    def __init__(self, clip_len: int = 16, frame_interval: int = 4) -> None:
        require_positive(self, clip_len=clip_len, frame_interval=frame_interval)
        self.clip_len = clip_len
        self.frame_interval = frame_interval

    def transform(self, results: dict) -> dict:
        """Choose the frames."""
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
        results['frame_inds'] = (frames + results['start_index']).astype(np.int32)
        results['clip_len'] = self.clip_len
        results['frame_interval'] = self.frame_interval
        results['num_clips'] = 1
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(clip_len={self.clip_len}, '
            f'frame_interval={self.frame_interval})'
        )


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
        MediaReadError: If a frame cannot be decoded, or the frames of a folder have several sizes.
    """

    def transform(self, results: dict) -> dict:
        """Decode the frames and close the clip."""
        inds, where = np.unique(results['frame_inds'], return_inverse=True)
        reader = results.pop('video_reader', None)
        if reader is not None:
            frames = list(reader.read(inds.tolist()))
        else:
            paths = results.pop('frame_paths')
            frames = [read_image(paths[i]) for i in inds]
            require_one_size([paths[i] for i in inds], frames)

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
        """Read the image."""
        img = read_image(require_file(results))
        results['imgs'] = [img]
        results['original_shape'] = img.shape[:2]
        results['img_shape'] = img.shape[:2]
        results.update(total_frames=1, num_clips=1, clip_len=1)
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
