# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, datasets: from an annotation file to the dict that a pipeline begins with.

:class:`ExpressionVideoDataset` and :class:`ExpressionImageDataset` read labelled clips
and images of your own; the public datasets build on them.
"""

import inspect
import os.path as osp
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
from mmaction.datasets.transforms import SampleFrames
from mmengine.dataset import force_full_init
from mmengine.registry import DATASETS

from .annotations import (
    LABEL_HEADERS,
    NAME_HEADERS,
    Annotation,
    AnnotationError,
    find_lists,
    label_to_id,
    parse_lines,
    read_lines,
    split_fields,
)
from .media_faults import FaultTolerantDataset
from .seeding import seeded_by

LISTED = 20  # annotation files named when another one is missing


class BaseExpressionDataset(FaultTolerantDataset):
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
        encoding (str): Of the annotation file, for example 'gb18030', 'latin-1' or
            'utf-16'. Defaults to 'utf-8-sig', UTF-8 with or without a byte order mark.
        label_map (dict, optional): For a test of a model that was trained on another
            data set: the name there of each class here that is called otherwise, None
            to leave the samples of the class out. Classes with the same name need no
            entry. ``metainfo`` then has the classes of the model, in its order; the
            annotation file is read with the dataset's own. A dataset without classes
            of its own has the keys of the map, in label order. Defaults to None:
            ``metainfo`` says what the file means.
        test_mode (bool): Whether in test phase. Defaults to False.
        **kwargs: ``max_fault_share`` and ``allow_test_faults``, see
            :class:`FaultTolerantDataset`, and other arguments of
            :class:`mmengine.dataset.BaseDataset`: ``indices``, ``lazy_init``,
            ``filter_cfg``, ``serialize_data``, ``max_refetch``.

    Raises:
        FileNotFoundError: If the annotation file does not exist.
        ValueError: If it is empty, a line is malformed, or a label unknown;
            the message has file, line number and value.
    """

    PREFIX_KEY: str  # key of data_prefix
    LABEL_START = 0
    HAS_LABELS = True

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        metainfo: dict | None = None,
        pipeline: Sequence = (),
        suffix: str = '',
        label_start: int | None = None,
        delimiter: str | None = None,
        has_labels: bool | None = None,
        encoding: str = 'utf-8-sig',
        label_map: dict[str, str | None] | None = None,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        if data_prefix is None:
            data_prefix = {self.PREFIX_KEY: ''}
        if set(data_prefix) != {self.PREFIX_KEY}:
            raise ValueError(
                f'data_prefix of {type(self).__name__} must have the key '
                f'{self.PREFIX_KEY!r} and no other, but got {data_prefix!r}.'
            )
        try:
            ''.encode(encoding)
        except LookupError as e:
            raise ValueError(f'encoding of {type(self).__name__}: {e}.') from e
        if not isinstance(suffix, str):
            raise ValueError(
                f"suffix of {type(self).__name__} must be text such as '.mp4', or '' for none, "
                f'but is {suffix!r}.'
            )
        self.encoding = encoding
        self.suffix = suffix
        self.label_start = self.LABEL_START if label_start is None else label_start
        self.delimiter = delimiter
        self.has_labels = self.HAS_LABELS if has_labels is None else has_labels
        metainfo = self._check_metainfo(metainfo)
        self.file_classes, self.target_ids = metainfo['classes'], None
        if label_map is not None:
            self.file_classes = self.own_classes() or tuple(label_map)
            self.target_ids = map_classes(self.file_classes, label_map, metainfo['classes'])
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=metainfo,
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs,
        )
        check_steps(pipeline, self.pipeline.transforms)

    def _check_metainfo(self, metainfo: dict | None) -> dict:
        """Make ``classes`` a tuple and check it."""
        if not (metainfo and 'classes' in metainfo):
            metainfo = {**(metainfo or {}), 'classes': self.own_classes()}
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

    def own_classes(self) -> tuple[str, ...]:
        """What the dataset itself calls its classes.

        Returns:
            tuple[str]: Names in the order of the label ids; () if the class does not
            state any.
        """
        return tuple(self.METAINFO.get('classes', ()))

    def load_data_list(self) -> list[dict]:
        """Read the annotation file.

        Returns:
            list[dict]: ``sample_id`` and, if there are labels, ``label``.

        Raises:
            AnnotationError: For the first line that is wrong.
        """
        data_list = []
        for found in self.annotations():
            if isinstance(found, AnnotationError):
                raise found
            data = dict(sample_id=found.name)
            if self.has_labels:
                data['label'] = found.label
            data_list.append(data)
        if not data_list:
            raise ValueError(
                f'Annotation file {self.ann_file} has no samples for {type(self).__name__}.'
            )
        return data_list

    def annotations(self) -> Iterator[Annotation | AnnotationError]:
        """The samples of the dataset, with the labels of ``metainfo``.

        Yields:
            Annotation | AnnotationError: The sample of each line, or what is wrong
            with it. ``label_map`` may have changed its label or left it out.
        """
        for found in self.read_annotations():
            if self.target_ids and isinstance(found, Annotation) and found.label is not None:
                found = found._replace(label=self.target_ids[found.label])
                if found.label is None:  # left out
                    continue
            yield found

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the annotation file, also after a line that is wrong.

        Yields:
            Annotation | AnnotationError: The sample of each line, with the label id of
            the file, or what is wrong with it.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        yield from parse_lines(self.read_lines(), self.parse_line, self.is_header)

    def read_lines(self) -> Iterator[tuple[str, str]]:
        """Read the annotation file as text.

        Returns:
            Iterator[tuple[str, str]]: ``file:line`` and the line, of each line that
            is not empty.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'Annotation file {osp.abspath(self.ann_file)} of '
                f'{type(self).__name__} does not exist. Check ann_file and '
                f'data_root ({self.data_root!r}). '
                f'{what_is_there(self.data_root or osp.dirname(self.ann_file))}'
            )
        return read_lines(self.ann_file, self.encoding)

    def is_header(self, line: str) -> bool:
        """Whether the first line of the file is a header.

        Args:
            line (str): The line.

        Returns:
            bool: Whether it is.
        """
        if not self.has_labels:
            return line.lower() in NAME_HEADERS
        fields = split_fields(line, self.delimiter)
        return len(fields) == 2 and fields[1].lower() in LABEL_HEADERS

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Parse a line of the annotation file.

        Args:
            line (str): The line.

        Returns:
            tuple[str, int | None] | None: Name of the sample and label id, from 0; None
            if there are no labels. A subclass may give None, to leave the line out.

        Raises:
            ValueError: If the line is malformed or its label unknown.
        """
        if not self.has_labels:
            return line, None
        fields = split_fields(line, self.delimiter)
        if len(fields) != 2 or not all(fields):
            between = 'a comma or white space' if self.delimiter is None else repr(self.delimiter)
            raise ValueError(
                f'expected a name and a label with {between} between them, but got '
                f'{line!r}. Set delimiter if it is another one, or has_labels=False if '
                'the lines are just names.'
            )
        return fields[0], self.label_to_id(fields[1])

    def label_to_id(self, label: str) -> int:
        """Find the id of a label of the annotation file.

        Args:
            label (str): An id as in the file, or the name of a class.

        Returns:
            int: Label id, from 0.

        Raises:
            ValueError: If there is no such class.
        """
        return label_to_id(label, self.file_classes, self.label_start)

    def get_media_path(self, name: str) -> str:
        """Path of the file, or folder of frames, of a sample.

        Args:
            name (str): Name in the annotation file.

        Returns:
            str: Path.
        """
        return osp.join(self.data_prefix[self.PREFIX_KEY], name + self.suffix)

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """What mmengine's does, without an array for each line."""
        packed = [pickle.dumps(info, protocol=4) for info in self.data_list]
        self.data_list.clear()
        ends = np.cumsum([len(info) for info in packed], dtype=np.int64)
        return np.frombuffer(b''.join(packed), np.uint8), ends

    def __getitem__(self, idx: int) -> dict:
        """Read a sample.

        Args:
            idx (int): Its index. A :class:`~s4d_mm.datasets.seeding.SeededIndex` has the seed under
                which the pipeline draws, also for the sample that takes its place.

        Returns:
            dict: Output of the pipeline.

        Raises:
            OSError: As :meth:`prepare_data`.
        """
        with seeded_by(idx):
            return super().__getitem__(int(idx))

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on a sample, or on another one if it cannot be read.

        Args:
            idx (int): Index of the sample.

        Returns:
            dict: Output of the pipeline.

        Raises:
            OSError: As :meth:`replace_unreadable`.
        """
        try:
            return super().prepare_data(idx)
        except OSError as e:
            return self.replace_unreadable(idx, e)

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


def check_steps(pipeline: Sequence, transforms: Sequence) -> None:
    """Refuse what mmaction2's steps take without a word.

    ``SampleFrames(frame_interval=0)`` repeats one frame, and ignores names that it does not know;
    ``Flip(flip_ratio=2)`` mirrors every sample.

    Args:
        pipeline (Sequence): The steps as the config has them.
        transforms (Sequence): The same steps, built.

    Raises:
        ValueError: If a value is out of range, or a name unknown.
    """
    for given, step in zip(pipeline, transforms):
        kind = type(step).__name__
        for name in ('clip_len', 'frame_interval', 'num_clips'):
            value = getattr(step, name, 1)
            if isinstance(value, (int, float)) and value < 1:
                raise ValueError(f'{name} of {kind} must be 1 or more, but is {value}.')
        ratio = getattr(step, 'flip_ratio', 0)
        if not 0 <= ratio <= 1:
            raise ValueError(f'flip_ratio of {kind} must be from 0 to 1, but is {ratio!r}.')
        if isinstance(given, dict) and isinstance(step, SampleFrames):
            takes = (inspect.signature(part.__init__) for part in type(step).__mro__)
            known = {name for signature in takes for name in signature.parameters}
            unknown = sorted(set(given) - known - {'type', '_scope_'})
            if unknown:
                raise ValueError(
                    f'{kind} has no {unknown[0]!r}; it takes '
                    f'{", ".join(sorted(known - {"self", "args", "kwargs"}))}.'
                )


def what_is_there(folder: str) -> str:
    """Say which annotation files there are, when another one is missing.

    Args:
        folder (str): Where to look.

    Returns:
        str: A sentence.
    """
    folder = osp.abspath(folder)
    if not osp.isdir(folder):
        return f'There is no folder {folder}.'
    lists = find_lists(folder)
    more = f' and {len(lists) - LISTED} more' if len(lists) > LISTED else ''
    return f'Below {folder} there are: {", ".join(lists[:LISTED]) or "no lists"}{more}.'


def map_classes(
    own: Sequence[str], label_map: dict[str, str | None], target: Sequence[str]
) -> list[int | None]:
    """Find the classes of a model that the classes of a dataset are.

    Args:
        own (Sequence[str]): Names of the dataset's classes, in label order.
        label_map (dict): Name in ``target`` of those that have another name there;
            None to leave a class out.
        target (Sequence[str]): Names of the model's classes, in label order.

    Returns:
        list[int | None]: For each of ``own`` its place in ``target``; None if it is
        left out.

    Raises:
        ValueError: If the map names a class that is not there, or a class has no
            counterpart.
    """
    unknown = [name for name in label_map if name not in own]
    names = {name: label_map.get(name, name) for name in own}
    lost = [name for name, new in names.items() if new is not None and new not in target]
    if unknown or lost:
        raise ValueError(
            f'label_map={dict(label_map)}: '
            + (f'{unknown} are no classes of the dataset, {tuple(own)}. ' if unknown else '')
            + (f'{lost} have no counterpart in {tuple(target)}. ' if lost else '')
            + 'Map each class to one of the classes in metainfo, or to None to leave it out.'
        )
    return [None if new is None else list(target).index(new) for new in names.values()]


@DATASETS.register_module()
class ExpressionVideoDataset(BaseExpressionDataset):
    """Clips: video files, or a folder of frames for each clip.

    See :class:`BaseExpressionDataset` for the arguments; the key of
    ``data_prefix`` is ``'video'``.

    Examples:
        >>> dataset = ExpressionVideoDataset(
        ...     ann_file='train.csv',  # lines like: 00001,neutral
        ...     data_root='data/mine',
        ...     data_prefix=dict(video='clips'),
        ...     suffix='.mp4',
        ...     metainfo=dict(classes=('neutral', 'happiness')))
    """

    INPUT_TYPE = 'video'
    PREFIX_KEY = 'video'


@DATASETS.register_module()
class ExpressionImageDataset(BaseExpressionDataset):
    """Images.

    See :class:`BaseExpressionDataset` for the arguments; the key of
    ``data_prefix`` is ``'img'``.
    """

    INPUT_TYPE = 'image'
    PREFIX_KEY = 'img'
