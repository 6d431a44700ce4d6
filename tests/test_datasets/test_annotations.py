# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The parser of annotation files: what it reads, and what it says when a line is wrong."""

import pickle

import pytest
from helpers import write_text

from s4d_mm.datasets import AffectNet, Annotation, AnnotationError, ExpressionVideoDataset
from s4d_mm.datasets.annotations import (
    find_lists,
    label_to_id,
    parse_lines,
    read_lines,
    split_fields,
)

CLASSES = ('neutral', 'happiness', 'sadness')


def read(tmp_path, *lines, **kwargs):
    kwargs.setdefault('metainfo', dict(classes=CLASSES))
    return ExpressionVideoDataset(ann_file=write_text(tmp_path / 'ann.txt', *lines), **kwargs)


@pytest.mark.parametrize(
    'lines, kwargs, expected',
    [
        (('a,0', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('path,id', '', 'a,0', '  ', 'b,2'), {}, [('a', 0), ('b', 2)]),
        (('', 'name Label', 'a 1'), {}, [('a', 1)]),
        (('\ufeffvideo_name,labels', 'a,1'), {}, [('a', 1)]),
        (('\ufeffé,1',), {}, [('é', 1)]),
        (('a b/c.jpg 1', 'd.jpg\t2'), {}, [('a b/c.jpg', 1), ('d.jpg', 2)]),
        (('"a,b",1',), {}, [('a,b', 1)]),
        (('a,b 1',), dict(delimiter=' '), [('a,b', 1)]),
        (('a;1',), dict(delimiter=';'), [('a', 1)]),
        (('  a , 1  ',), {}, [('a', 1)]),
        (('a,Happiness', 'b,neutral'), {}, [('a', 1), ('b', 0)]),
        (('a,1', 'b,3'), dict(label_start=1), [('a', 0), ('b', 2)]),
        (('a,1', 'b,1'), dict(metainfo=dict(classes=('2', 'x'))), [('a', 1), ('b', 1)]),
    ],
)
def test_formats(tmp_path, lines, kwargs, expected):
    dataset = read(tmp_path, *lines, **kwargs)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(i['sample_id'], i['label']) for i in infos] == expected


@pytest.mark.parametrize(
    'lines, expected',
    [
        (('Path', 'a b,1', 'c'), ['a b,1', 'c']),
        (('a', 'path'), ['a', 'path']),  # a header is the first line only
        (('label',), ['label']),  # no word for a column of names
    ],
)
def test_names_only(tmp_path, lines, expected):
    dataset = read(tmp_path, *lines, has_labels=False)
    assert [dataset.get_data_info(i)['sample_id'] for i in range(len(dataset))] == expected


@pytest.mark.parametrize(
    'lines, kwargs, words',
    [
        ((), {}, ['ann.txt', 'no samples']),
        (('name,label',), {}, ['ann.txt', 'no samples']),
        (('a,0', 'b,3'), {}, ['ann.txt:2', "'3'", '0 to 2', '2 sadness', 'label_start']),
        (('a,0',), dict(label_start=1), ['ann.txt:1', "'0'", '1 to 3', '3 sadness']),
        (('a,0', '', 'b,bored'), {}, ['ann.txt:3', "'bored'", '1 happiness']),
        (('a,-1',), {}, ['ann.txt:1', "'-1'", '0 to 2']),
        (('a,1', 'name,label'), {}, ['ann.txt:2', "'label'"]),
        (('a,0', 'b'), {}, ['ann.txt:2', "'b'", 'delimiter', 'has_labels']),
        (('a,0', 'b,'), {}, ['ann.txt:2', "'b,'"]),
        (('a,0', ',1'), {}, ['ann.txt:2', "',1'"]),
        (('a,0,1',), {}, ['ann.txt:1', "'a,0,1'"]),
        (('a,0',), dict(delimiter=';'), ['ann.txt:1', "';' between"]),
        # the first one of several
        (('a,0', 'b,7', 'c,8'), {}, ['ann.txt:2', "'7'"]),
    ],
)
def test_wrong_lines(tmp_path, lines, kwargs, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, *lines, **kwargs)
    for word in words:
        assert word in str(error.value)


def test_all_lines_also_the_wrong_ones(tmp_path):
    """The generator goes on after a line that is wrong."""
    dataset = read(tmp_path, 'name,label', 'a,0', '', 'b,3', 'c', 'd,Sadness', lazy_init=True)
    found = list(dataset.read_annotations())
    where = [f'{tmp_path}/ann.txt:{i}' for i in (2, 4, 5, 6)]
    assert [f.where for f in found] == where
    assert found[0] == Annotation(where[0], 'a', 0) and found[3] == Annotation(where[3], 'd', 2)
    for error, line in ((found[1], 'b,3'), (found[2], 'c')):
        assert isinstance(error, AnnotationError) and error.line == line
        assert str(error).startswith(f'{error.where}: ')
    # it goes from a worker to the main process whole
    copy = pickle.loads(pickle.dumps(found[1]))
    assert str(copy) == str(found[1]) and copy.where == where[1]


def test_parse_lines_leaves_out_what_is_none():
    lines = [('f:1', 'head'), ('f:2', 'head'), ('f:3', 'skip'), ('f:4', 'a')]
    found = parse_lines(
        lines, lambda line: None if line == 'skip' else (line, 5), lambda line: line == 'head'
    )
    assert list(found) == [('f:2', 'head', 5), ('f:4', 'a', 5)]
    # an error of another kind is no error of the line
    with pytest.raises(KeyError):
        list(parse_lines(lines, lambda line: {}[line]))


