# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""ExpressionMetric: numbers by hand, and errors."""

import csv
from math import nan

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.evaluator import Evaluator

from s4d_mm.evaluation import ExpressionMetric

CLASSES = ('calm', 'glad', 'sad')
ALL = (*CLASSES, 'wild')


def sample(label, prediction, input_type='video', sample_id='x', num=3):
    score = torch.full((num,), 0.1)
    score[prediction] = 1 - 0.1 * (num - 1)
    return (
        ActionDataSample(metainfo=dict(input_type=input_type, sample_id=sample_id))
        .set_gt_label(label)
        .set_pred_score(score)
    )


def evaluate(samples, classes, **kwargs):
    metric = ExpressionMetric(**kwargs)
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=classes)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples)), metric


def rows_of(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.reader(f))


def test_numbers_by_hand(tmp_path):
    """What could not be read is wrong in every figure, also if its prediction is right."""
    # true class and prediction; nobody is sad
    pairs = [(0, 0)] * 4 + [(0, 1), (0, 2), (1, 0)] + [(1, 1)] * 4
    samples = [sample(*pair, num=4) for pair in pairs]
    samples[-1].set_metainfo(dict(unreadable=True))
    path = tmp_path / 'predictions.csv'
    for number, recall_of_glad in ((10, 3 / 4), (11, 3 / 5)):
        metrics, metric = evaluate(samples[:number], ALL, out_csv=str(path))
        assert metric.confusion_matrices['video'].tolist() == [
            [4, 1, 1, 0], [1, 3, 0, 0], [0] * 4, [0] * 4
        ]  # fmt: skip
        glad = number - 6
        f1 = 8 / 11, 6 / (4 + glad), 0  # sad was predicted, wild was not
        expected = {
            'WAR': 100 * 7 / number,
            'UAR': 100 * (4 / 6 + recall_of_glad) / 2,
            'macro_F1': 100 * sum(f1) / 3,
            'weighted_F1': 100 * (6 * f1[0] + glad * f1[1]) / number,
            'recall/calm': 100 * 4 / 6,
            'recall/glad': 100 * recall_of_glad,
        }
        assert metrics == pytest.approx(dict(expected, **{'unreadable': 1} if glad == 5 else {}))
        assert all(type(value) is float for value in metrics.values())
    assert rows_of(path)[-1][:4] == ['x', 'video', 'glad', '']


def test_two_modalities_with_their_own_classes(tmp_path):
    classes = dict(video=('calm', 'glad'), image=('glad', 'sad', 'wild'))
    path = tmp_path / 'new' / 'predictions.csv'
    samples = [
        sample(0, 0, 'video', '=clip, one', 2),
        sample(1, 0, 'video', 'v2', 2),
        sample(2, 1, 'image', 'i1', 3),
    ]
    metrics, metric = evaluate(samples, classes, out_csv=str(path))
    assert metrics['video/WAR'] == metrics['video/UAR'] == 50
    assert metrics['image/WAR'] == metrics['image/recall/wild'] == 0
    assert metrics['video/recall/calm'] == 100
    assert 'image/recall/sad' not in metrics
    assert {k.split('/')[0] for k in metrics} == {'video', 'image'}
    assert metric.confusion_matrices['image'].shape == (3, 3)
    assert rows_of(path) == [
        ['sample_id', 'modality', 'label', 'prediction', *map('score_{}'.format, ALL)],
        ["'=clip, one", 'video', 'calm', 'calm', '0.900000', '0.100000', '', ''],
        ['v2', 'video', 'glad', 'calm', '0.900000', '0.100000', '', ''],
        ['i1', 'image', 'wild', 'sad', '', '0.100000', '0.800000', '0.100000'],
    ]


@pytest.mark.parametrize(
    'item, classes, error',
    [
        (sample(0, 0, num=4, sample_id='v7'), CLASSES, r"'v7' have .*\(4,\), .* 3 classes"),
        (sample(3, 0, sample_id='v8'), CLASSES, r"label of sample 'v8' is \[3\].*from 0 to 2"),
        (sample(0, 0, 'image', 'i1'), dict(video=CLASSES), "'i1' has the input_type 'image'"),
        (sample(0, 0, sample_id='v1'), (), 'needs class names'),
        (sample(0, 0, sample_id='v2').set_pred_score([nan, 0, 1]), CLASSES, "'v2' are not finite"),
    ],
)
def test_errors_name_the_sample(item, classes, error):
    with pytest.raises(ValueError, match=error):
        evaluate([item], classes)
