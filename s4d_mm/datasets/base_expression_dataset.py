# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow: from an annotation file to the dict that a pipeline
begins with."""
import csv
import os.path as osp
from typing import List, Optional, Sequence, Tuple

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

# what the first line of a file with a header has in its last column
HEADER_WORDS = frozenset(
    ('label', 'labels', 'label_id', 'id', 'class', 'class_id', 'class_name',
     'category', 'emotion', 'expression'))
# ... and what it has if there is no label column
NAME_HEADER_WORDS = frozenset(('path', 'name', 'file', 'filename', 'video',
                               'video_name', 'image', 'image_name'))


class BaseExpressionDataset(BaseDataset):
    """Facial expression dataset with one sample per line of a text file.

    A line is a name and a label, ``Crime/Angry/0063,0`` or
    ``train/1.jpg happiness``. A header line is recognised and skipped, and so
    are empty lines. The label is an id or the name of a class.

    Samples are kept as names and label ids only, serialized by mmengine, so
    that data loader workers share their memory.

    Args:
        ann_file (str): Annotation file, absolute or below ``data_root``.
        data_root (str): Root of ``ann_file`` and ``data_prefix``.
            Defaults to ''.
        data_prefix (dict, optional): Folder of the files, under the key
            ``'video'`` or ``'img'`` (see :attr:`PREFIX_KEY`).
            Defaults to None, ``data_root`` itself.
        metainfo (dict, optional): ``dict(classes=(...))``, the class names in
            label order. Defaults to None, those of the class.
        pipeline (Sequence[dict | callable]): Transforms. Defaults to ().
        suffix (str): Appended to a name to give its file, for example
            ``'.mp4'``. Defaults to ''.
        label_start (int, optional): The smallest label id in the file.
            Defaults to None, the dataset's own (0 for most).
        delimiter (str, optional): Between name and label. Defaults to None: a
            comma if the line has one, white space otherwise.
        has_labels (bool, optional): False if a line is just a name, as in
            lists for pre-training. Defaults to None, the dataset's own (True
            for most).
        test_mode (bool): Whether in test phase. Defaults to False.
        **kwargs: Other arguments of :class:`mmengine.dataset.BaseDataset`:
            ``indices``, ``lazy_init``, ``filter_cfg``, ``serialize_data``,
            ``max_refetch``.

    Raises:
        FileNotFoundError: If the annotation file does not exist.
        ValueError: If it is empty, a line is malformed, or a label unknown;
            the message has file, line number and value.
    """

    INPUT_TYPE: str  # 'video' or 'image'
    PREFIX_KEY: str  # key of data_prefix
    LABEL_START = 0
    HAS_LABELS = True

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 data_prefix: Optional[dict] = None,
                 metainfo: Optional[dict] = None,
                 pipeline: Sequence = (),
                 suffix: str = '',
                 label_start: Optional[int] = None,
                 delimiter: Optional[str] = None,
                 has_labels: Optional[bool] = None,
                 test_mode: bool = False,
                 **kwargs) -> None:
        if data_prefix is None:
            data_prefix = {self.PREFIX_KEY: ''}
        if set(data_prefix) != {self.PREFIX_KEY}:
            raise ValueError(
                f'data_prefix of {type(self).__name__} must have the key '
                f'{self.PREFIX_KEY!r} and no other, but got {data_prefix!r}.')
        self.suffix = suffix
        self.label_start = (
            self.LABEL_START if label_start is None else label_start)
        self.delimiter = delimiter
        self.has_labels = (
            self.HAS_LABELS if has_labels is None else has_labels)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=self._check_metainfo(metainfo),
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs)

    def _check_metainfo(self, metainfo: Optional[dict]) -> dict:
        """Make ``classes`` a tuple and check it."""
        metainfo = dict(self._load_metainfo(metainfo))
        classes = tuple(metainfo.get('classes', ()))
        if self.has_labels and not classes:
            raise ValueError(
                f'{type(self).__name__} needs the class names in label order: '
                "metainfo=dict(classes=('neutral', ...)). If the annotation "
                'file has no labels, set has_labels=False.')
        if len({str(c).lower() for c in classes}) < len(classes):
            raise ValueError(
                f'metainfo classes of {type(self).__name__} has a class '
                f'twice: {classes}.')
        metainfo['classes'] = classes
        return metainfo

    def load_data_list(self) -> List[dict]:
        """Read the annotation file.

        Returns:
            list[dict]: ``sample_id`` and, if there are labels, ``label``.
        """
        if not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'Annotation file {osp.abspath(self.ann_file)} of '
                f'{type(self).__name__} does not exist. Check ann_file and '
                f'data_root ({self.data_root!r}).')
        label_ids = {
            str(name).lower(): i
            for i, name in enumerate(self._metainfo['classes'])
        }
        data_list = []
        with open(self.ann_file, encoding='utf-8-sig') as f:
            lines = ((i, line.strip()) for i, line in enumerate(f, 1))
            lines = [(i, line) for i, line in lines if line]
        for position, (number, line) in enumerate(lines):
            where = f'{self.ann_file}:{number}'
            if not self.has_labels:
                if position > 0 or line.lower() not in NAME_HEADER_WORDS:
                    data_list.append(dict(sample_id=line))
                continue
            name, label = self._split(line, where)
            if position == 0 and label.lower() in HEADER_WORDS:
                continue
            label = self._parse_label(label, label_ids, where)
            data_list.append(dict(sample_id=name, label=label))
        if not data_list:
            raise ValueError(f'Annotation file {self.ann_file} of '
                             f'{type(self).__name__} has no samples.')
        return data_list

    def _split(self, line: str, where: str) -> Tuple[str, str]:
        delimiter = self.delimiter
        if delimiter is None and ',' in line:
            delimiter = ','
        if delimiter is None or delimiter.isspace():
            fields = line.rsplit(delimiter, 1)
        else:
            fields = next(csv.reader([line], delimiter=delimiter))
        fields = [field.strip() for field in fields]
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f'{where}: expected a name and a label with '
                f'{"white space" if delimiter is None else repr(delimiter)} '
                f'between them, but got {line!r}. Set delimiter if it is '
                'another one, or has_labels=False if the lines are just '
                'names.')
        return fields[0], fields[1]

    def _parse_label(self, label: str, label_ids: dict, where: str) -> int:
        classes, start = self._metainfo['classes'], self.label_start
        try:
            label_id = int(label) - start
        except ValueError:
            label_id = label_ids.get(label.lower(), -1)
        if not 0 <= label_id < len(classes):
            allowed = ', '.join(f'{i} {c}'
                                for i, c in enumerate(classes, start))
            raise ValueError(
                f'{where}: unknown label {label!r}. {type(self).__name__} '
                f'allows {start} to {start + len(classes) - 1} or a class '
                f'name: {allowed}. If the ids of this file do not start at '
                f'{start}, set label_start.')
        return label_id

    def get_media_path(self, name: str) -> str:
        """Full path of the file (or folder of frames) that a name in the
        annotation file stands for.

        Args:
            name (str): Name in the annotation file.

        Returns:
            str: Path.
        """
        return osp.join(self.data_prefix[self.PREFIX_KEY], name + self.suffix)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """What the pipeline begins with.

        Args:
            idx (int): Index of the sample.

        Returns:
            dict: ``filename``, ``sample_id`` (the name in the annotation
            file), ``input_type`` ('video' or 'image'), ``modality`` ('RGB'),
            ``start_index`` (0), ``sample_idx`` and, if there are labels,
            ``label`` and ``num_classes``.
        """
        info = super().get_data_info(idx)
        info.update(
            filename=self.get_media_path(info['sample_id']),
            input_type=self.INPUT_TYPE,
            modality='RGB',
            start_index=0)
        if self.has_labels:
            info['num_classes'] = len(self._metainfo['classes'])
        return info

    def get_cat_ids(self, idx: int) -> List[int]:
        """Label of a sample, without decoding it.

        Args:
            idx (int): Index of the sample.

        Returns:
            list[int]: One label id, from 0.
        """
        return [self._label(idx)]

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Labels of all samples, without decoding them.

        Returns:
            np.ndarray: int64, label ids from 0, in the order of the samples.
        """
        return np.array([self._label(i) for i in range(len(self))], np.int64)

    def _label(self, idx: int) -> int:
        if not self.has_labels:
            raise ValueError(
                f'{type(self).__name__} of {self.ann_file} has no labels '
                '(has_labels=False).')
        return super().get_data_info(idx)['label']
