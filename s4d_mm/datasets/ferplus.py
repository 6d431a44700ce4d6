# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: FERPlus."""

from collections import Counter
from collections.abc import Iterator

from mmengine.registry import DATASETS

from .annotations import Annotation, AnnotationError
from .official_csv import OfficialCsvDataset, read_number


@DATASETS.register_module()
class FERPlus(OfficialCsvDataset):
    """FERPlus, 8 classes.

    Text ``relative/path.png 0``, or the official ``fer2013new.csv``.

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

    def __init__(self, split: str | None = None, **kwargs) -> None:
        if split is not None and split not in self.SPLITS:
            raise ValueError(
                f'split of FERPlus must be one of {list(self.SPLITS)}, but is {split!r}.'
            )
        self.split = split
        super().__init__(**kwargs)

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the official file, of which ``split`` chooses a part, or a simple list."""
        official = self.is_official()
        if official and self.split is None:
            raise ValueError(
                f'{self.ann_file} has images of all splits. Set '
                f'split of FERPlus, one of {list(self.SPLITS)}.'
            )
        if self.split is not None and self.ann_file and not official:
            raise ValueError(
                f'split={self.split!r} of FERPlus is for the official '
                f'fer2013new.csv; {self.ann_file} is a simple list.'
            )
        return super().read_annotations()

    def parse_row(self, row: dict[str, str], left_out: Counter) -> tuple[str, int | None] | None:
        """Parse a row of the official file: the class with most votes."""
        usage, folder = self.SPLITS[self.split]
        if row['Usage'] != usage:
            return None
        votes = [read_number(row[vote]) for vote in self.VOTES]
        label = votes.index(max(votes))
        if votes.count(votes[label]) > 1:
            left_out['with a tie'] += 1
        elif label >= len(self.METAINFO['classes']):
            left_out['with most votes for unknown or NF'] += 1
        elif not row['Image name'].strip():
            left_out['without an image'] += 1
        else:
            return f'{folder}/{row["Image name"]}', label
        return None
