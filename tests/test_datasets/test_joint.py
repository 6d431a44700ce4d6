# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Joint data: one index, who reads what in which order over one or more processes, and seeds."""

import random
from collections import Counter
from itertools import chain, zip_longest

import numpy as np
import pytest
import torch
from helpers import write_text
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import s4d_mm  # noqa: F401
from s4d_mm.datasets import (
    DualModalBatchSampler,
    DualModalDataset,
    DualModalSampler,
    ExpressionImageDataset,
    SeedDraws,
    SeededIndex,
    SeededSampler,
)
from s4d_mm.datasets.joint import seed_generators
from s4d_mm.media import MediaReadError


class TinyExpressions(BaseDataset):
    """Samples with given labels and nothing to read."""

    METAINFO = dict(classes=('calm', 'glad'), origin='nowhere')

    def __init__(self, labels, **kwargs):
        self.labels = labels
        super().__init__(**{'serialize_data': False, **kwargs})

    def load_data_list(self):
        return [dict(label=label, name=f'{len(self)}/{i}') for i, label in enumerate(self.labels)]

    def __len__(self):
        return len(self.labels)


def tiny(*labels, **kwargs):
    return TinyExpressions(labels, **kwargs)


def dual(num_videos=23, num_images=41, image_labels=None):
    labels = image_labels or [i % 3 for i in range(num_images)]
    return DualModalDataset(video=tiny(*range(num_videos)), image=tiny(*labels))


@pytest.fixture
def processes(monkeypatch):
    """Samplers (and batch samplers) of all processes of a simulated run."""

    def build(world_size, dataset, batch=None, sampler=DualModalSampler, **kwargs):
        kwargs.setdefault('seed', 5)
        out = []
        for rank in range(world_size):
            info = (rank, world_size)
            monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda info=info: info)
            built = sampler(dataset, **kwargs)
            out.append(DualModalBatchSampler(built, **batch) if batch else built)
        return out

    return build


def kinds(dataset, indices):
    return [dataset.input_type_of(i) for i in indices]


# --------------------------------------------------------------------- dataset
def test_videos_come_first():
    images = tiny(0, 2, metainfo=dict(classes=['a', 'b', 'c'], other=1))
    dataset = DualModalDataset(video=tiny(1, 0, 1), image=images)
    assert len(dataset) == 5
    assert [dataset[i]['name'] for i in range(5)] == ['3/0', '3/1', '3/2', '2/0', '2/1']
    assert kinds(dataset, range(5)) == ['video'] * 3 + ['image'] * 2
    assert dataset.modality_range('video') == range(0, 3)
    assert dataset.modality_range('image') == range(3, 5)
    assert dataset.metainfo == dict(classes=dict(video=('calm', 'glad'), image=('a', 'b', 'c')))
    labels = dataset.get_gt_labels('image')
    assert labels.dtype == np.int64 and labels.tolist() == [0, 2]


def test_one_modality():
    dataset = DualModalDataset(video=tiny(1, 0), modalities=('video',))
    assert dataset.metainfo == dict(classes=dict(video=('calm', 'glad')))
    both = dict(video=tiny(0), image=tiny(1))
    for wrong in (dict(video=tiny(0)), dict(both, modalities=('video',)), dict(modalities=())):
        with pytest.raises(ValueError, match='modalities=.*keys.*ann_file'):
            DualModalDataset(**wrong)