def test_read_lines(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes('\ufeff é 1 \r\n\r\n\t\nb'.encode())
    assert list(read_lines(str(path))) == [(f'{path}:1', 'é 1'), (f'{path}:4', 'b')]


NAMES = ('恐惧,1', 'é,2')  # in GB18030 both, in Latin-1 the second


@pytest.mark.parametrize(
    'encoding, lines, bad_line',
    [
        ('gb18030', NAMES, 2),
        ('utf-16', NAMES, 1),
        ('utf-16-le', ('a,1', 'b,2'), 1),  # no byte order mark, but NUL
        ('latin-1', NAMES[1:], 2),
    ],
)
def test_encodings(tmp_path, encoding, lines, bad_line):
    path = tmp_path / 'a.csv'
    path.write_bytes(('path,id\r\n' + '\r\n'.join(lines)).encode(encoding))
    dataset = ExpressionVideoDataset(
        ann_file=str(path), metainfo=dict(classes=CLASSES), encoding=encoding
    )
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [f'{f["sample_id"]},{f["label"]}' for f in found] == list(lines)
    # without the argument, an error at the first line that cannot be read
    with pytest.raises(
        AnnotationError, match=f'a.csv:{bad_line}: this is no utf-8 text.*encoding='
    ):
        list(read_lines(str(path)))


def test_line_that_cannot_be_decoded(tmp_path):
    path = tmp_path / 'a.txt'
    for start in (b'', '\ufeff'.encode()):
        path.write_bytes(start + b'\xc3\xa9,1\n' * 5000 + b'b\xff,1\n' + b'c\xff')
        with pytest.raises(AnnotationError, match='a.txt:5001: this is no utf-8 text') as error:
            list(read_lines(str(path)))
        assert error.value.where == f'{path}:5001'
    path.write_bytes('a,1\né,1'.encode())
    with pytest.raises(AnnotationError, match='a.txt:2: this is no ascii text'):
        list(read_lines(str(path), 'ascii'))


@pytest.mark.parametrize('encoding', ['klingon', 'hex'])
def test_unknown_encoding(encoding):
    with pytest.raises(ValueError, match=f'encoding of ExpressionVideo.*{encoding}'):
        ExpressionVideoDataset('a.csv', metainfo=dict(classes=CLASSES), encoding=encoding)


def test_missing_file_names_those_that_are_there(tmp_path):
    for name in (
        'b/set_1/train.csv',
        'b/set_1/frame.jpg',
        'a.TXT',
        'many/list.csv',
        'many/x/y.csv',
    ):
        write_text(tmp_path / name)
    for i in range(100):  # a folder of media is not entered
        (tmp_path / 'many' / f'{i}').mkdir()
    assert find_lists(str(tmp_path)) == ['a.TXT', 'many/list.csv', 'b/set_1/train.csv']
    with pytest.raises(FileNotFoundError) as error:
        ExpressionVideoDataset('c.csv', str(tmp_path), metainfo=dict(classes=CLASSES))
    assert f'Below {tmp_path} there are: a.TXT, many/list.csv, b/set_1/train.csv.' in str(
        error.value
    )
    with pytest.raises(FileNotFoundError, match=f'There is no folder {tmp_path}/no.$'):
        ExpressionVideoDataset(str(tmp_path / 'no/c.csv'), metainfo=dict(classes=CLASSES))
    for i in range(25):
        write_text(tmp_path / f'{i}.csv')
    with pytest.raises(FileNotFoundError, match=r' and 8 more\.$'):
        ExpressionVideoDataset('c.csv', str(tmp_path), metainfo=dict(classes=CLASSES))


# ------------------------------------------------------------------ label_map
def test_label_map(tmp_path):
    """Ids are those of the dataset, labels those of the model."""
    target = ('sadness', 'calm', 'fear')
    dataset = read(
        tmp_path,
        'a,0',
        'b,1',
        'c,happiness',
        'd,2',
        label_map=dict(neutral='calm', happiness=None, sadness='sadness'),
        metainfo=dict(classes=target),
    )
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(i['sample_id'], i['label']) for i in infos] == [('a', 1), ('d', 0)]
    assert infos[0]['num_classes'] == 3 and dataset.metainfo['classes'] == target
    with pytest.raises(ValueError, match='ann.txt:1.*0 neutral, 1 happiness'):
        read(
            tmp_path, 'a,fear', label_map=dict.fromkeys(CLASSES[:2]), metainfo=dict(classes=target)
        )


@pytest.mark.parametrize(
    'label_map, words',
    [
        (dict(contempt=None, x='fear'), ["['x'] are no classes of the dataset"]),
        ({}, ["['contempt'] have no counterpart", 'to None to leave it out']),
        (dict(contempt=None, fear='joy'), ["['fear'] have no counterpart"]),
    ],
)
def test_label_map_must_fit(label_map, words):
    target = AffectNet.METAINFO['classes'][6::-1]
    with pytest.raises(ValueError) as error:
        AffectNet(
            8, ann_file='a.txt', lazy_init=True, label_map=label_map, metainfo=dict(classes=target)
        )
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    'line, delimiter, fields',
    [
        ('a b 1', None, ['a b', '1']),
        ('a b , 1', None, ['a b', '1']),
        ('a,b 1', ' ', ['a,b', '1']),
        ('a;b;1', ';', ['a', 'b', '1']),
        ('"a;b";1', ';', ['a;b', '1']),
        ('a', None, ['a']),
    ],
)
def test_split_fields(line, delimiter, fields):
    assert split_fields(line, delimiter) == fields


def test_label_to_id():
    assert [label_to_id(x, CLASSES, 1) for x in ('1', '3', 'Neutral')] == [0, 2, 0]
    for bad in ('0', '4', 'angry', '', '1.0'):
        with pytest.raises(ValueError, match=f"unknown label '{bad}'.*1 to 3.*1 neutral"):
            label_to_id(bad, CLASSES, 1)
