# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A sample's augmentation is a function of the seed of its draw."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from helpers import write_image, write_text
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from s4d_mm.datasets import (
    DualModalBatchSampler,
    DualModalDataset,
    DualModalSampler,
    ExpressionImageDataset,
    SeedDraws,
    SeededIndex,
    SeededSampler,
)
from s4d_mm.media import MediaReadError


def draw(results):
    """Numbers of all three generators."""
    if results.get('sample_id') == 'broken.jpg':
        raise MediaReadError('broken')
    found = random.random(), np.random.rand(), float(torch.rand(()))
    return dict(index=int(results['sample_idx']), draws=found)


class Plain(BaseDataset):
    """A dataset that knows nothing of seeds."""

    def load_data_list(self):
        return [dict() for _ in range(6)]


def dual(*steps):
    return DualModalDataset(video=Plain(pipeline=[*steps, draw]), image=Plain(pipeline=[draw]))


def test_index_keeps_its_seed():
    index = SeededIndex(3, 2**64 - 1)
    for same in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert (same, same.seed) == (3, 2**64 - 1)
    assert [10, 11, 12, 13][index] == 13


def test_dataset_draws_under_the_seed_of_the_index():
    data = dual()
    for index in (2, 8):  # a video, an image
        one = data[SeededIndex(index, 7)]
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        assert data[SeededIndex(index, 7)] == one
        after = draw(dict(sample_idx=0))
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        assert draw(dict(sample_idx=0)) == after  # the generators are as they were
        for a, b in zip(one['draws'], data[SeededIndex(index, 8)]['draws']):
            assert a != b
        assert data[index] != data[index]


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_draw_the_same(workers):
    data = dual()
    sampler = DualModalSampler(data, seed=1, balance=())
    batches = DualModalBatchSampler(sampler, batch_size=2)
    loader = DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=list)
    assert [s for batch in loader for s in batch] == [data[i] for batch in batches for i in batch]


def test_a_dataset_of_the_toolbox_needs_a_step():
    data = Plain(pipeline=[SeedDraws(), draw])
    sampler = SeededSampler(data, seed=1)
    assert [data[i] for i in sampler] == [data[i] for i in sampler]
    unseeded = Plain(pipeline=[draw])
    assert [unseeded[i] for i in sampler] != [unseeded[i] for i in sampler]
    still = SeededSampler(data, shuffle=False)
    assert list(still) == [0, 1, 2, 3, 4, 5]
    assert not any(isinstance(i, SeededIndex) for i in still)


def test_sample_that_takes_the_place_of_another(tmp_path):
    for name in 'abc':
        write_image(str(tmp_path / f'{name}.jpg'))
    write_text(str(tmp_path / 'list.csv'), 'broken.jpg,0', 'a.jpg,0', 'b.jpg,0', 'c.jpg,0')
    data = ExpressionImageDataset(
        ann_file='list.csv',
        data_root=str(tmp_path),
        metainfo=dict(classes=('x',)),
        pipeline=[draw],
        max_fault_share=0.5,
    )
    one, two = data[SeededIndex(0, 5)], data[SeededIndex(0, 6)]
    assert one == data[SeededIndex(0, 5)]
    assert one['index'] == two['index'] != 0 and one['draws'] != two['draws']


@pytest.mark.parametrize('world_size', [1, 2, 4])
def test_seeds_are_those_of_the_draws_of_all_processes(monkeypatch, world_size):
    """In each step the same samples with the same seeds; a sample drawn twice has two."""
    data = dual()
    steps = []
    for rank in range(world_size):
        info = (rank, world_size)
        monkeypatch.setattr('s4d_mm.datasets.samplers.get_dist_info', lambda info=info: info)
        sampler = DualModalSampler(data, seed=3)
        sampler.set_epoch(1)
        batches = DualModalBatchSampler(sampler, total_batch_size=4, drop_last=True)
        steps.append([[(int(i), i.seed) for i in batch] for batch in batches])
    found = [sorted(s for part in parts for s in part) for parts in zip(*steps)]
    monkeypatch.setattr('s4d_mm.datasets.samplers.get_dist_info', lambda: (0, 1))
    sampler = DualModalSampler(data, seed=3)
    sampler.set_epoch(1)
    alone = DualModalBatchSampler(sampler, total_batch_size=4, drop_last=True)
    assert found == [sorted((int(i), i.seed) for i in batch) for batch in alone]
    seeds = [i.seed for order in sampler.draw().values() for i in order]
    assert len(set(seeds)) == len(seeds)
    sampler.set_epoch(2)
    assert set(seeds).isdisjoint(i.seed for order in sampler.draw().values() for i in order)
