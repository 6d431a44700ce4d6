# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: MAFW."""

from mmengine.registry import DATASETS

from .public_dataset import PublicVideoDataset


@DATASETS.register_module()
class MAFW(PublicVideoDataset):
    """MAFW, 11 classes, 5 folds.

    CSV ``03747,0`` or the official ``03747.mp4 anger``; a video file or a folder of
    png frames for each clip.
    """

    METAINFO = dict(
        classes=(
            'anger',
            'anxiety',
            'contempt',
            'disappointment',
            'disgust',
            'fear',
            'happiness',
            'helplessness',
            'neutral',
            'sadness',
            'surprise',
        ),
        split_files=dict(
            train='Train & Test Set/single/no_caption/set_{fold}/train.txt',
            test='Train & Test Set/single/no_caption/set_{fold}/test.txt',
        ),
        paper=dict(
            title='MAFW: A Large-scale, Multi-modal, Compound Affective '
            'Database for Dynamic Facial Expression Recognition in the Wild',
            venue='ACM MM 2022',
            url='https://arxiv.org/abs/2208.00847',
        ),
    )
