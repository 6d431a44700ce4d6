# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public data sets: each is a few fields, and at most one way of its own to read a line.

``METAINFO`` has ``classes`` in label order and ``split_files``, the official annotation files,
where there are any. Labels may be ids or names: ``Happy`` is ``happiness``.
"""

import logging
import os.path as osp
import re
from collections import Counter
from collections.abc import Callable, Sequence

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .expression import BaseExpressionDataset, ExpressionImageDataset, ExpressionVideoDataset
from .lists import NAME_HEADER, read_lines, split_fields

SEVEN = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
ELEVEN = sorted((*SEVEN, 'anxiety', 'contempt', 'disappointment', 'helplessness'))
AFFECT = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
FER = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')


# ------------------------------------------------------------- clips with lists
@DATASETS.register_module()
class DFEW(ExpressionVideoDataset):
    """DFEW, 7 classes, 5 folds. CSV ``02522,5``; a folder of frames per clip.

    Ids of the official CSV are 1 to 7 and names have no leading zeros (``2522,6``). A file with a
    7 and no 0 is taken for one of these.
    """

    METAINFO = dict(
        classes=('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear'),
        split_files=dict(
            train='EmoLabel_DataSplit/train(single-labeled)/set_{fold}.csv',
            test='EmoLabel_DataSplit/test(single-labeled)/set_{fold}.csv',
        ),
    )
    LABEL_START = None
    NAME_DIGITS = 5
    COUNTS = (2445, 1894, 2669, 2173, 1469, 145, 902)  # of the clips with a single label


@DATASETS.register_module()
class FERV39k(ExpressionVideoDataset):
    """FERV39k, 7 classes, one split.

    CSV ``Crime/Angry/0063,0`` or the official ``Crime/Angry/0063 Angry``; a folder of frames for
    each clip.
    """

    METAINFO = dict(
        classes=SEVEN,
        split_files=dict(
            train='4_setups/All_scenes/train_All.csv', test='4_setups/All_scenes/test_All.csv'
        ),
    )


@DATASETS.register_module()
class MAFW(ExpressionVideoDataset):
    """MAFW, 11 single classes or 43 with the compound ones, 5 folds.

    CSV ``03747,0`` or the official ``03747.mp4 anger``; a video file or a folder of png frames for
    each clip.

    Args:
        compound (bool): Whether ``ann_file`` is a list of ``compound/no_caption``, with names such
            as ``anger_disgust``. The classes are then the names in the fold's ``train`` and
            ``test`` lists, which lie side by side and have all clips between them, in alphabetical
            order. Defaults to False.
    """

    METAINFO = dict(
        classes=tuple(ELEVEN),
        split_files=dict(
            train='Train & Test Set/single/no_caption/set_{fold}/train.txt',
            test='Train & Test Set/single/no_caption/set_{fold}/test.txt',
        ),
    )

    def __init__(
        self, compound: bool = False, ann_file: str = '', data_root: str = '', **kwargs
    ) -> None:
        self.compound = compound
        self.list_path = osp.join(data_root, ann_file)
        super().__init__(ann_file, data_root, **kwargs)

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Name and label id of a line; lists with captions, without neutral clips, are refused."""
        if max(line.count('\t'), line.count(',')) > 1:
            raise ValueError(f'{line!r} is of a list with captions. Give the one in no_caption.')
        return super().parse_line(line)

    def own_classes(self) -> tuple[str, ...]:
        """The 11 single classes, or the names in the compound lists of the fold."""
        if not self.compound:
            return super().own_classes()
        names, (folder, name) = set(), osp.split(self.list_path)
        for part in ('train', 'test'):
            path = osp.join(folder, re.sub('train|test', part, name))
            for _, line in read_lines(path, self.encoding):
                if not self.is_header(line):
                    names.add(split_fields(line, self.delimiter)[-1])
        ids = sorted(filter(str.isdecimal, names))
        if ids:
            raise ValueError(
                f'{self.list_path}: {ids} are ids, which do not say the names of compound classes. '
                'Give the official .txt lists, or metainfo=dict(classes=(...)) in label order.'
            )
        return tuple(sorted(names))


