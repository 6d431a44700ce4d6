# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow, for public datasets of images."""

import os.path as osp
from typing import Optional

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .base import LabelInName, PublicImageDataset, is_official_csv, read_number, read_official_csv
from .videos import CAER


@DATASETS.register_module()
class AffectNet(PublicImageDataset):
    """AffectNet. Text ``relative/path.bmp 3``, or the official
    ``training.csv`` and ``validation.csv``.

    Of an official file, what is no expression (None, Uncertain, Non-Face) is
    left out, and so is contempt if there are 7 classes.

    Args:
        num_classes (int): 8, or 7 for the lists without contempt.
            Defaults to 7.
        metainfo (dict, optional): Meta information that replaces the
            dataset's own. Defaults to None.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    METAINFO = dict(
        classes=(
            'neutral',
            'happiness',
            'sadness',
            'surprise',
            'fear',
            'disgust',
            'anger',
            'contempt',
        ),
        split_files=dict(train='training.csv', val='validation.csv'),
        paper=dict(
            title='AffectNet: A Database for Facial Expression, Valence, and '
            'Arousal Computing in the Wild',
            venue='IEEE TAFFC 2019',
            url='https://arxiv.org/abs/1708.03985',
        ),
    )
    COLUMNS = (
        'subDirectory_filePath',
        'face_x',
        'face_y',
        'face_width',
        'face_height',
        'facial_landmarks',
        'expression',
        'valence',
        'arousal',
    )

    def __init__(self, num_classes: int = 7, metainfo: Optional[dict] = None, **kwargs) -> None:
        if num_classes not in (7, 8):
            raise ValueError(f'num_classes of AffectNet must be 7 or 8, but got {num_classes!r}.')
        classes = self.METAINFO['classes'][:num_classes]
        metainfo = {'classes': classes, **(metainfo or {})}
        super().__init__(metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        if not is_official_csv(self.ann_file, self.COLUMNS):
            return super().load_data_list()
        num_classes = len(self._metainfo['classes'])
        data_list, others = [], 0
        for where, row in read_official_csv(self.ann_file, self.COLUMNS):
            label = read_number(row['expression'], where)
            if not 0 <= label <= 10:
                raise ValueError(
                    f'{where}: unknown expression {label}. The official files have 0 to 10.'
                )
            if label < num_classes:
                data_list.append(
                    dict(
                        sample_id=row['subDirectory_filePath'],
                        label=self._parse_label(str(label), {}, where),
                    )
                )
            else:
                others += 1
        print_log(
            f'{self.ann_file}: {len(data_list)} images of {num_classes} '
            f'classes; {others} others left out.',
            logger='current',
        )
        return _not_empty(data_list, self)


@DATASETS.register_module()
class RAFDB(PublicImageDataset):
    """RAF-DB, 7 classes. Text ``train_00001.jpg 5``, labels from 1; the file
    is ``train_00001_aligned.jpg``.

    Args:
        split (str, optional): 'train' or 'test': take only the names that
            begin so. The official file has both. Defaults to None, for files
            with one of them.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    METAINFO = dict(
        classes=('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutral'),
        split_files=dict(
            train='EmoLabel/list_patition_label.txt', test='EmoLabel/list_patition_label.txt'
        ),
        paper=dict(
            title='Reliable Crowdsourcing and Deep Locality-Preserving '
            'Learning for Expression Recognition in the Wild',
            venue='CVPR 2017',
            url='https://openaccess.thecvf.com/content_cvpr_2017/html/'
            'Li_Reliable_Crowdsourcing_and_CVPR_2017_paper.html',
        ),
    )
    LABEL_START = 1

    def __init__(self, split: Optional[str] = None, **kwargs) -> None:
        if split not in (None, 'train', 'test'):
            raise ValueError(f"split of RAFDB must be 'train' or 'test', but is {split!r}.")
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        data_list = super().load_data_list()
        splits = [osp.basename(data['sample_id']).split('_')[0] for data in data_list]
        if self.split is None:
            if {'train', 'test'} <= set(splits):
                raise ValueError(
                    f'{self.ann_file} has images of both splits. Set '
                    "split='train' or split='test' of RAFDB."
                )
            return data_list
        return _not_empty([d for d, s in zip(data_list, splits) if s == self.split], self)

    def get_media_path(self, name: str) -> str:
        stem, ext = osp.splitext(super().get_media_path(name))
        return f'{stem}{"" if stem.endswith("_aligned") else "_aligned"}{ext}'


