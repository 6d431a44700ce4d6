# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, datasets: from the index of a sample to the dict that a pipeline begins with."""

import numpy as np
from mmengine.dataset import force_full_init
from mmengine.registry import DATASETS

from .faults import FaultTolerantDataset
from .joint import SeededItems
from .lists import ListDataset


class BaseExpressionDataset(SeededItems, FaultTolerantDataset, ListDataset):
    """Facial expression dataset with one sample per line of a text file.

    A line is a name and a label, ``Crime/Angry/0063,0`` or ``train/1.jpg happiness``. A header
    line is recognised and skipped, and so are empty lines. The label is an id or the name of a
    class. ``mmengine`` packs the samples, so that the workers of a loader share their memory.

    Args:
        ann_file (str): Annotation file, absolute or below ``data_root``. Data sets whose names say
            the label, or without labels, may leave it out: the folder is listed.
        data_root (str): Root of ``ann_file`` and ``data_prefix``. Defaults to ''.
        data_prefix (dict, optional): Folder of the files, ``dict(video='...')`` for clips,
            ``dict(img='...')`` for images. Defaults to None, ``data_root`` itself.
        metainfo (dict, optional): ``dict(classes=(...))``, the class names in label order.
            Defaults to None, those of the data set.
        pipeline (Sequence[dict | callable]): Transforms. Defaults to ().
        suffix (str): Appended to a name to give its file, such as ``'.mp4'``. Defaults to ''.
        label_start (int, optional): The smallest label id in the file. Defaults to None, the data
            set's own (0 for most).
        delimiter (str, optional): Between name and label. Defaults to None: a comma if the line
            has one, white space otherwise.
        has_labels (bool, optional): False if a line is just a name, as in lists for pre-training.
            Defaults to None, the data set's own (True for most).
        encoding (str): Of the annotation file, such as 'gb18030', 'latin-1' or 'utf-16'. Defaults
            to 'utf-8-sig', UTF-8 with or without a byte order mark.
        label_map (dict, optional): For a test of a model of another data set: the name there of
            each class here that is called otherwise, None to leave its samples out. ``metainfo``
            then has the classes of the model, in its order. A dataset without classes of its own
            has the keys of the map, in label order. Defaults to None.
        **kwargs: ``max_fault_share`` and ``allow_test_faults`` of :class:`FaultTolerantDataset`,
            and other arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the annotation file does not exist.
        ValueError: If it is empty, a line is malformed, or a label unknown; the message has file,
            line number and value.
    """

    def prepare_data(self, idx: int) -> dict:
        try:
            return super().prepare_data(idx)
        except OSError as e:
            return self.replace_unreadable(idx, e)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """What the pipeline begins with.

        Returns:
            dict: ``filename``, ``sample_id`` (the name in the list), ``input_type`` ('video' or
            'image'), ``modality`` ('RGB'), ``start_index`` (0), ``sample_idx`` and, if there are
            labels, ``label`` and ``num_classes``.
        """
        info = super().get_data_info(idx)
        info.update(input_type=self.INPUT_TYPE, modality='RGB', start_index=0)
        if self.has_labels:
            info['num_classes'] = len(self._metainfo['classes'])
        return info

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Label ids (int64) of all samples, without decoding them."""
        return np.array([self.get_data_info(i)['label'] for i in range(len(self))], np.int64)


@DATASETS.register_module()
class ExpressionVideoDataset(BaseExpressionDataset):
    """Clips: video files, or a folder of frames for each clip.

    Examples:
        >>> dataset = ExpressionVideoDataset(
        ...     ann_file='train.csv',  # lines like: 00001,neutral
        ...     data_root='data/mine',
        ...     data_prefix=dict(video='clips'),
        ...     suffix='.mp4',
        ...     metainfo=dict(classes=('neutral', 'happiness')))
    """

    INPUT_TYPE = PREFIX_KEY = 'video'


@DATASETS.register_module()
class ExpressionImageDataset(BaseExpressionDataset):
    """Images."""

    INPUT_TYPE = 'image'
    PREFIX_KEY = 'img'