@DATASETS.register_module()
class VoxCeleb2(ExpressionVideoDataset):
    """VoxCeleb2, for pre-training, no labels: one path per line, or the folder of the clips."""

    HAS_LABELS = False
    FROM_FOLDER = True
    FACE_WINDOW = ((0, 160), (32, 192))  # rows and columns with the face


# --------------------------------------------------------------- labels in names
class LabelInName(BaseExpressionDataset):
    """Dataset whose names say the label, and often the person.

    A line of ``ann_file`` is a name, or a name and a label with a comma between them; then that
    label counts. Without ``ann_file`` the folder is listed.

    Args:
        subjects (Sequence[int], optional): Take only the samples of these people, so that folds
            can be made by person. Defaults to None, all.
    """

    FROM_FOLDER = True
    NAME: str  # regular expression with the groups label and, if names say it, person
    NAME_FORMAT: str  # what names look like, for error messages
    CODES: dict[str, str] = {}  # class of a label in a name, where it is not the word

    def __init__(self, *args, subjects: Sequence[int] | None = None, **kwargs) -> None:
        self.subjects = None if subjects is None else set(subjects)
        super().__init__(*args, **kwargs)

    def get_subject(self, name: str) -> int | None:
        """Number of the person in a sample; None if names do not say it."""
        person = self._match(name).groupdict().get('person')
        return None if person is None else int(person)

    def _match(self, name: str) -> re.Match:
        found = re.search(self.NAME, name)
        if found is None:
            raise ValueError(
                f'cannot read {name!r} as a name of {type(self).__name__}. Names are like '
                f'{self.NAME_FORMAT}.'
            )
        return found

    def is_header(self, line: str) -> bool:
        return bool(NAME_HEADER.fullmatch(line)) or super().is_header(line)

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        if self.delimiter is None and ',' not in line:
            return self.parse_name(line)
        name, label = super().parse_line(line)
        return (name, label) if self._is_chosen(name) else None

    def parse_name(self, name: str) -> tuple[str, int | None] | None:
        label = None
        if self.has_labels:
            code = self._match(name)['label']
            label = self.label_id(self.CODES.get(code, code))
        return (name, label) if self._is_chosen(name) else None

    def _is_chosen(self, name: str) -> bool:
        return self.subjects is None or self.get_subject(name) in self.subjects


@DATASETS.register_module()
class CREMAD(LabelInName, ExpressionVideoDataset):
    """CREMA-D, 6 classes, 91 actors: ``1001_DFA_ANG_XX.flv``."""

    METAINFO = dict(classes=SEVEN[:-1])
    NAME_FORMAT = "'1001_DFA_ANG_XX' (ANG, DIS, FEA, HAP, NEU or SAD)"
    CODES = dict(zip(('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD'), METAINFO['classes']))
    NAME = (
        rf'(?:^|/)(?P<person>\d{{4}})_[A-Z]{{3}}_(?P<label>{"|".join(CODES)})_'
        r'(?:LO|MD|HI|XX?)(?:\.\w+)?$'
    )


@DATASETS.register_module()
class RAVDESS(LabelInName, ExpressionVideoDataset):
    """RAVDESS, 8 classes, 24 actors: ``01-01-03-01-02-01-12.mp4``.

    The fields are modality, channel, emotion, intensity, statement, repetition and actor. When a
    folder is listed, only speech with picture and sound (``01-01-...``) is taken, because the
    clips without sound (``02-``) have the same pictures once more.
    """

    METAINFO = dict(
        classes=('neutral', 'calm', 'happiness', 'sadness', 'anger', 'fear', 'disgust', 'surprise')
    )
    NAME_FORMAT = "'01-01-03-01-02-01-12' (third field 01 to 08)"
    NAME = r'(?:^|/)(?:\d\d-){2}0(?P<label>[1-8])-(?:\d\d-){3}(?P<person>\d\d)(?:\.\w+)?$'
    CODES = {str(i): name for i, name in enumerate(METAINFO['classes'], 1)}

    def _listed(self) -> list[tuple[str, str]]:
        speech = re.compile(r'01-01-[^/]*$')
        return [
            (path, name)
            for path, name in super()._listed()
            if speech.match(name.split('/')[-1]) or not re.search(self.NAME, name)
        ]


