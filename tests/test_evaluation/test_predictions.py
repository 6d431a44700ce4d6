# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Saved predictions: read without running code, and their figures."""

import argparse
import os
import pickle
from collections import OrderedDict

import mmengine
import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.evaluator import DumpResults

from s4d_mm.evaluation.metrics import PredictionsFile
from s4d_mm.evaluation.predictions import figures_by_modality, read_predictions


def sample(label, predicted, **more):
    return dict(gt_label=torch.tensor([label]), pred_score=torch.eye(2)[predicted], **more)


def test_unreadable_samples_count_as_wrong():
    samples = [sample(0, 0, input_type='video') for _ in range(4)]
    samples[3]['unreadable'] = True
    found = figures_by_modality(samples, dict(video=('a', 'b'), image=('a', 'b')))
    assert set(found) == {'video'}
    assert found['video']['metrics']['WAR'] == 75
    assert found['video']['matrix'] == [[3, 0], [0, 0]]
    assert found['video']['support'] == [4, 0] and found['video']['samples'] == 4


def test_modalities_are_apart():
    samples = [sample(0, 1, input_type='image'), sample(1, 1), sample(0, 0, input_type='image')]
    found = figures_by_modality(samples, dict(video=('a', 'b'), image=('c', 'd')))
    assert {k: f['metrics']['WAR'] for k, f in found.items()} == dict(video=100, image=50)
    assert found['image']['matrix'] == [[1, 1], [0, 0]]  # rows are true classes
    assert found['image']['classes'] == ['c', 'd']


def test_both_files_of_a_run_give_the_same(tmp_path):
    """mmengine's pickle, and ours beside it."""
    scores = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    samples = [
        ActionDataSample(
            metainfo=dict(sample_id=f'ü{i}', input_type='image', img_shape=(4, 4), **more),
            gt_label=torch.tensor([i % 2]),
            pred_score=scores[i],
        ).to_dict()
        for i, more in enumerate(({}, dict(unreadable=True), {}))
    ]
    found = []
    for kind, name in ((DumpResults, 'x.pkl'), (PredictionsFile, 'sub/x.json')):
        metric = kind(str(tmp_path / name))
        metric.process(None, samples)
        metric.evaluate(len(samples))
        found.append(read_predictions(tmp_path / name))
    for dumped, plain, score in zip(*found, scores):
        assert torch.equal(dumped['pred_score'], score)
        assert torch.equal(torch.tensor(plain['pred_score']), score)
        assert plain['gt_label'] == dumped['gt_label'].tolist()
        assert plain['sample_id'] == dumped['sample_id'] and 'img_shape' not in plain
    classes = dict(image=('a', 'b'))
    one, two = (figures_by_modality(samples, classes) for samples in found)
    assert one == two and one['image']['samples'] == 3
    assert one['image']['support'] == [2, 1] and sum(map(sum, one['image']['matrix'])) == 2
    assert os.listdir(tmp_path / 'sub') == ['x.json']


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_arrays_and_plain_types_are_read(protocol, tmp_path):
    more = dict(
        half=torch.ones(2).half().t(),
        view=torch.arange(6).reshape(2, 3).t(),
        array=np.arange(3.0),
        text=np.array(['a']),
        number=np.float32(2),
        shape=torch.Size([1]),
        dtype=torch.float32,
        ordered=OrderedDict(a=1),
        mixed=(None, True, {1}, b'x', 1j),
    )
    content = [dict(gt_label=torch.tensor([0]), pred_score=np.ones(2), **more)]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
    (read,) = read_predictions(tmp_path / 'x.pkl')
    assert torch.equal(read['view'], more['view']) and read['half'].dtype == torch.float16
    assert read['text'][0] == 'a' and read['number'] == 2 and read['mixed'] == more['mixed']


class Call:
    """Calls a function where it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_no_code_of_predictions_runs(tmp_path):
    path, harm = tmp_path / 'x.pkl', tmp_path / 'harm'
    inner = pickle.dumps(Call(os.mkdir, str(harm)), protocol=2)
    for content, name in (
        (Call(os.mkdir, str(harm)), f'{os.mkdir.__module__}.mkdir'),
        (Call(eval, f'open({str(harm)!r}, "w")'), r'_*builtins?_*\.eval'),
        (Call(getattr, OrderedDict, 'pop'), r'_*builtins?_*\.getattr'),
        (argparse.Namespace(x=1), 'argparse.Namespace'),
        (Call(torch.storage._load_from_bytes, inner), 'GLOBAL .*mkdir'),
    ):
        mmengine.dump([dict(gt_label=[0], pred_score=content)], path)
        with pytest.raises(ValueError, match=f'{path} cannot be read .*{name}') as error:
            read_predictions(path)
        assert 'False' not in str(error.value)
    assert not harm.exists()


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.json', b'[{"gt_label": [0]', 'it is no JSON'),
        ('x.json', b'{"a": 1}', 'a list is expected'),
        ('x.json', b'[{"gt_label": [0]}]', 'with gt_label and pred_score'),
        ('x.pkl', b'', 'Ran out of input'),
        ('x.pkl', pickle.dumps([1]), 'a list is expected'),
    ],
)
def test_what_is_no_file_of_predictions(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} .*{message}'):
        read_predictions(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='none.pkl'):
        read_predictions('none.pkl')
