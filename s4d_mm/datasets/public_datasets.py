# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Start of the data flow, for public datasets: their classes in label order
and the habits of their annotation files."""
import os.path as osp
from typing import Optional

from mmengine.registry import DATASETS

from .expression_dataset import ExpressionImageDataset, ExpressionVideoDataset


@DATASETS.register_module()
class DFEW(ExpressionVideoDataset):
    """DFEW, 7 classes, 5 folds. CSV ``02522,5``; a folder of frames per
    clip."""

    METAINFO = dict(
        classes=('happiness', 'sadness', 'neutral', 'anger', 'surprise',
                 'disgust', 'fear'))


@DATASETS.register_module()
class FERV39k(ExpressionVideoDataset):
    """FERV39k, 7 classes, one split. CSV ``Crime/Angry/0063,0``; a folder of
    frames per clip."""

    METAINFO = dict(
        classes=('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness',
                 'surprise'))


@DATASETS.register_module()
class MAFW(ExpressionVideoDataset):
    """MAFW, 11 classes, 5 folds. CSV ``03747,0``; a folder of png frames per
    clip."""

    METAINFO = dict(
        classes=('anger', 'anxiety', 'contempt', 'disappointment', 'disgust',
                 'fear', 'happiness', 'helplessness', 'neutral', 'sadness',
                 'surprise'))


@DATASETS.register_module()
class AffectNet(ExpressionImageDataset):
    """AffectNet. Text ``relative/path.bmp 3``.

    Args:
        num_classes (int): 8, or 7 for the lists without contempt.
            Defaults to 7.
        metainfo (dict, optional): Meta information that replaces the
            dataset's own. Defaults to None.
        **kwargs: Arguments of :class:`BaseExpressionDataset`.
    """

    METAINFO = dict(
        classes=('neutral', 'happiness', 'sadness', 'surprise', 'fear',
                 'disgust', 'anger', 'contempt'))

    def __init__(self,
                 num_classes: int = 7,
                 metainfo: Optional[dict] = None,
                 **kwargs) -> None:
        if num_classes not in (7, 8):
            raise ValueError('num_classes of AffectNet must be 7 or 8, but '
                             f'got {num_classes!r}.')
        classes = self.METAINFO['classes'][:num_classes]
        metainfo = {'classes': classes, **(metainfo or {})}
        super().__init__(metainfo=metainfo, **kwargs)


@DATASETS.register_module()
class RAFDB(ExpressionImageDataset):
    """RAF-DB, 7 classes. Text ``train_00001.jpg 5``, labels from 1; the file
    is ``train_00001_aligned.jpg``."""

    METAINFO = dict(
        classes=('surprise', 'fear', 'disgust', 'happiness', 'sadness',
                 'anger', 'neutral'))
    LABEL_START = 1

    def get_media_path(self, name: str) -> str:
        stem, ext = osp.splitext(super().get_media_path(name))
        return f'{stem}{"" if stem.endswith("_aligned") else "_aligned"}{ext}'


@DATASETS.register_module()
class FERPlus(ExpressionImageDataset):
    """FERPlus, 8 classes. Text ``relative/path.png 0``."""

    METAINFO = dict(
        classes=('neutral', 'happiness', 'surprise', 'sadness', 'anger',
                 'disgust', 'fear', 'contempt'))


@DATASETS.register_module()
class VoxCeleb2(ExpressionVideoDataset):
    """VoxCeleb2, for pre-training: one path per line, no labels."""

    HAS_LABELS = False
