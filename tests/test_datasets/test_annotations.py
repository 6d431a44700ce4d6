# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The parser of annotation files: what it reads, and what it says when a line is wrong."""

import pickle

import pytest
from helpers import write_text

from s4d_mm.datasets import Annotation, AnnotationError, ExpressionVideoDataset
from s4d_mm.datasets.annotations import label_to_id, parse_lines, read_lines, split_fields

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
    path.write_bytes(b'\xff1')
    with pytest.raises(ValueError, match='a.txt is no UTF-8 text'):
        list(read_lines(str(path)))


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
