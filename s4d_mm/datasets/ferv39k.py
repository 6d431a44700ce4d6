# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: FERV39k."""

from mmengine.registry import DATASETS

from .public_dataset import PublicVideoDataset


@DATASETS.register_module()
class FERV39k(PublicVideoDataset):
    """FERV39k, 7 classes, one split.

    CSV ``Crime/Angry/0063,0`` or the official ``Crime/Angry/0063 Angry``; a folder
    of frames for each clip.
    """

    METAINFO = dict(
        classes=('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise'),
        split_files=dict(
            train='4_setups/All_scenes/train_All.csv', test='4_setups/All_scenes/test_All.csv'
        ),
        paper=dict(
            title='FERV39k: A Large-Scale Multi-Scene Dataset for Facial '
            'Expression Recognition in Videos',
            venue='CVPR 2022',
            url='https://arxiv.org/abs/2203.09463',
        ),
    )
