# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: VoxCeleb2."""

from mmengine.registry import DATASETS

from .public_dataset import PublicVideoDataset


@DATASETS.register_module()
class VoxCeleb2(PublicVideoDataset):
    """VoxCeleb2, for pre-training, no labels.

    One path per line, or the folder of the clips (which takes its time: there are a
    million).
    """

    METAINFO = dict(
        split_files={},
        paper=dict(
            title='VoxCeleb2: Deep Speaker Recognition',
            venue='Interspeech 2018',
            url='https://arxiv.org/abs/1806.05622',
        ),
    )
    HAS_LABELS = False
    FROM_FOLDER = True
