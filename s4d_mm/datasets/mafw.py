# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: MAFW."""

import os.path as osp
from pathlib import PurePath

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .annotations import read_lines, split_fields
from .public_dataset import PublicVideoDataset

WITH_CAPTIONS = (
    'is of a list with captions, which has no neutral clips. Give the list of the same name in '
    'single/no_caption, or compound/no_caption.'
)


@DATASETS.register_module()
class MAFW(PublicVideoDataset):
    """MAFW, 11 single classes or 43 with the compound ones, 5 folds.

    CSV ``03747,0`` or the official ``03747.mp4 anger``; a video file or a folder of
    png frames for each clip.

    Args:
        compound (bool): Whether ``ann_file`` is a list of ``compound/no_caption``, with
            names such as ``anger_disgust``. The classes are then the names in the
            fold's ``train`` and ``test`` lists, which lie side by side and have all
            clips between them, in alphabetical order. Defaults to False.
        ann_file (str): Annotation file. Defaults to ''.
        data_root (str): Root of ``ann_file`` and ``data_prefix``. Defaults to ''.
        **kwargs: Arguments of :class:`PublicDataset`.

    Raises:
        FileNotFoundError: If one of the two compound lists does not exist.
        ValueError: If the name of a compound list has neither train nor test in it, or
            the lists have ids, which do not say the names; or if a list is one with captions.
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

    def __init__(
        self, compound: bool = False, ann_file: str = '', data_root: str = '', **kwargs
    ) -> None:
        if 'with_caption' in PurePath(ann_file).parts:
            raise ValueError(f'{osp.join(data_root, ann_file)} {WITH_CAPTIONS}')
        self.compound_list = osp.join(data_root, ann_file) if compound else None
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Parse a line of the annotation file; one with a caption is refused."""
        refuse_caption(line)
        return super().parse_line(line)

    def own_classes(self) -> tuple[str, ...]:
        """The 11 single classes, or the names in the compound lists of the fold."""
        if self.compound_list is None:
            return super().own_classes()
        folder, name = osp.split(self.compound_list)
        lists = [name.replace('test', 'train'), name.replace('train', 'test')]
        if lists[0] == lists[1]:
            raise ValueError(
                f'ann_file of MAFW(compound=True) is {self.compound_list!r}, but must have train '
                'or test in its name: the classes are those of both lists of the fold.'
            )
        names = set()
        for path in (osp.join(folder, part) for part in lists):
            if not osp.isfile(path):
                raise FileNotFoundError(
                    f'{path} does not exist. The compound classes of MAFW are those of the '
                    "fold's train and test lists, which must lie in one folder."
                )
            for where, line in read_lines(path, self.encoding):
                refuse_caption(line)
                label = split_fields(line, self.delimiter)[-1]
                if label.isdecimal():
                    raise ValueError(
                        f'{where}: label {label} is an id, which does not say the name of a '
                        'compound class. Give the official .txt lists, or the names in label '
                        'order: metainfo=dict(classes=(...)).'
                    )
                if not self.is_header(line):
                    names.add(label)
        print_log(f'{folder}: {len(names)} classes of MAFW.', logger='current')
        return tuple(sorted(names))


def refuse_caption(line: str) -> None:
    """Raise a ``ValueError`` for a line with more than a name and a label."""
    if max(line.count('\t'), line.count(',')) > 1:
        raise ValueError(f'{line!r} {WITH_CAPTIONS}')
