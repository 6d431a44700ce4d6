# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow, for public datasets: what they have in common."""

import csv
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Optional

from ...media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..base_expression_dataset import HEADER_WORDS, NAME_HEADER_WORDS, BaseExpressionDataset
from ..expression_dataset import ExpressionImageDataset, ExpressionVideoDataset

# what tools/data/prepare.py leaves beside the faces
NOT_LISTED = ('contact_sheet.jpg',)
# what datasets call the classes that all of them have here
SYNONYMS = dict(
    angry='anger', happy='happiness', sad='sadness', fearful='fear', surprised='surprise'
)


class PublicDataset(BaseExpressionDataset):
    """What the public datasets have in common.

    A class of these states ``METAINFO``: ``classes`` in label order,
    ``split_files`` (the official annotation files, where there are any) and
    ``paper``. Labels may be ids or names, also those of other datasets:
    ``Happy`` is ``happiness``.

    Args:
        ann_file (str): Annotation file. Defaults to '': the folder of
            ``data_prefix`` is listed, for datasets without an official one
            (:attr:`FROM_FOLDER`). Listed are the files that end in ``suffix``;
            without a suffix images, or folders of frames for a video dataset.
        **kwargs: Arguments of :class:`BaseExpressionDataset`.
    """

    FROM_FOLDER = False

    def __init__(self, ann_file: str = '', **kwargs) -> None:
        super().__init__(ann_file=ann_file or '', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file, or list the folder.

        Returns:
            list[dict]: ``sample_id`` and, if there are labels, ``label``.
        """
        if self.ann_file:
            return super().load_data_list()
        if not self.FROM_FOLDER:
            raise ValueError(
                f'{type(self).__name__} needs ann_file. The official ones: '
                f'{self.METAINFO["split_files"]}.'
            )
        folder = self.data_prefix[self.PREFIX_KEY]
        if not osp.isdir(folder):
            raise FileNotFoundError(
                f'Folder {osp.abspath(folder)} of {type(self).__name__} does '
                f'not exist. Check data_root ({self.data_root!r}) and '
                'data_prefix.'
            )
        names = sorted(filter(self.is_listed, self._names_in(folder)))
        if not names:
            what = (
                f'files that end in {self.suffix!r}'
                if self.suffix
                else 'folders of frames'
                if self.INPUT_TYPE == 'video'
                else 'image files'
            )
            raise ValueError(
                f'Folder {folder} of {type(self).__name__} has no {what}. '
                "Check data_prefix and suffix (for example suffix='.mp4')."
            )
        return [self.listed_sample(n, osp.join(folder, n)) for n in names]

    def is_listed(self, name: str) -> bool:
        """Whether a name found in the folder belongs to the dataset."""
        return True

    def listed_sample(self, name: str, where: str) -> dict:
        """The sample for a name found in the folder; ``where`` is for error
        messages.
        """
        return dict(sample_id=name)

    def _names_in(self, folder: str) -> Iterator[str]:
        """Names relative to the folder, without suffix, with ``/``."""
        frames = self.INPUT_TYPE == 'video' and not self.suffix
        suffixes = self.suffix or IMAGE_SUFFIXES
        for path, folders, files in os.walk(folder, followlinks=True):
            folders[:] = [f for f in folders if f[0] != '.' and f != '__MACOSX']
            files = [
                f
                for f in files
                if f[0] != '.'
                and f not in NOT_LISTED
                and (f if self.suffix else f.lower()).endswith(suffixes)
            ]
            below = osp.relpath(path, folder).replace(os.sep, '/')
            if frames and files and below != '.':
                yield below
            elif not frames:
                below = '' if below == '.' else f'{below}/'
                for f in files:
                    yield below + f[: len(f) - len(self.suffix)]

    def _parse_label(self, label: str, label_ids: dict, where: str) -> int:
        word = label.lower()
        if word not in label_ids:
            label = SYNONYMS.get(word, label)
        return super()._parse_label(label, label_ids, where)


class PublicVideoDataset(PublicDataset, ExpressionVideoDataset):
    """Public clips: a video file, or a folder of frames, for each.

    Official lists of some datasets have names like ``03747.mp4``. The suffix
    is dropped where ``suffix`` says what the files have, or where there is a
    folder of frames and no such file.
    """

    def media_names(self, name: str) -> list[str]:
        """What a clip may be called below ``data_prefix``, without
        ``suffix``, the likeliest first.
        """
        stem, suffix = osp.splitext(name)
        if suffix.lower() not in VIDEO_SUFFIXES:
            return [name]
        return [stem] if self.suffix else [name, stem]

    def get_media_path(self, name: str) -> str:
        """Full path of the first of :meth:`media_names` that exists."""
        paths = [super(PublicVideoDataset, self).get_media_path(n) for n in self.media_names(name)]
        if len(paths) > 1:
            return next(filter(osp.exists, paths), paths[0])
        return paths[0]


class PublicImageDataset(PublicDataset, ExpressionImageDataset):
    """Public images."""


class LabelInName(PublicDataset):
    """Datasets whose names say the label: for :meth:`parse_name`.

    A line of ``ann_file`` is a name, or a name and a label with a comma
    between them.

    Args:
        subjects (Sequence[int], optional): Take only the samples of these
            people, so that folds can be made by person. Defaults to None, all.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    FROM_FOLDER = True
    NAME_FORMAT: str  # what names look like, for error messages

    def __init__(self, subjects: Optional[Sequence[int]] = None, **kwargs) -> None:
        self.subjects = None if subjects is None else set(subjects)
        super().__init__(**kwargs)

    def parse_name(self, name: str) -> Optional[tuple[str, Optional[int]]]:
        """Label and person of a name, None if it cannot be read."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Read the annotation file, or list the folder.

        Returns:
            list[dict]: ``sample_id`` and, if there are labels, ``label``.
        """
        data_list = super().load_data_list()
        if self.subjects is None:
            return data_list
        people = [self.get_subject(data['sample_id']) for data in data_list]
        missing = self.subjects.difference(people)
        if missing:
            raise ValueError(
                f'subjects of {type(self).__name__}: {sorted(missing)} are '
                f'not in {self.ann_file or self.data_prefix}, which has '
                f'{sorted({p for p in people if p is not None})}.'
            )
        return [d for d, p in zip(data_list, people) if p in self.subjects]

    def get_subject(self, name: str) -> Optional[int]:
        """Number of the person in a sample.

        Args:
            name (str): ``sample_id`` of the sample.

        Returns:
            int | None: The number; None if the dataset does not tell.
        """
        return self._read_name(name, self.ann_file or 'subjects')[1]

    def listed_sample(self, name: str, where: str) -> dict:
        data = super().listed_sample(name, where)
        if self.has_labels:
            ids = {c: i for i, c in enumerate(self._metainfo['classes'])}
            label = self._read_name(name, where)[0]
            # names say classes, not ids
            data['label'] = self._parse_label(label, ids, where)
        return data

    def _split(self, line: str, where: str) -> tuple[str, str]:
        if self.delimiter is None and ',' not in line:
            if line.lower() in NAME_HEADER_WORDS:  # header of one column
                return line, 'label'
            return line, self._read_name(line, where)[0]
        name, label = super()._split(line, where)
        if label.lower() not in HEADER_WORDS and self.subjects is not None:
            self._read_name(name, where)
        return name, label

    def _read_name(self, name: str, where: str) -> tuple[str, Optional[int]]:
        found = self.parse_name(name)
        if found is None:
            raise ValueError(
                f'{where}: cannot read {name!r} as a name of '
                f'{type(self).__name__}. Names are like {self.NAME_FORMAT}.'
            )
        return found


def read_official_csv(path: str, columns: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Read an official annotation file with many columns, with or without a
    header.

    Args:
        path (str): The file.
        columns (Sequence[str]): Its columns.

    Yields:
        tuple[str, dict]: ``file:line`` and the fields by column, for each
        line.
    """
    with open(path, encoding='utf-8-sig', newline='') as f:
        reader = csv.reader(f)
        for position, row in enumerate(reader):
            if not row or position == 0 and row[0] == columns[0]:
                continue
            where = f'{path}:{reader.line_num}'
            if len(row) != len(columns):
                raise ValueError(
                    f'{where}: expected the {len(columns)} columns '
                    f'{", ".join(columns)}, but got {len(row)}.'
                )
            yield where, dict(zip(columns, row))


def is_official_csv(path: str, columns: Sequence[str]) -> bool:
    """Whether the first line of a file has as many fields as an official one;
    otherwise it is a simple list.

    Args:
        path (str): The file; it need not exist.
        columns (Sequence[str]): Columns of the official file.

    Returns:
        bool: Whether it has.
    """
    if not osp.isfile(path):
        return False
    with open(path, encoding='utf-8-sig', newline='') as f:
        return len(next(csv.reader(f), ())) == len(columns)


def read_number(text: str, where: str) -> int:
    """An id or a count of an official file.

    Args:
        text (str): The field.
        where (str): ``file:line``.

    Returns:
        int: The number.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{where}: expected a number, but got {text!r}.') from None
