# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: AffectNet."""

import logging
import os.path as osp
from collections import Counter
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .official_csv import OfficialCsvDataset, read_number


@DATASETS.register_module()
class AffectNet(OfficialCsvDataset):
    """AffectNet, 7 or 8 classes.

    Text ``relative/path.bmp 3``, or the official ``training.csv`` and
    ``validation.csv``. Of an official file, what is no expression (None, Uncertain,
    Non-Face) is left out, and so is contempt if there are 7 classes.

    Args:
        num_classes (int): 8, or 7 for the lists without contempt.
            Defaults to 7.
        ann_file (str): Annotation file. Defaults to ''.
        data_root (str): Root of ``ann_file`` and ``data_prefix``. Defaults to ''.
        subsets (Sequence[str]): Lists of a part of the data, absolute or below ``data_root``.
            The first that exists is read in the place of ``ann_file``; the log says which.
            Defaults to ().
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

    def __init__(
        self,
        num_classes: int = 7,
        ann_file: str = '',
        data_root: str = '',
        subsets: Sequence[str] = (),
        **kwargs,
    ) -> None:
        if num_classes not in (7, 8):
            raise ValueError(f'num_classes of AffectNet must be 7 or 8, but got {num_classes!r}.')
        self.num_classes = num_classes
        there = [name for name in subsets if osp.isfile(osp.join(data_root, name))]
        if there:
            print_log(f'{ann_file}: its part {there[0]} is read.', logger='current')
        elif subsets:
            print_log(
                f'None of {", ".join(subsets)} is in {data_root}, so all of {ann_file} is read. '
                'The authors of S4D train on at most 20,000 a class: docs/data/affectnet.md.',
                logger='current',
                level=logging.WARNING,
            )
        super().__init__(ann_file=(there or [ann_file])[0], data_root=data_root, **kwargs)

    def own_classes(self) -> tuple[str, ...]:
        """The first ``num_classes`` of the official order."""
        return super().own_classes()[: self.num_classes]

    def parse_row(self, row: dict[str, str], left_out: Counter) -> tuple[str, int | None] | None:
        """Parse a row of the official file."""
        label = read_number(row['expression'])
        if not 0 <= label <= 10:
            raise ValueError(f'unknown expression {label}. The official files have 0 to 10.')
        if label >= len(self.file_classes):
            left_out['of other classes'] += 1
            return None
        return row['subDirectory_filePath'], label
