# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A test without the order of time: a model that scores as well does not use the order.

Name this module in ``custom_imports``, with PYTHONPATH=tools/analysis_tools, and its step in place
of ``SampleClipViews``.
"""

import zlib

import numpy as np
from mmengine.registry import TRANSFORMS

from s4d_mm.datasets.transforms import SampleClipViews


@TRANSFORMS.register_module()
class ShuffledClipViews(SampleClipViews):
    """``SampleClipViews`` with the frames of each view in an order drawn from the clip's name."""

    def transform(self, results: dict) -> dict:
        """Draw the views, and shuffle the frames of each."""
        results = super().transform(results)
        rng = np.random.default_rng(zlib.crc32(str(results['sample_id']).encode()))
        views = results['frame_inds'].reshape(-1, self.clip_len)
        results['frame_inds'] = rng.permuted(views, axis=1).reshape(-1)
        return results