# -------------------------------------------------------------------- samplers
@pytest.mark.parametrize('world_size', [1, 3])
def test_each_sample_once_per_epoch(processes, world_size):
    dataset = dual()
    samplers = processes(world_size, dataset)
    drawn = [list(s) for s in samplers]
    assert [len(d) for d in drawn] == [len(s) for s in samplers]
    count = Counter(chain(*drawn))
    assert set(count) == set(range(64)) and max(count.values()) <= 2
    # padding only: a multiple of the number of processes per modality
    for name, size in [('video', 23), ('image', 41)]:
        total = sum(count[i] for i in dataset.modality_range(name))
        assert total == -(-size // world_size) * world_size
    drawn = [list(s) for s in processes(5, dual(2, 1))]  # more processes than samples
    assert [len(d) for d in drawn] == [2] * 5 and set(chain(*drawn)) == {0, 1, 2}


@pytest.mark.parametrize('world_size', [1, 3])
@pytest.mark.parametrize('kwargs', [{}, dict(share=dict(image=0.5), balance=('image', 'video'))])
def test_same_modality_and_size_in_each_step(processes, world_size, kwargs):
    dataset, size = dual(), dict(video=3, image=5)
    runs = processes(world_size, dataset, batch=dict(batch_size=size), **kwargs)
    batches = [list(run) for run in runs]
    assert {len(b) for b in batches} == {len(run) for run in runs} == {len(batches[0])}
    for step in zip(*batches):
        (name,) = {k for batch in step for k in kinds(dataset, batch)}
        assert len({len(batch) for batch in step}) == 1 and len(step[0]) <= size[name]
    for run, own in zip(runs, batches):
        assert sorted(chain(*own)) == sorted(run.sampler)


def steps_of(dataset, runs, epoch, parts=1):
    """Modality, samples and their seeds of each optimizer step, of all processes together."""
    for run in runs:
        run.sampler.set_epoch(epoch)
    batches = [list(run) for run in runs]
    assert {len(b) for b in batches} == {len(run) for run in runs} == {len(batches[0])}
    steps = []
    for i in range(0, len(batches[0]), parts):
        of_step = [batch for own in batches for batch in own[i : i + parts]]
        (name,) = {kind for batch in of_step for kind in kinds(dataset, batch)}
        assert {len(batch) for batch in of_step} == {runs[0].batch_size[name]}
        steps.append((name, sorted((int(i), i.seed) for i in chain(*of_step))))
    return steps


@pytest.mark.parametrize('kwargs', [{}, dict(share=dict(image=0.5), balance=('image', 'video'))])
def test_total_batch_is_read_alike_by_any_number_of_processes(processes, kwargs):
    """The same samples with the same seeds in the same steps, in each epoch, whoever reads them."""
    # 23 and 41 samples (or 20): a rest of each modality is left out, and padding for 4
    # processes would make full batches of 24 and 44
    dataset = dual(23, 41)
    total = dict(total_batch_size=dict(video=8, image=4), drop_last=True)
    seen = set()
    for epoch in (0, 3):
        (alone,) = processes(1, dataset, total, **kwargs)
        expected = steps_of(dataset, [alone], epoch)
        images = 5 if 'share' in kwargs else 10
        assert Counter(name for name, _ in expected) == dict(video=2, image=images)
        assert all(len(s) == alone.total_batch_size[name] for name, s in expected)
        seeds = [seed for _, step in expected for _, seed in step]
        assert len(set(seeds)) == len(seeds) and seen.isdisjoint(seeds)  # also of one drawn twice
        seen.update(seeds)
        for world_size, parts in [(4, 1), (2, 2), (1, 4)]:
            batch = dict(total, accumulative_counts=parts)
            runs = processes(world_size, dataset, batch, **kwargs)
            assert steps_of(dataset, runs, epoch, parts) == expected
            assert runs[0].batch_size == dict(video=2, image=1)


def test_step_is_the_next_slice_of_the_order_of_the_epoch(processes):
    """Against torch's and numpy's own generators: nothing but seed and epoch decides."""
    dataset = dual(8, 6)
    (run,) = processes(1, dataset, dict(total_batch_size=4, drop_last=True), seed=11)
    run.sampler.set_epoch(2)
    generator = torch.Generator().manual_seed(13)
    videos = torch.randperm(8, generator=generator).tolist()
    images = (8 + torch.randperm(6, generator=generator)).tolist()
    steps, generator = [videos[:4], videos[4:], images[:4]], torch.Generator().manual_seed(13)
    assert list(run) == [steps[i] for i in torch.randperm(3, generator=generator)]
    seeds = {int(i): i.seed for batch in run for i in batch}
    for stream, order in enumerate((videos, images[:4])):
        own = np.random.PCG64((11, 2, stream)).random_raw(len(order)).tolist()
        assert [seeds[i] for i in order] == own


@pytest.mark.parametrize('world_size', [1, 3])
def test_share_draws_other_samples_in_each_epoch(processes, world_size):
    samplers = processes(world_size, dual(40, 100), share=dict(image=0.3))
    seen = []
    for epoch in range(12):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        drawn = list(chain(*samplers))
        images = [i for i in drawn if i >= 40]
        # no image twice, padding included
        assert len(images) == len(set(images)) == -(-30 // world_size) * world_size
        assert set(range(40)) <= set(drawn)
        seen.append(frozenset(images))
    assert len(set(seen)) == 12 and len(frozenset.union(*seen)) > 90


def test_balance_draws_classes_equally_often(processes):
    labels = [0] * 900 + [1] * 90 + [3] * 10  # no class 2
    (sampler,) = processes(1, dual(8, image_labels=labels), balance='image')
    before = torch.get_rng_state()
    drawn = list(sampler)
    assert torch.equal(before, torch.get_rng_state())  # it has a generator of its own
    images = [i for i in drawn if i >= 8]
    assert len(images) == 1000 and sorted(drawn[:8]) == list(range(8))
    count = np.bincount([labels[i - 8] for i in images], minlength=4)
    assert count[2] == 0 and (np.abs(count[[0, 1, 3]] - 1000 / 3) < 60).all(), count


@pytest.mark.parametrize('world_size', [1, 3])
@pytest.mark.parametrize('sampler', [DualModalSampler, DefaultSampler])
def test_order_is_kept_without_shuffling(processes, world_size, sampler):
    dataset = dual(11, 6)
    sizes = dict(batch_size=dict(video=4, image=5))
    collected = []
    for run in processes(world_size, dataset, sizes, sampler, shuffle=False):
        batches = list(run)
        assert len(batches) == len(run)
        assert all(len(set(kinds(dataset, b))) == 1 for b in batches)
        assert all(len(b) <= run.batch_size[dataset.input_type_of(b[0])] for b in batches)
        own = list(chain(*batches))
        assert len(own) == len(run.sampler) == -(-17 // world_size)
        collected.append(own)
    # as mmengine's collect_results puts them together
    together = [i for i in chain(*zip_longest(*collected)) if i is not None][:17]
    assert together == list(range(17))


def test_runner_builds_and_seeds_them():
    def build(**batch_sampler):
        batch_sampler = dict(type='DualModalBatchSampler', **batch_sampler)
        parts = dict(dataset=dual(), batch_sampler=batch_sampler, batch_size=5, num_workers=0)
        sampler = dict(type='DualModalSampler', share=dict(image=0.5))
        return Runner.build_dataloader(dict(parts, sampler=sampler), seed=3)

    init_default_scope('mmaction')
    loader = build()  # 23 videos and 20 images, by 5
    assert loader.batch_sampler.sampler.seed == 3 and len(loader) == 5 + 4
    loader = build(total_batch_size=dict(video=4, image=8), drop_last=True)
    assert loader.batch_sampler.batch_size == dict(video=4, image=8) and len(loader) == 5 + 2


@pytest.mark.parametrize(
    'kwargs, error',
    [
        (dict(share=dict(audio=1.0)), "share={'audio'.*modalities"),
        (dict(share=dict(image=1.5)), r'share=.*1.5.*at most 1'),
        (dict(balance='image', shuffle=False), 'shuffle=True'),
        (dict(batch=dict(batch_size=2.5)), 'batch_size of .* positive int.*2.5'),
        (dict(batch=dict(batch_size=dict(video=4))), 'batch_size of .*keys.*video'),
        (dict(batch=dict(total_batch_size=24, drop_last=True)), "23 samples of type 'video'.*24"),
        (
            dict(batch=dict(batch_size=8, drop_last=True, accumulative_counts=2)),
            'accumulative_counts=2 .* needs total_batch_size and drop_last=True',
        ),
        (dict(sampler=DefaultSampler, batch=dict(batch_size=4)), "dict.type='DualModalSampler'"),
        (
            dict(world_size=2, batch=dict(total_batch_size=dict(video=9, image=18))),
            'not a multiple of 2 processes .*can be one of 1, 3, 9',
        ),
    ],
)
def test_mistakes(processes, kwargs, error):
    with pytest.raises(ValueError, match=error):
        processes(**dict(dict(world_size=1, dataset=dual()), **kwargs))


# ----------------------------------------------------------------------- seeds
def draw(results):
    """Numbers of all three generators."""
    if results.get('sample_id') == 'broken.jpg':
        raise MediaReadError('broken')
    found = random.random(), np.random.rand(), float(torch.rand(()))
    return dict(index=int(results['sample_idx']), draws=found)


def drawing():
    return DualModalDataset(*(tiny(0, 0, 0, 0, 0, 0, pipeline=[draw]) for _ in range(2)))


def test_dataset_draws_under_the_seed_of_the_index():
    data = drawing()
    for index in (2, 8):  # a video, an image
        one = data[SeededIndex(index, 7)]
        seed_generators(1)
        assert data[SeededIndex(index, 7)] == one
        after = draw(dict(sample_idx=0))
        seed_generators(1)
        assert draw(dict(sample_idx=0)) == after  # the generators are as they were
        assert not set(one['draws']) & set(data[SeededIndex(index, 8)]['draws'])
        assert data[index] != data[index]


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_draw_the_same(workers):
    data = drawing()
    batches = DualModalBatchSampler(DualModalSampler(data, seed=1), batch_size=2)
    loader = DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=list)
    assert [s for batch in loader for s in batch] == [data[i] for batch in batches for i in batch]


def test_a_dataset_of_the_toolbox_needs_a_step():
    for steps, same in (([SeedDraws(), draw], True), ([draw], False)):
        data = tiny(0, 0, 0, pipeline=steps)
        sampler = SeededSampler(data, seed=1)
        assert ([data[i] for i in sampler] == [data[i] for i in sampler]) is same


def test_sample_that_takes_the_place_of_another(tmp_path):
    path = write_text(tmp_path / 'list.csv', 'broken.jpg,0', 'a.jpg,0', 'b.jpg,0', 'c.jpg,0')
    options = dict(metainfo=dict(classes=('x',)), max_fault_share=0.5)
    data = ExpressionImageDataset(path, pipeline=[draw], **options)
    one, two = data[SeededIndex(0, 5)], data[SeededIndex(0, 6)]
    assert one == data[SeededIndex(0, 5)]
    assert one['index'] == two['index'] != 0 and one['draws'] != two['draws']