@DATASETS.register_module()
class ENTERFACE05(LabelInName, ExpressionVideoDataset):
    """eNTERFACE'05, 6 classes: ``subject 1/anger/sentence 1/s1_an_1.avi``.

    The folders say person and label. The names of the files do not: some have typing errors, and
    those of subject 11 say 12.
    """

    METAINFO = dict(classes=('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise'))
    NAME_FORMAT = "'subject 1/anger/sentence 1/s1_an_1', with the folders of person and class"
    NAME = (
        r'(?i)(?:^|/)subject[ _]?(?P<person>\d+)/'
        rf'(?P<label>{"|".join(METAINFO["classes"])})/'
    )


@DATASETS.register_module()
class CAER(LabelInName, ExpressionVideoDataset):
    """CAER, 7 classes. The label is the folder of a clip: ``Anger/0001.avi``."""

    METAINFO = dict(classes=SEVEN)
    NAME_FORMAT = "'train/Anger/0001', with the class as the folder"
    NAME = r'(?:^|/)(?P<label>[^/]*)/[^/]*$'


@DATASETS.register_module()
class CAERS(LabelInName, ExpressionImageDataset):
    """CAER-S, 7 classes, frames of CAER. The label is the folder: ``train/Anger/0001.png``."""

    METAINFO = CAER.METAINFO
    NAME_FORMAT = "'train/Anger/0001.png', with the class as the folder"
    NAME = CAER.NAME


# ----------------------------------------------------------------------- images
@DATASETS.register_module()
class RAFDB(ExpressionImageDataset):
    """RAF-DB, 7 classes.

    Text ``train_00001.jpg 5``, labels from 1; the file is ``train_00001_aligned.jpg``.

    Args:
        split (str, optional): 'train' or 'test': take only the names that begin so. The official
            file has both. Defaults to None, for files with one of them.
    """

    METAINFO = dict(
        classes=('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutral'),
        split_files=dict.fromkeys(('train', 'test'), 'EmoLabel/list_patition_label.txt'),
    )
    LABEL_START = 1

    def __init__(self, *args, split: str | None = None, **kwargs) -> None:
        self.split = split
        super().__init__(*args, **kwargs)

    def read_list(self, wrong: list | None = None) -> list[dict]:
        found = super().read_list(wrong)
        splits = [osp.basename(s['sample_id']).split('_')[0] for s in found]
        several = {'train', 'test'} <= set(splits)
        if found and self.split not in splits and (several or self.split):
            raise ValueError(
                f"{self.ann_file}: split={self.split!r} of RAFDB must be 'train' or 'test', as the "
                'names of its images begin.'
            )
        return [s for s, split in zip(found, splits) if self.split in (None, split)]

    def path_forms(self) -> list[Callable[[str], str]]:
        def aligned(name: str) -> str:
            stem, end = osp.splitext(name + self.suffix)
            return f'{stem.removesuffix("_aligned")}_aligned{end}'

        return [aligned]


class OfficialCsv(ExpressionImageDataset):
    """Images with an official CSV of many columns, with or without a header, or a simple list.

    ``parse_row`` of a subclass gives name and label id of a row, or says why it is left out.
    """

    HEADER: str
    is_official = False

    def is_header(self, line: str) -> bool:
        """Whether the first line is a header; it also says whether this is the official CSV."""
        self.columns = self.HEADER.split(',')
        fields = split_fields(line, ',')
        self.is_official = len(fields) == len(self.columns)
        return fields[0] == self.columns[0] if self.is_official else super().is_header(line)

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        if not self.is_official:
            return super().parse_line(line)
        fields = split_fields(line, ',')
        if len(fields) != len(self.columns):
            raise ValueError(f'expected the columns {self.HEADER}, but got {len(fields)}.')
        parsed = self.parse_row(dict(zip(self.columns, fields)))
        if isinstance(parsed, str):
            self._left_out[parsed] += 1
            return None
        return parsed

    def read_list(self, wrong: list | None = None) -> list[dict]:
        self._left_out = Counter()
        found = super().read_list(wrong)
        reasons = [f'{n} {why}' for why, n in self._left_out.items() if why]
        if self.is_official:
            print_log(
                f'{self.ann_file}: {len(found)} images; left out: {", ".join(reasons) or "none"}.',
                logger='current',
            )
        return found


