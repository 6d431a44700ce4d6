# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow, for your own data: any set of labelled clips or
images.
"""

from mmengine.registry import DATASETS

from .base_expression_dataset import BaseExpressionDataset


@DATASETS.register_module()
class ExpressionVideoDataset(BaseExpressionDataset):
    """Clips: video files, or a folder of frames per clip.

    See :class:`BaseExpressionDataset` for the arguments; the key of
    ``data_prefix`` is ``'video'``.

    Examples:
        >>> dataset = ExpressionVideoDataset(
        ...     ann_file='train.csv',  # lines like: 00001,neutral
        ...     data_root='data/mine',
        ...     data_prefix=dict(video='clips'),
        ...     suffix='.mp4',
        ...     metainfo=dict(classes=('neutral', 'happiness')))
    """

    INPUT_TYPE = 'video'
    PREFIX_KEY = 'video'


@DATASETS.register_module()
class ExpressionImageDataset(BaseExpressionDataset):
    """Images.

    See :class:`BaseExpressionDataset` for the arguments; the key of
    ``data_prefix`` is ``'img'``.
    """

    INPUT_TYPE = 'image'
    PREFIX_KEY = 'img'
