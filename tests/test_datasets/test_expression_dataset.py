# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Datasets of one's own: from an annotation file to the dict that a pipeline begins with."""

import os.path as osp
import pickle

import numpy as np
import pytest
from helpers import write_text

from s4d_mm.datasets import ExpressionImageDataset, ExpressionVideoDataset, VoxCeleb2

CLASSES = ('neutral', 'happiness', 'sadness')


def video_dataset(ann_file, **kwargs):
    kwargs.setdefault('metainfo', dict(classes=CLASSES))
    return ExpressionVideoDataset(ann_file=ann_file, **kwargs)


def read(tmp_path, *lines, **kwargs):
    return video_dataset(write_text(tmp_path / 'ann.txt', *lines), **kwargs)


def test_data_info(tmp_path):
    write_text(tmp_path / 'lists' / 'a.csv', 'video_name,label', 'x/1,2', 'x/2,0')
    dataset = video_dataset(
        'lists/a.csv', data_root=str(tmp_path), data_prefix=dict(video='clips'), suffix='.mp4'
    )
    assert len(dataset) == 2
    assert dataset.metainfo['classes'] == CLASSES
    assert dataset.get_data_info(0) == dict(
        filename=osp.join(str(tmp_path), 'clips', 'x/1.mp4'),
        sample_id='x/1',
        label=2,
        num_classes=3,
        input_type='video',
        modality='RGB',
        start_index=0,
        sample_idx=0,
    )
    assert dataset.get_cat_ids(1) == [0]
    labels = dataset.get_gt_labels()
    assert labels.dtype == np.int64 and labels.tolist() == [2, 0]


def test_lists_without_labels(tmp_path):
    ann_file = write_text(tmp_path / 'a.txt', 'path', 'id1/a b.mp4', 'id2/c.mp4')
    dataset = VoxCeleb2(ann_file=ann_file, data_root=str(tmp_path))
    info = dataset.get_data_info(0)
    assert len(dataset) == 2
    assert info['filename'] == osp.join(str(tmp_path), 'id1/a b.mp4')
    assert 'label' not in info and 'num_classes' not in info
    with pytest.raises(ValueError, match='has no labels'):
        dataset.get_gt_labels()
    # images with labels can be pre-trained on too, and without
    dataset = ExpressionImageDataset(ann_file=ann_file, has_labels=False)
    assert dataset.get_data_info(0)['input_type'] == 'image'


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(data_prefix=dict(img='x')), ["'video'", "'img'"]),
        (dict(metainfo={}), ['metainfo', 'has_labels=False']),
        (dict(metainfo=dict(classes=('a', 'A'))), ['twice']),
    ],
)
def test_wrong_arguments(tmp_path, kwargs, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, 'a,0', **kwargs)
    for word in words:
        assert word in str(error.value)


def test_missing_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        video_dataset('no.csv', data_root=str(tmp_path))
    assert str(tmp_path / 'no.csv') in str(error.value)
    assert 'data_root' in str(error.value)


def test_samples_are_packed(tmp_path):
    dataset = read(
        tmp_path,
        *(f'{i:06d},{i % 3}' for i in range(1000)),
        data_root=str(tmp_path),
        data_prefix=dict(video='x' * 100),
    )
    assert dataset.data_list == []  # nothing for workers to copy
    assert len(dataset.data_bytes) < 1000 * 64
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.get_data_info(999) == dataset.get_data_info(999)
    assert len(read(tmp_path, 'a,0', 'b,1', 'c,2', indices=2)) == 2


def test_packed_annotations(tmp_path):
    """Packed and unpacked annotations are the same, whole and in part."""
    lines = [f'clip/{i},{i % 3}' for i in range(50)]
    packed = read(tmp_path, *lines)
    plain = read(tmp_path, *lines, serialize_data=False)
    assert not packed.data_list and len(plain.data_list) == 50
    for a, b in ((packed, plain), (packed.get_subset([3, 40]), plain.get_subset([3, 40]))):
        assert [a[i] for i in range(len(a))] == [b[i] for i in range(len(b))]