@DATASETS.register_module()
class FERPlus(PublicImageDataset):
    """FERPlus, 8 classes. Text ``relative/path.png 0``, or the official
    ``fer2013new.csv``.

    In the official file ten people vote for each image; the class with most
    votes counts. Images whose most votes are for unknown or NF (not a face),
    or are a tie, are left out. The images lie in ``FER2013Train``,
    ``FER2013Valid`` and ``FER2013Test``, as Microsoft's script writes them.

    Args:
        split (str, optional): 'train', 'valid' or 'test'; needed for the
            official file, which has all. Defaults to None.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    METAINFO = dict(
        classes=(
            'neutral',
            'happiness',
            'surprise',
            'sadness',
            'anger',
            'disgust',
            'fear',
            'contempt',
        ),
        split_files=dict(train='fer2013new.csv', valid='fer2013new.csv', test='fer2013new.csv'),
        paper=dict(
            title='Training Deep Networks for Facial Expression Recognition '
            'with Crowd-Sourced Label Distribution',
            venue='ICMI 2016',
            url='https://arxiv.org/abs/1608.01041',
        ),
    )
    VOTES = (*METAINFO['classes'], 'unknown', 'NF')
    COLUMNS = ('Usage', 'Image name', *VOTES)
    # what the official file calls a split, and the folder of its images
    SPLITS = dict(
        train=('Training', 'FER2013Train'),
        valid=('PublicTest', 'FER2013Valid'),
        test=('PrivateTest', 'FER2013Test'),
    )

    def __init__(self, split: Optional[str] = None, **kwargs) -> None:
        if split is not None and split not in self.SPLITS:
            raise ValueError(
                f'split of FERPlus must be one of {list(self.SPLITS)}, but is {split!r}.'
            )
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        if not is_official_csv(self.ann_file, self.COLUMNS):
            if self.split is not None:
                raise ValueError(
                    f'split={self.split!r} of FERPlus is for the official '
                    f'fer2013new.csv; {self.ann_file} is a simple list.'
                )
            return super().load_data_list()
        if self.split is None:
            raise ValueError(
                f'{self.ann_file} has images of all splits. Set '
                f'split of FERPlus, one of {list(self.SPLITS)}.'
            )
        usage, folder = self.SPLITS[self.split]
        data_list, no_face, ties = [], 0, 0
        for where, row in read_official_csv(self.ann_file, self.COLUMNS):
            if row['Usage'] != usage:
                continue
            votes = [read_number(row[vote], where) for vote in self.VOTES]
            label = votes.index(max(votes))
            if votes.count(votes[label]) > 1:
                ties += 1
            elif label >= len(self.METAINFO['classes']) or (not row['Image name'].strip()):
                no_face += 1
            else:
                data_list.append(
                    dict(
                        sample_id=f'{folder}/{row["Image name"]}',
                        label=self._parse_label(str(label), {}, where),
                    )
                )
        print_log(
            f'{self.ann_file}: {len(data_list)} images of {usage}; left out: '
            f'{no_face} with most votes for unknown or NF, or without an '
            f'image; {ties} ties.',
            logger='current',
        )
        return _not_empty(data_list, self)


@DATASETS.register_module()
class CAERS(LabelInName, PublicImageDataset):
    """CAER-S, 7 classes, frames of CAER. The label is the folder of an image:
    ``train/Anger/0001.png``.
    """

    METAINFO = CAER.METAINFO
    NAME_FORMAT = "'train/Anger/0001.png', with the class as the folder"
    parse_name = CAER.parse_name


def _not_empty(data_list: list[dict], dataset: PublicImageDataset) -> list:
    if not data_list:
        raise ValueError(f'{dataset.ann_file} has no samples for {type(dataset).__name__}.')
    return data_list
