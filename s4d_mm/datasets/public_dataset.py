# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: what they have in common."""

import os
import os.path as osp
from collections.abc import Iterator

from ..media import IMAGE_SUFFIXES, REFUSED_SUFFIXES, VIDEO_SUFFIXES
from .annotations import Annotation, AnnotationError, parse_lines
from .expression_dataset import (
    BaseExpressionDataset,
    ExpressionImageDataset,
    ExpressionVideoDataset,
)

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

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the annotation file, or list the folder.

        Yields:
            Annotation | AnnotationError: The sample of each line or file, or what is
            wrong with it.
        """
        if self.ann_file:
            yield from super().read_annotations()
            return
        if not self.FROM_FOLDER:
            raise ValueError(
                f'{type(self).__name__} needs ann_file. The official ones: '
                f'{self.METAINFO["split_files"]}.'
            )
        folder = self.data_prefix[self.PREFIX_KEY]
        names = self._names_in(folder)
        yield from parse_lines(((osp.join(folder, n), n) for n in names), self.parse_name_only)

    def parse_name_only(self, name: str) -> tuple[str, int | None] | None:
        """Parse a name that is found in the folder.

        Args:
            name (str): Name of the sample.

        Returns:
            tuple[str, int | None] | None: The name and its label id; None if there are
            no labels. A subclass may give None, to leave the name out.
        """
        return name, None

    def is_listed(self, name: str) -> bool:
        """Whether a name that is found in the folder belongs to the dataset.

        Args:
            name (str): The name.

        Returns:
            bool: Whether it does. True for all in most datasets.
        """
        return True

    def _names_in(self, folder: str) -> list[str]:
        """Names of the samples in a folder, sorted."""
        if not osp.isdir(folder):
            raise FileNotFoundError(
                f'Folder {osp.abspath(folder)} of {type(self).__name__} does '
                f'not exist. Check data_root ({self.data_root!r}) and '
                'data_prefix.'
            )
        names = sorted(filter(self.is_listed, self._walk(folder)))
        if not names:
            what = 'folders of frames' if self.INPUT_TYPE == 'video' else 'image files'
            if self.suffix:
                what = f'files that end in {self.suffix!r}'
            raise ValueError(
                f'Folder {folder} of {type(self).__name__} has no {what}. '
                "Check data_prefix and suffix (for example suffix='.mp4')."
            )
        return names

    def _walk(self, folder: str) -> Iterator[str]:
        """Names relative to the folder, without suffix, with ``/``."""
        frames = self.INPUT_TYPE == 'video' and not self.suffix
        # also those that will be refused when they are read: nothing is left out without a word
        suffixes = self.suffix or IMAGE_SUFFIXES + REFUSED_SUFFIXES
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

    def label_to_id(self, label: str) -> int:
        """Find the id of a label, which may be a name that other datasets use.

        Args:
            label (str): An id as in the file, or the name of a class.

        Returns:
            int: Label id, from 0.
        """
        word = label.lower()
        if word not in [str(name).lower() for name in self.file_classes]:
            label = SYNONYMS.get(word, label)
        return super().label_to_id(label)


class PublicVideoDataset(PublicDataset, ExpressionVideoDataset):
    """Public clips: a video file, or a folder of frames, for each.

    Official lists of some datasets have names like ``03747.mp4``. The suffix
    is dropped where ``suffix`` says what the files have, or where there is a
    folder of frames and no such file.
    """

    def media_names(self, name: str) -> list[str]:
        """What a clip may be called below ``data_prefix``.

        Args:
            name (str): Name in the annotation file.

        Returns:
            list[str]: Names without ``suffix``, the likeliest first.
        """
        stem, suffix = osp.splitext(name)
        if suffix.lower() not in VIDEO_SUFFIXES:
            return [name]
        return [stem] if self.suffix else [name, stem]

    def get_media_path(self, name: str) -> str:
        """Path of the first of :meth:`media_names` that exists.

        Args:
            name (str): Name in the annotation file.

        Returns:
            str: Path; of the likeliest name if none exists.
        """
        paths = [super(PublicVideoDataset, self).get_media_path(n) for n in self.media_names(name)]
        if len(paths) > 1:
            return next(filter(osp.exists, paths), paths[0])
        return paths[0]


class PublicImageDataset(PublicDataset, ExpressionImageDataset):
    """Public images."""
