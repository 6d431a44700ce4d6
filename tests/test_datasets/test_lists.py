# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Lists of any user's own format: what is read, and what is said when a line is wrong."""

import os.path as osp

import numpy as np
import pytest
from helpers import read_config, write_frames, write_text, write_video
from mmengine.config import Config

from s4d_mm.datasets import (
    DFEW,
    MAFW,
    AffectNet,
    AnnotationError,
    ExpressionVideoDataset,
    VoxCeleb2,
)
from s4d_mm.datasets.config import class_names_of_test, config_classes, trained_on

CLASSES = ('neutral', 'happiness', 'sadness')


def read(tmp_path, *lines, dataset=ExpressionVideoDataset, **kwargs):
    kwargs.setdefault('metainfo', dict(classes=CLASSES))
    return dataset(ann_file=write_text(tmp_path / 'ann.txt', *lines), **kwargs)


def samples_of(dataset):
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(i['sample_id'], i.get('label')) for i in infos]


@pytest.mark.parametrize(
    'lines, kwargs, expected',
    [
        (('a,0', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('path,id', '', 'a,0', '  ', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('\ufeffvideo_name,labels', 'a,1'), {}, [('a', 1)]),
        (('a b/c.jpg 1', 'd.jpg\t2'), {}, [('a b/c.jpg', 1), ('d.jpg', 2)]),
        (('"a,b",1',), {}, [('a,b', 1)]),
        (('a;1', '"b;c";2'), dict(delimiter=';'), [('a', 1), ('b;c', 2)]),
        (('a,Happiness', 'b,neutral', 'c,Sad'), {}, [('a', 1), ('b', 0), ('c', 2)]),
        (('a,1', 'b,1'), dict(metainfo=dict(classes=('2', 'x'))), [('a', 1), ('b', 1)]),
        (('Path', 'a b,1', 'c'), dict(has_labels=False), [('a b,1', None), ('c', None)]),
        (('a,0', 'b,1', 'c,2'), dict(indices=2), [('a', 0), ('b', 1)]),
    ],
)
def test_formats(tmp_path, lines, kwargs, expected):
    assert samples_of(read(tmp_path, *lines, **kwargs)) == expected


@pytest.mark.parametrize(
    'lines, kwargs, words',
    [
        (('name,label',), {}, ['ann.txt', 'no samples']),
        (('a,0', '', 'b,3'), {}, ['ann.txt:3', "'3'", '0 to 2', '2 sadness', 'label_start']),
        (('a,0',), dict(label_start=1), ['ann.txt:1', "'0'", '1 to 3', '3 sadness']),
        (('a,0', 'b,bored', 'c,8'), {}, ['ann.txt:2', "'bored'", '1 happiness']),
        (('a,0', 'b'), {}, ['ann.txt:2', "'b'", 'delimiter', 'has_labels']),
        (('a,0',), dict(delimiter=';'), ['ann.txt:1', "';' between"]),
        (('a,0',), dict(data_prefix=dict(img='x')), ["'video'", "'img'"]),
        (('a,0',), dict(metainfo={}), ['metainfo', 'has_labels=False']),
        (('a,0',), dict(encoding='klingon'), ['ann.txt:1', 'no klingon text']),
    ],
)
def test_mistakes(tmp_path, lines, kwargs, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, *lines, **kwargs)
    for word in words:
        assert word in str(error.value)


def test_all_wrong_lines_at_once(tmp_path):
    dataset = read(tmp_path, 'name,label', 'a,0', '', 'b,3', 'c', 'd,Sadness', lazy_init=True)
    wrong = []
    found = dataset.read_list(wrong)
    where = [f'{tmp_path}/ann.txt:{i}' for i in (2, 4, 5, 6)]
    assert [(s['sample_id'], s['where']) for s in found] == [('a', where[0]), ('d', where[3])]
    assert [(e.where, e.line) for e in wrong] == [(where[1], 'b,3'), (where[2], 'c')]
    assert str(wrong[0]).startswith(f'{where[1]}: ')


NAMES = ('恐惧,1', 'é,2')


@pytest.mark.parametrize('encoding, lines, bad_line', [('gb18030', NAMES, 2), ('utf-16', NAMES, 1)])
def test_encodings(tmp_path, encoding, lines, bad_line):
    path = tmp_path / 'a.csv'
    path.write_bytes(('path,id\r\n' + '\r\n'.join(lines)).encode(encoding))
    kwargs = dict(ann_file=str(path), metainfo=dict(classes=CLASSES))
    found = samples_of(ExpressionVideoDataset(encoding=encoding, **kwargs))
    assert [f'{name},{label}' for name, label in found] == list(lines)
    with pytest.raises(AnnotationError, match=f'a.csv:{bad_line}: this is no utf-8 .*encoding='):
        ExpressionVideoDataset(**kwargs)
    path.write_bytes(b'\xef\xbb\xbf' + b'\xc3\xa9,1\n' * 5000 + b'b\xff,1\n' + b'c\xff')
    with pytest.raises(AnnotationError, match='a.csv:5001: this is no utf-8 text'):
        ExpressionVideoDataset(**kwargs)


def test_missing_list_names_what_is_there(tmp_path):
    write_text(tmp_path / 'b' / 'train.csv')
    message = f'{tmp_path}/no/c.csv of .*data_root.*{tmp_path} has: b.'
    with pytest.raises(FileNotFoundError, match=message):
        ExpressionVideoDataset('no/c.csv', str(tmp_path), metainfo=dict(classes=CLASSES))


def test_what_a_pipeline_begins_with(tmp_path):
    write_text(tmp_path / 'lists' / 'a.csv', 'video_name,label', 'x/1,2', 'x/2,0')
    where = dict(data_root=str(tmp_path), data_prefix=dict(video='clips'), suffix='.mp4')
    dataset = ExpressionVideoDataset('lists/a.csv', metainfo=dict(classes=CLASSES), **where)
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
    labels = dataset.get_gt_labels()
    assert labels.dtype == np.int64 and labels.tolist() == [2, 0]


def test_lists_without_labels(tmp_path):
    dataset = read(tmp_path, 'path', 'id1/a b.mp4', dataset=VoxCeleb2, metainfo=None)
    info = dataset.get_data_info(0)
    assert info['filename'] == 'id1/a b.mp4' and not {'label', 'num_classes'} & set(info)


@pytest.mark.parametrize(
    'dataset, suffix, lines, files',
    [
        (DFEW, '.avi', ['16000.mp4,1', '7.mp4,1'], ['16000.avi', '00007.avi']),
        (DFEW, '.mp4', ['16000,1', '7,1'], ['16000.mp4', '7.mp4']),
        (MAFW, '', ['1.mp4 anger', '2.mp4 fear'], ['1', '2']),
        (ExpressionVideoDataset, '', ['a/1.mp4 0', 'b.mp4 1'], ['a/1.mp4', 'b.mp4']),
    ],
)
def test_files_of_a_list_are_found_whatever_they_are_called(
    tmp_path, dataset, suffix, lines, files
):
    """Also if most of the first ones are missing; the form of those that are there counts."""
    for name in files:
        path = tmp_path / 'clips' / name
        write_video(path, 2) if path.suffix else write_frames(path, 1)
    missing = [lines[0].replace('16000', '99999').replace('1.mp4', '3.mp4')] * 60
    options = dict(data_root=str(tmp_path), data_prefix=dict(video='clips'), suffix=suffix)
    options['metainfo'] = dict(classes=CLASSES) if dataset is ExpressionVideoDataset else None
    found = read(tmp_path, *missing, *lines, dataset=dataset, **options)
    paths = [found.get_data_info(i)['filename'] for i in (60, 61)]
    assert paths == [str(tmp_path / 'clips' / name) for name in files]


# ------------------------------------------------------------------- label_map
def test_label_map(tmp_path):
    """Ids are those of the dataset, labels those of the model."""
    target = ('sadness', 'calm', 'fear')
    label_map = dict(neutral='calm', happiness=None, sadness='sadness')
    kwargs = dict(label_map=label_map, metainfo=dict(classes=target))
    dataset = read(tmp_path, 'a,0', 'b,1', 'c,happiness', 'd,2', **kwargs)
    assert samples_of(dataset) == [('a', 1), ('d', 0)]
    assert dataset.get_data_info(0)['num_classes'] == 3 and dataset.metainfo['classes'] == target
    with pytest.raises(ValueError, match='ann.txt:1.*0 neutral, 1 happiness'):
        read(tmp_path, 'a,fear', **kwargs)
    for wrong, word in ((dict(contempt=None, x='fear'), 'x'), ({}, 'contempt')):
        with pytest.raises(ValueError, match=f'label_map=.*{word!r}.*or to None'):
            AffectNet(8, 'a.txt', label_map=wrong, metainfo=dict(classes=EIGHT[6::-1]))


# --------------------------------------------------------- what a config says
CLIPS = dict(type='DFEW', ann_file='nowhere.csv', pipeline=[dict(type='ClipInit')])
IMAGES = dict(type='AffectNet', ann_file='nowhere.txt', num_classes=8)
EIGHT = AffectNet.METAINFO['classes']


def loaders(**datasets):
    return Config({f'{stage}_dataloader': dict(dataset=d) for stage, d in datasets.items()})


def test_class_names_of_a_config():
    cfg = read_config('s4d_finetune_mafw')
    assert config_classes(cfg) == dict(video=MAFW.METAINFO['classes'], image=EIGHT[:7])
    # the tested set comes first
    other = dict(CLIPS, metainfo=dict(classes=('glad', 'sad')))
    joint = dict(type='DualModalDataset', video=CLIPS, image=IMAGES)
    cfg = loaders(test=other, val=CLIPS, train=joint)
    assert config_classes(cfg) == dict(video=('glad', 'sad'), image=EIGHT)
    assert class_names_of_test(cfg) == dict(video=('glad', 'sad'))
    foreign = dict(type='VideoDataset', ann_file='nowhere.txt', pipeline=[])
    assert config_classes(loaders(test=foreign)) == {}


def test_what_a_model_has_seen():
    for config, seen in (
        ('s4d_finetune_ferv39k', 'FERV39k, AffectNet'),
        ('own/own_clips', 'data/mine'),
        ('quickstart/s4d_quickstart_finetune', 'drawn faces'),
    ):
        assert trained_on(read_config(config)) == seen
    assert trained_on(dict(trained_on='a\x1b[31mb\nc' * 99)) == ('a[31mbc' * 99)[:100]
    for settings in ({}, dict(train_dataloader='x'), dict(train_dataloader=dict(dataset=3))):
        assert trained_on(settings) == ''
