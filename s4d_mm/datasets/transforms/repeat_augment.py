# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline step 5, when pre-training on video: several augmented views of
frames that are decoded once.
"""

from itertools import chain
from typing import Callable, Union

import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RepeatAugment(BaseTransform):
    """Repeated augmentation: run random transforms ``times`` times on the same
    decoded frames.

    The results become extra views, which ``FormatShape`` (inside
    ``transforms``, or after this step) puts on the first axis.

    Required Keys:

    - imgs

    Modified Keys:

    - imgs
    - all others as ``transforms`` leave them the last time

    Args:
        times (int): How often.
        transforms (list[dict | callable]): Transforms that end in one size
            for all views.
    """

    def __init__(self, times: int, transforms: list[Union[dict, Callable]]) -> None:
        if not isinstance(times, int) or times < 1:
            raise ValueError(f'times of RepeatAugment must be a positive int, but got {times!r}.')
        self.times = times
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict:
        views = []
        for _ in range(self.times):
            # copies, because some transforms work in place
            imgs = [img.copy() for img in results['imgs']]
            out = self.transforms(dict(results, imgs=imgs))
            views.append(out['imgs'])
        if isinstance(views[0], np.ndarray):  # formatted inside
            out['imgs'] = np.concatenate(views)
        else:
            out['imgs'] = list(chain.from_iterable(views))
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(times={self.times}, transforms={self.transforms})'