@DATASETS.register_module()
class AffectNet(OfficialCsv):
    """AffectNet, 7 or 8 classes.

    Text ``relative/path.bmp 3``, or the official ``training.csv`` and ``validation.csv``. Of an
    official file, what is no expression (None, Uncertain, Non-Face) is left out, and so is contempt
    if there are 7 classes.

    Args:
        num_classes (int): 8, or 7 for the lists without contempt. Defaults to 7.
        subsets (Sequence[str]): Lists of a part of the data, absolute or below ``data_root``. The
            first that exists is read in the place of ``ann_file``; the log says which. Defaults to
            ().
    """

    METAINFO = dict(classes=AFFECT, split_files=dict(train='training.csv', val='validation.csv'))
    HEADER = (
        'subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,'
        'valence,arousal'
    )

    def __init__(
        self,
        num_classes: int = 7,
        ann_file: str = '',
        data_root: str = '',
        subsets: Sequence[str] = (),
        **kwargs,
    ) -> None:
        self.num_classes = num_classes
        there = [name for name in subsets if osp.isfile(osp.join(data_root, name))]
        if subsets:
            print_log(
                f'Of {[*subsets, ann_file]} {(there or [ann_file])[0]} is read. The authors of S4D '
                'train on at most 20,000 a class: docs/data/affectnet.md.',
                logger='current',
                level=logging.INFO if there else logging.WARNING,
            )
        super().__init__((there or [ann_file])[0], data_root, **kwargs)

    def own_classes(self) -> tuple[str, ...]:
        return super().own_classes()[: self.num_classes]

    def parse_row(self, row: dict[str, str]) -> tuple[str, int] | str:
        label = int(row['expression'])
        if not 0 <= label < len(self.file_classes):
            return 'of other classes'
        return row['subDirectory_filePath'], label


@DATASETS.register_module()
class FERPlus(OfficialCsv):
    """FERPlus, 8 classes.

    Text ``relative/path.png 0``, or the official ``fer2013new.csv``. In the official file ten
    people vote for each image; the class with most votes counts. Images whose most votes are for
    unknown or NF (not a face), or are a tie, are left out. The images lie in ``FER2013Train``,
    ``FER2013Valid`` and ``FER2013Test``, as Microsoft's script writes them.

    Args:
        split (str, optional): 'train', 'valid' or 'test'; needed for the official file, which has
            all. Defaults to None.
    """

    METAINFO = dict(
        classes=FER, split_files=dict.fromkeys(('train', 'valid', 'test'), 'fer2013new.csv')
    )
    HEADER = f'Usage,Image name,{",".join(FER)},unknown,NF'
    SPLITS = dict(train='Training', valid='PublicTest', test='PrivateTest')  # in the official file

    def __init__(self, *args, split: str | None = None, **kwargs) -> None:
        self.split = split
        super().__init__(*args, **kwargs)

    def is_header(self, line: str) -> bool:
        header = super().is_header(line)
        if self.split not in (self.SPLITS if self.is_official else [None]):
            raise ValueError(
                f'{self.ann_file}: split={self.split!r} of FERPlus must be one of '
                f'{list(self.SPLITS)} for the official list, None for a simple list.'
            )
        return header

    def parse_row(self, row: dict[str, str]) -> tuple[str, int] | str:
        if row['Usage'] != self.SPLITS[self.split]:
            return ''
        votes = [int(row[vote]) for vote in (*FER, 'unknown', 'NF')]
        label = votes.index(max(votes))
        if votes.count(votes[label]) > 1:
            return 'with a tie'
        if label >= len(FER):
            return 'with most votes for unknown or NF'
        if not row['Image name'].strip():
            return 'without an image'
        return f'FER2013{self.split.capitalize()}/{row["Image name"]}', label
