# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline step 2, when testing: which frames of a clip to look at.

In training this is mmaction2's ``SampleFrames``.
"""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


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
    """

    def __init__(
        self,
        clip_len: int = 16,
        frame_interval: int = 4,
        num_views: int = 2,
        merge_equal: bool = False,
    ) -> None:
        for name, value in dict(
            clip_len=clip_len, frame_interval=frame_interval, num_views=num_views
        ).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'{name} of SampleClipViews must be a positive int, but got {value!r}.'
                )
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.num_views = num_views
        self.merge_equal = merge_equal

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
            f'merge_equal={self.merge_equal})'
        )
