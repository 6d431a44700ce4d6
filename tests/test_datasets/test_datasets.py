# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Annotation files: what is read from them, and what is said when they are
wrong."""

import os.path as osp
import pickle

import numpy as np
import pytest
from helpers import write_text
from mmengine.registry import DATASETS

import s4d_mm  # noqa: F401
from s4d_mm.datasets import (
    DFEW,
    MAFW,
    RAFDB,
    AffectNet,
    ExpressionImageDataset,
    ExpressionVideoDataset,
    VoxCeleb2,
)

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


@pytest.mark.parametrize(
    'lines, kwargs, expected',
    [
        (('a,0', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('path,id', '', 'a,0', '  ', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('\ufeffvideo_name,labels', 'a,1'), {}, [('a', 1)]),
        (('a b/c.jpg 1', 'd.jpg\t2'), {}, [('a b/c.jpg', 1), ('d.jpg', 2)]),
        (('"a,b",1',), {}, [('a,b', 1)]),
        (('a,b 1',), dict(delimiter=' '), [('a,b', 1)]),
        (('a;1',), dict(delimiter=';'), [('a', 1)]),
        (('a,Happiness', 'b,neutral'), {}, [('a', 1), ('b', 0)]),
        (('a,1', 'b,3'), dict(label_start=1), [('a', 0), ('b', 2)]),
    ],
)
def test_formats(tmp_path, lines, kwargs, expected):
    dataset = read(tmp_path, *lines, **kwargs)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(i['sample_id'], i['label']) for i in infos] == expected


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
    'lines, kwargs, words',
    [
        ((), {}, ['ann.txt', 'no samples']),
        (('name,label',), {}, ['ann.txt', 'no samples']),
        (('a,0', 'b,3'), {}, ['ann.txt:2', "'3'", '0 to 2', '2 sadness', 'label_start']),
        (('a,0',), dict(label_start=1), ['ann.txt:1', "'0'", '1 to 3']),
        (('a,0', '', 'b,bored'), {}, ['ann.txt:3', "'bored'", '1 happiness']),
        (('a,-1',), {}, ['ann.txt:1', "'-1'", '0 to 2']),
        (('a,1', 'name,label'), {}, ['ann.txt:2', "'label'"]),
        (('a,0', 'b'), {}, ['ann.txt:2', "'b'", 'delimiter', 'has_labels']),
        (('a,0', 'b,'), {}, ['ann.txt:2', "'b,'"]),
        (('a,0,1',), {}, ['ann.txt:1', "'a,0,1'"]),
        (('a,0',), dict(data_prefix=dict(img='x')), ["'video'", "'img'"]),
        (('a,0',), dict(metainfo={}), ['metainfo', 'has_labels=False']),
        (('a,0',), dict(metainfo=dict(classes=('a', 'A'))), ['twice']),
    ],
)
def test_wrong_input(tmp_path, lines, kwargs, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, *lines, **kwargs)
    for word in words:
        assert word in str(error.value)


def test_missing_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        video_dataset('no.csv', data_root=str(tmp_path))
    assert str(tmp_path / 'no.csv') in str(error.value)
    assert 'data_root' in str(error.value)


@pytest.mark.parametrize(
    'name, num_classes, input_type, first_and_last',
    [
        ('DFEW', 7, 'video', ('happiness', 'fear')),
        ('FERV39k', 7, 'video', ('anger', 'surprise')),
        ('MAFW', 11, 'video', ('anger', 'surprise')),
        ('AffectNet', 7, 'image', ('neutral', 'anger')),
        ('RAFDB', 7, 'image', ('surprise', 'neutral')),
        ('FERPlus', 8, 'image', ('neutral', 'contempt')),
    ],
)
@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain', 'mmengine'])
def test_public_datasets(tmp_path, scope, name, num_classes, input_type, first_and_last):
    ann_file = write_text(tmp_path / 'a.txt', 'a.jpg 1', 'b.jpg 2')
    dataset = DATASETS.build(dict(type=name, _scope_=scope, ann_file=ann_file))
    classes = dataset.metainfo['classes']
    assert len(set(classes)) == len(classes) == num_classes
    assert (classes[0], classes[-1]) == first_and_last
    assert dataset.get_data_info(0)['num_classes'] == num_classes
    assert dataset.get_data_info(0)['input_type'] == input_type
    first = 1 if name == 'RAFDB' else 0
    assert dataset.get_gt_labels().tolist() == [1 - first, 2 - first]


def test_label_order_as_published(tmp_path):
    ann_file = write_text(tmp_path / 'a.csv', 'video_name,label', '02522,5')
    dataset = DFEW(ann_file=ann_file)
    (label,) = dataset.get_cat_ids(0)
    assert dataset.metainfo['classes'][label] == 'disgust'
    ann_file = write_text(tmp_path / 'b.csv', 'video_name,labels', '03747,7')
    dataset = MAFW(ann_file=ann_file)
    assert dataset.get_data_info(0)['sample_id'] == '03747'
    assert dataset.metainfo['classes'][dataset.get_cat_ids(0)[0]] == ('helplessness')


def test_affectnet_with_and_without_contempt(tmp_path):
    ann_file = write_text(tmp_path / 'a.txt', 'a.bmp 7')
    dataset = AffectNet(ann_file=ann_file, num_classes=8)
    assert dataset.metainfo['classes'][7] == 'contempt'
    with pytest.raises(ValueError, match='0 to 6'):
        AffectNet(ann_file=ann_file, num_classes=7)
    with pytest.raises(ValueError, match='num_classes'):
        AffectNet(ann_file=ann_file, num_classes=6)


def test_rafdb_names_the_aligned_file(tmp_path):
    ann_file = write_text(tmp_path / 'a.txt', 'train_00001.jpg 5', 'train_00002_aligned.jpg 1')
    dataset = RAFDB(ann_file=ann_file, data_prefix=dict(img='img'))
    names = [dataset.get_data_info(i)['filename'] for i in range(2)]
    assert names == ['img/train_00001_aligned.jpg', 'img/train_00002_aligned.jpg']
    assert dataset.get_data_info(0)['sample_id'] == 'train_00001.jpg'


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
