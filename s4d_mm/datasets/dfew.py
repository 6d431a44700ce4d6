# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: DFEW."""

import re
from collections.abc import Iterator

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .annotations import Annotation, AnnotationError
from .public_dataset import PublicVideoDataset


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

    COUNTS = (2445, 1894, 2669, 2173, 1469, 145, 902)  # of the clips with a single label

    def __init__(self, label_start: int | None = None, **kwargs) -> None:
        self.detect_label_start = label_start is None
        super().__init__(label_start=label_start, **kwargs)

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the annotation file, with ids from 1 if it has a 7 and no 0.

        Yields:
            Annotation | AnnotationError: The sample of each line, or what is wrong
            with it.
        """
        if self.detect_label_start and self.ann_file:
            ids = {re.split(r'[,\s]', line)[-1] for _, line in self.read_lines()}
            if '7' in ids and '0' not in ids:
                self.label_start = 1
                print_log(
                    f'{self.ann_file}: label ids 1 to 7, as in the official files of DFEW.',
                    logger='current',
                )
        yield from super().read_annotations()

    def media_names(self, name: str) -> list[str]:
        """What a clip may be called below ``data_prefix``, with leading zeros first."""
        names = super().media_names(name)
        padded = [re.sub(r'^\d+', lambda m: m[0].zfill(5), n) for n in names]
        return list(dict.fromkeys(padded + names))
