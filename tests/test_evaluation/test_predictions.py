# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Figures of saved predictions."""

import torch

from s4d_mm.evaluation.predictions import figures_by_modality


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
