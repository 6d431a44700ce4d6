# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow: from an annotation file to the dict that a pipeline
begins with.
"""

import csv
import logging
import os.path as osp
import pickle
from collections.abc import Sequence
from typing import Optional

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from .media_faults import FaultLedger, TooManyFaultsError

# what the first line of a file with a header has in its last column
HEADER_WORDS = frozenset(
    (
        'label',
        'labels',
        'label_id',
        'id',
        'class',
        'class_id',
        'class_name',
        'category',
        'emotion',
        'expression',
    )
)
# ... and what it has if there is no label column
NAME_HEADER_WORDS = frozenset(
    ('path', 'name', 'file', 'filename', 'video', 'video_name', 'image', 'image_name')
)
REPLACEMENTS = 20  # tried for a sample that cannot be read
LISTED_FAULTS = 20  # named in an error message


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
        max_fault_share (float): Share of the samples, 0..1, that may be
            unreadable in training. A sample whose files are missing, empty or
            broken is logged once and replaced by another one, always the same;
            past this share training stops with the list. Defaults to 0.01.
        allow_test_faults (bool): Whether an unreadable sample in testing
            counts as a wrong prediction. Defaults to False, which means that
            it is an error.
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

    def __init__(
        self,
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
        max_fault_share: float = 0.01,
        allow_test_faults: bool = False,
        **kwargs,
    ) -> None:
        if not 0 <= max_fault_share <= 1:
            raise ValueError(
                f'max_fault_share of {type(self).__name__} must be a share '
                f'from 0 to 1, but is {max_fault_share!r}.'
            )
        self.max_fault_share = max_fault_share
        self.allow_test_faults = allow_test_faults
        if data_prefix is None:
            data_prefix = {self.PREFIX_KEY: ''}
        if set(data_prefix) != {self.PREFIX_KEY}:
            raise ValueError(
                f'data_prefix of {type(self).__name__} must have the key '
                f'{self.PREFIX_KEY!r} and no other, but got {data_prefix!r}.'
            )
        self.suffix = suffix
        self.label_start = self.LABEL_START if label_start is None else label_start
        self.delimiter = delimiter
        self.has_labels = self.HAS_LABELS if has_labels is None else has_labels
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=self._check_metainfo(metainfo),
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs,
        )

    def _check_metainfo(self, metainfo: Optional[dict]) -> dict:
        """Make ``classes`` a tuple and check it."""
        metainfo = dict(self._load_metainfo(metainfo))
        classes = tuple(metainfo.get('classes', ()))
        if self.has_labels and not classes:
            raise ValueError(
                f'{type(self).__name__} needs the class names in label order: '
                "metainfo=dict(classes=('neutral', ...)). If the annotation "
                'file has no labels, set has_labels=False.'
            )
        if len({str(c).lower() for c in classes}) < len(classes):
            raise ValueError(
                f'metainfo classes of {type(self).__name__} has a class twice: {classes}.'
            )
        metainfo['classes'] = classes
        return metainfo

    def load_data_list(self) -> list[dict]:
        """Read the annotation file.

        Returns:
            list[dict]: ``sample_id`` and, if there are labels, ``label``.
        """
        if not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'Annotation file {osp.abspath(self.ann_file)} of '
                f'{type(self).__name__} does not exist. Check ann_file and '
                f'data_root ({self.data_root!r}).'
            )
        label_ids = {str(name).lower(): i for i, name in enumerate(self._metainfo['classes'])}
        data_list = []
        is_first = True  # line that is not empty
        with open(self.ann_file, encoding='utf-8-sig') as f:
            for number, line in enumerate(f, 1):
                line = line.strip()
                if not line:
                    continue
                where = f'{self.ann_file}:{number}'
                maybe_header, is_first = is_first, False
                if not self.has_labels:
                    if not (maybe_header and line.lower() in NAME_HEADER_WORDS):
                        data_list.append(dict(sample_id=line))
                    continue
                name, label = self._split(line, where)
                if maybe_header and label.lower() in HEADER_WORDS:
                    continue
                label = self._parse_label(label, label_ids, where)
                data_list.append(dict(sample_id=name, label=label))
        if not data_list:
            raise ValueError(
                f'Annotation file {self.ann_file} of {type(self).__name__} has no samples.'
            )
        return data_list

    def _split(self, line: str, where: str) -> tuple[str, str]:
        delimiter = self.delimiter
        if delimiter is None and ',' in line:
            delimiter = ','
        if delimiter is None or delimiter.isspace():
            fields = line.rsplit(delimiter, 1)
        elif '"' not in line:
            fields = line.split(delimiter)
        else:
            fields = next(csv.reader([line], delimiter=delimiter))
        fields = [field.strip() for field in fields]
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f'{where}: expected a name and a label with '
                f'{"white space" if delimiter is None else repr(delimiter)} '
                f'between them, but got {line!r}. Set delimiter if it is '
                'another one, or has_labels=False if the lines are just '
                'names.'
            )
        return fields[0], fields[1]

    def _parse_label(self, label: str, label_ids: dict, where: str) -> int:
        classes, start = self._metainfo['classes'], self.label_start
        try:
            label_id = int(label) - start
        except ValueError:
            label_id = label_ids.get(label.lower(), -1)
        if not 0 <= label_id < len(classes):
            allowed = ', '.join(f'{i} {c}' for i, c in enumerate(classes, start))
            raise ValueError(
                f'{where}: unknown label {label!r}. {type(self).__name__} '
                f'allows {start} to {start + len(classes) - 1} or a class '
                f'name: {allowed}. If the ids of this file do not start at '
                f'{start}, set label_start.'
            )
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

    def full_init(self) -> None:
        """Read the annotations."""
        super().full_init()
        if not hasattr(self, 'faults'):
            self.faults = FaultLedger(len(self))

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """What mmengine's does, without an array for each line."""
        packed = [pickle.dumps(info, protocol=4) for info in self.data_list]
        self.data_list.clear()
        ends = np.cumsum([len(info) for info in packed], dtype=np.int64)
        return np.frombuffer(b''.join(packed), np.uint8), ends

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on a sample, or on another one if its files cannot
        be read.

        Args:
            idx (int): Index of the sample.

        Returns:
            dict: Output of the pipeline.

        Raises:
            OSError: In testing, if the files cannot be read, unless
                ``allow_test_faults``.
            TooManyFaultsError: If more than ``max_fault_share`` of the samples
                cannot be read (in testing, if all cannot).
        """
        try:
            return super().prepare_data(idx)
        except OSError as e:
            if self.test_mode and not self.allow_test_faults:
                raise
            self._record_fault(idx, e)
        # the same ones in every run: a function of the index alone
        rng = np.random.default_rng(idx)
        for other in rng.integers(len(self), size=REPLACEMENTS).tolist():
            try:
                data = super().prepare_data(other)
            except OSError as e:
                if not self.test_mode:
                    self._record_fault(other, e)
                continue
            return self._as_unreadable(data, idx) if self.test_mode else data
        raise TooManyFaultsError(
            f'{self.ann_file}: no readable sample was found in '
            f'{REPLACEMENTS + 1} attempts. Check data_root '
            f'({self.data_root!r}), data_prefix and suffix of '
            f'{type(self).__name__}.\n{self.describe_faults()}'
        )

    def _record_fault(self, idx: int, error: OSError) -> None:
        is_new = self.faults.add(idx)
        if is_new:
            done = 'it counts as wrong' if self.test_mode else 'another sample takes its place'
            print_log(
                f'Unreadable {self.INPUT_TYPE} sample, {done}: {error}',
                logger='current',
                level=logging.WARNING,
            )
        if not self.test_mode:
            self.check_faults(error)

    def check_faults(self, cause: Optional[BaseException] = None) -> None:
        """Stop if too many samples are unreadable.

        Args:
            cause (BaseException, optional): The last fault.

        Raises:
            TooManyFaultsError: If they are more than ``max_fault_share``.
        """
        share = self.faults.share()
        if share > self.max_fault_share:
            last = '' if cause is None else f' The last one: {cause}'
            raise TooManyFaultsError(
                f'{share:.2%} of the samples of {self.ann_file} are '
                f'unreadable, more than max_fault_share='
                f'{self.max_fault_share:.2%} of {type(self).__name__}. '
                'Repair or remove them, or raise max_fault_share.'
                f'{last}\n{self.describe_faults()}'
            ) from cause

    @force_full_init
    def describe_faults(self) -> str:
        """The unreadable samples found so far, a path a line."""
        bad = self.faults.indices()
        lines = [f'  {self.get_data_info(i)["filename"]}' for i in bad[:LISTED_FAULTS]]
        if len(bad) > LISTED_FAULTS:
            lines.append(f'  ... and {len(bad) - LISTED_FAULTS} more')
        return '\n'.join(lines)

    def _as_unreadable(self, data: dict, idx: int) -> dict:
        """Give the pixels of another sample the name and label of this one,
        and say that its prediction does not count.
        """
        info = self.get_data_info(idx)
        sample = data['data_samples']
        sample.set_metainfo(dict(sample_id=info['sample_id'], unreadable=True))
        if 'label' in info:
            sample.set_gt_label(info['label'])
        return data

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
            start_index=0,
        )
        if self.has_labels:
            info['num_classes'] = len(self._metainfo['classes'])
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
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
                f'{type(self).__name__} of {self.ann_file} has no labels (has_labels=False).'
            )
        return super().get_data_info(idx)['label']
