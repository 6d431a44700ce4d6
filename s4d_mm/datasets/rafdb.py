# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: RAF-DB."""

import os.path as osp
from collections.abc import Iterator

from mmengine.registry import DATASETS

from .annotations import Annotation, AnnotationError
from .public_dataset import PublicImageDataset


@DATASETS.register_module()
class RAFDB(PublicImageDataset):
    """RAF-DB, 7 classes.

    Text ``train_00001.jpg 5``, labels from 1; the file is
    ``train_00001_aligned.jpg``.

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

    def __init__(self, split: str | None = None, **kwargs) -> None:
        if split not in (None, 'train', 'test'):
            raise ValueError(f"split of RAFDB must be 'train' or 'test', but is {split!r}.")
        self.split = split
        super().__init__(**kwargs)

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the annotation file.

        Yields:
            Annotation | AnnotationError: The samples of the split, and what is wrong
            with any line.

        Raises:
            ValueError: If the file has both splits and ``split`` is not set.
        """
        self._splits = set()  # that were found
        yield from super().read_annotations()
        if self.split is None and {'train', 'test'} <= self._splits:
            raise ValueError(
                f'{self.ann_file} has images of both splits. Set '
                "split='train' or split='test' of RAFDB."
            )

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Parse a line of the annotation file; None if it is of another split."""
        name, label = super().parse_line(line)
        split = osp.basename(name).split('_')[0]
        self._splits.add(split)
        return (name, label) if self.split in (None, split) else None

    def get_media_path(self, name: str) -> str:
        """Path of the aligned image."""
        stem, ext = osp.splitext(super().get_media_path(name))
        return f'{stem}{"" if stem.endswith("_aligned") else "_aligned"}{ext}'
