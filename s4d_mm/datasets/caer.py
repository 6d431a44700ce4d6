# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: CAER and CAER-S."""

from mmengine.registry import DATASETS

from .label_in_name import LabelInName
from .public_dataset import PublicImageDataset, PublicVideoDataset


@DATASETS.register_module()
class CAER(LabelInName, PublicVideoDataset):
    """CAER, 7 classes.

    The label is the folder of a clip: ``Anger/0001.avi``.
    """

    METAINFO = dict(
        classes=('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise'),
        split_files={},
        paper=dict(
            title='Context-Aware Emotion Recognition Networks',
            venue='ICCV 2019',
            url='https://arxiv.org/abs/1908.05913',
        ),
    )
    NAME_FORMAT = "'train/Anger/0001', with the class as the folder"

    def parse_name(self, name: str) -> tuple | None:
        """Label: the folder. The names do not say the person."""
        folders = name.split('/')[:-1]
        return (folders[-1], None) if folders else None


@DATASETS.register_module()
class CAERS(LabelInName, PublicImageDataset):
    """CAER-S, 7 classes, frames of CAER.

    The label is the folder of an image: ``train/Anger/0001.png``.
    """

    METAINFO = CAER.METAINFO
    NAME_FORMAT = "'train/Anger/0001.png', with the class as the folder"
    parse_name = CAER.parse_name
