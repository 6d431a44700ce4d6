# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow, for public datasets of clips in the wild."""

import os.path as osp
import re
from typing import Optional

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .base import LabelInName, PublicVideoDataset


@DATASETS.register_module()
class DFEW(PublicVideoDataset):
    """DFEW, 7 classes, 5 folds. CSV ``02522,5``; a folder of frames per clip.

    Ids of the official CSV are 1 to 7 and names have no leading zeros
    (``2522,6``). A file with a 7 and no 0 is taken for one of these.

    Args:
        label_start (int, optional): The smallest label id in the file.
            Defaults to None: 1 for an official file, 0 otherwise.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    METAINFO = dict(
        classes=('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear'),
        split_files=dict(
            train='EmoLabel_DataSplit/train(single-labeled)/set_{fold}.csv',
            test='EmoLabel_DataSplit/test(single-labeled)/set_{fold}.csv',
        ),
        paper=dict(
            title='DFEW: A Large-Scale Database for Recognizing Dynamic '
            'Facial Expressions in the Wild',
            venue='ACM MM 2020',
            url='https://arxiv.org/abs/2008.05924',
        ),
    )

    def __init__(self, label_start: Optional[int] = None, **kwargs) -> None:
        self.detect_label_start = label_start is None
        super().__init__(label_start=label_start, **kwargs)

    def load_data_list(self) -> list[dict]:
        if self.detect_label_start and osp.isfile(self.ann_file):
            with open(self.ann_file, encoding='utf-8-sig') as f:
                ids = {re.split(r'[,\s]', line.strip())[-1] for line in f}
            if '7' in ids and '0' not in ids:
                self.label_start = 1
                print_log(
                    f'{self.ann_file}: label ids 1 to 7, as in the official files of DFEW.',
                    logger='current',
                )
        return super().load_data_list()

    def media_names(self, name: str) -> list[str]:
        names = super().media_names(name)
        padded = [re.sub(r'^\d+', lambda m: m[0].zfill(5), n) for n in names]
        return list(dict.fromkeys(padded + names))


@DATASETS.register_module()
class FERV39k(PublicVideoDataset):
    """FERV39k, 7 classes, one split. CSV ``Crime/Angry/0063,0`` or the
    official ``Crime/Angry/0063 Angry``; a folder of frames per clip.
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


@DATASETS.register_module()
class MAFW(PublicVideoDataset):
    """MAFW, 11 classes, 5 folds. CSV ``03747,0`` or the official
    ``03747.mp4 anger``; a video file or a folder of png frames per clip.
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


@DATASETS.register_module()
class CAER(LabelInName, PublicVideoDataset):
    """CAER, 7 classes. The label is the folder of a clip:
    ``Anger/0001.avi``.
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

    def parse_name(self, name: str) -> Optional[tuple]:
        folders = name.split('/')[:-1]
        return (folders[-1], None) if folders else None


@DATASETS.register_module()
class VoxCeleb2(PublicVideoDataset):
    """VoxCeleb2, for pre-training, no labels: one path per line, or the folder
    of the clips (which takes its time: there are a million).
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
