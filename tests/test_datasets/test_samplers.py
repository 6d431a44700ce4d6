# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Samplers: who reads what, in which order, over one or more processes."""

from collections import Counter
from itertools import chain, product, zip_longest
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import DATA_SAMPLERS, init_default_scope
from mmengine.runner import Runner

import s4d_mm  # noqa: F401
from s4d_mm.datasets import samplers as sampler_module
from s4d_mm.datasets.dual_modal_dataset import DualModalDataset
from s4d_mm.datasets.samplers import DualModalBatchSampler, DualModalSampler
from s4d_mm.engine.hooks.run_summary_hook import describe_epoch


class Tiny(BaseDataset):
    """Samples with given labels and nothing to read."""

    def __init__(self, labels, **kwargs):
        self.labels = labels
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(label=label) for label in self.labels]


def dual(num_videos=23, num_images=41, image_labels=None):
    labels = image_labels or [i % 3 for i in range(num_images)]
    return DualModalDataset(
        video=Tiny([i % 4 for i in range(num_videos)], serialize_data=False),
        image=Tiny(labels, serialize_data=False),
    )


@pytest.fixture
def processes(monkeypatch):
    """Samplers (and batch samplers) of all processes of a simulated run."""

    def build(world_size, dataset, batch=None, **kwargs):
        kwargs.setdefault('seed', 5)
        out = []
        for rank in range(world_size):
            info = (rank, world_size)
            monkeypatch.setattr(sampler_module, 'get_dist_info', lambda info=info: info)
            sampler = DualModalSampler(dataset, **kwargs)
            out.append(DualModalBatchSampler(sampler, **batch) if batch else sampler)
        return out

    return build


def kinds(dataset, indices):
    return [dataset.input_type_of(i) for i in indices]


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_each_sample_once_per_epoch(processes, world_size):
    dataset = dual()
    samplers = processes(world_size, dataset)
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        drawn = [list(s) for s in samplers]
        assert [len(d) for d in drawn] == [len(s) for s in samplers]
        count = Counter(chain(*drawn))
        assert set(count) == set(range(64))
        # padding only: a multiple of the number of processes per modality
        for name, size in [('video', 23), ('image', 41)]:
            total = sum(count[i] for i in dataset.modality_range(name))
            assert total == -(-size // world_size) * world_size
        assert max(count.values()) <= 2


def test_more_processes_than_samples(processes):
    drawn = [list(s) for s in processes(5, dual(2, 1))]
    assert [len(d) for d in drawn] == [2] * 5
    assert set(chain(*drawn)) == {0, 1, 2}


@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(share=dict(video=0.25)),
        dict(share=dict(image=0.5), balance=('image',)),
        dict(balance=('video', 'image')),
    ],
)
def test_same_modality_and_size_in_each_step(processes, world_size, drop_last, kwargs):
    dataset = dual()
    size = dict(video=3, image=5)
    if drop_last:
        size['video'] = 1
    runs = processes(
        world_size, dataset, batch=dict(batch_size=size, drop_last=drop_last), **kwargs
    )
    for epoch in (0, 7):
        for run in runs:
            run.sampler.set_epoch(epoch)
        batches = [list(run) for run in runs]
        assert [len(b) for b in batches] == [len(run) for run in runs]
        assert len({len(b) for b in batches}) == 1
        for step in zip(*batches):
            names = {k for batch in step for k in kinds(dataset, batch)}
            assert len(names) == 1
            assert len({len(batch) for batch in step}) == 1
            limit = size[names.pop()]
            assert len(step[0]) == limit or (not drop_last and len(step[0]) < limit)
        if not drop_last:
            for run, own in zip(runs, batches):
                assert sorted(chain(*own)) == sorted(run.sampler)


def steps_of(dataset, runs, epoch, parts=1):
    """Modality and samples of each optimizer step, of all processes together."""
    for run in runs:
        run.sampler.set_epoch(epoch)
    batches = [list(run) for run in runs]
    assert {len(b) for b in batches} == {len(run) for run in runs} == {len(batches[0])}
    steps = []
    for i in range(0, len(batches[0]), parts):
        of_step = [batch for own in batches for batch in own[i : i + parts]]
        (name,) = {kind for batch in of_step for kind in kinds(dataset, batch)}
        # equal shares, of which none is a copy of another
        assert {len(batch) for batch in of_step} == {runs[0].batch_size[name]}
        steps.append((name, sorted(chain(*of_step))))
    return steps


@pytest.mark.parametrize(
    'kwargs', [{}, dict(share=dict(image=0.5), balance=('image',)), dict(balance=('video',))]
)
def test_total_batch_is_read_alike_by_any_number_of_processes(processes, kwargs):
    """The same samples in the same steps, in each epoch, whoever reads them."""
    # 23 and 41 samples (or 20): a rest of each modality is left out, and padding for 4
    # processes would make full batches of 24 and 44
    dataset = dual(23, 41)
    total = dict(total_batch_size=dict(video=8, image=4), drop_last=True)
    for epoch in (0, 3):
        (alone,) = processes(1, dataset, total, **kwargs)
        expected = steps_of(dataset, [alone], epoch)
        images = 5 if 'share' in kwargs else 10
        assert Counter(name for name, _ in expected) == dict(video=2, image=images)
        assert all(len(s) == alone.total_batch_size[name] for name, s in expected)
        for world_size, parts in [(2, 1), (4, 1), (1, 2), (2, 2), (1, 4)]:
            batch = dict(total, accumulative_counts=parts)
            runs = processes(world_size, dataset, batch, **kwargs)
            assert steps_of(dataset, runs, epoch, parts) == expected
            assert runs[0].batch_size == dict(
                video=8 // world_size // parts, image=4 // world_size // parts
            )


def test_step_is_the_next_slice_of_the_order_of_the_epoch(processes):
    """Against torch's own generator: nothing but seed and epoch decides."""
    dataset = dual(8, 6)
    (run,) = processes(1, dataset, dict(total_batch_size=4, drop_last=True), seed=11)
    run.sampler.set_epoch(2)
    generator = torch.Generator().manual_seed(13)
    videos = torch.randperm(8, generator=generator).tolist()
    images = (8 + torch.randperm(6, generator=generator)).tolist()
    assert sorted(run) == sorted([videos[:4], videos[4:], images[:4]])


def test_total_batch_with_a_rest(processes):
    """The rest is a batch too: all samples once, and what makes it fit the processes."""
    dataset = dual(23, 41)
    for world_size in (1, 2, 4):
        runs = processes(world_size, dataset, dict(total_batch_size=dict(video=8, image=16)))
        batches = [list(run) for run in runs]
        assert [len(b) for b in batches] == [3 + 3] * world_size
        assert all(len({len(b) for b in step}) == 1 for step in zip(*batches))
        count = Counter(chain(*chain(*batches)))
        assert set(count) == set(range(64))
        assert sum(count.values()) == 64 + (-23 % world_size) + (-41 % world_size)


def test_total_batch_wins_over_that_of_the_data_loader():
    loader = Runner.build_dataloader(
        dict(
            dataset=dual(),
            batch_size=5,
            num_workers=0,
            sampler=dict(type='DualModalSampler'),
            batch_sampler=dict(type='DualModalBatchSampler', total_batch_size=8, drop_last=True),
        ),
        seed=3,
    )
    assert loader.batch_sampler.batch_size == dict(video=8, image=8)
    assert len(loader) == len(list(loader)) == 2 + 5


def test_wrong_total_batch_sizes(processes):
    total = dict(total_batch_size=dict(video=12, image=24), drop_last=True)
    for world_size, parts in [(5, 1), (1, 8), (4, 2), (24, 1)]:
        with pytest.raises(ValueError) as error:
            processes(world_size, dual(), dict(total, accumulative_counts=parts))
        assert f'{world_size} processes * accumulative_counts={parts}. ' in str(error.value)
        assert 'can be one of 1, 2, 3, 4, 6, 12.' in str(error.value)
    assert processes(12, dual(), total)[0].batch_size == dict(video=1, image=2)
    with pytest.raises(ValueError, match="23 samples of type 'video'.*total_batch.*=24"):
        processes(2, dual(), dict(total_batch_size=24, drop_last=True))
    for wrong in (dict(total_batch_size=8), dict(batch_size=8, drop_last=True)):
        with pytest.raises(ValueError, match='accumulative_counts=2 .* needs total_batch_size and'):
            processes(1, dual(), dict(wrong, accumulative_counts=2))
    with pytest.raises(ValueError, match='total_batch_size of DualModalBatchSampler must be a pos'):
        processes(1, dual(), dict(total_batch_size=dict(video=4)))
    still = DefaultSampler(dual(), shuffle=False, seed=0)
    with pytest.raises(ValueError, match='total_batch_size .* is for training'):
        DualModalBatchSampler(still, total_batch_size=4)


def test_processes_do_not_share_samples(processes):
    drawn = [set(s) for s in processes(2, dual(24, 42))]
    assert not drawn[0] & drawn[1]


def test_epochs_and_seeds_differ_and_repeat(processes):
    dataset, batch = dual(), dict(batch_size=4)
    (first,) = processes(1, dataset, batch)
    epochs = []
    for epoch in (0, 1, 0):
        first.sampler.set_epoch(epoch)
        epochs.append(list(first))
    assert epochs[0] == epochs[2] != epochs[1]
    (other,) = processes(1, dataset, batch, seed=6)
    assert list(other) != epochs[0]
    # modalities are mixed, not one after the other
    order = [dataset.input_type_of(b[0]) for b in epochs[0]]
    assert order != sorted(order) and order != sorted(order, reverse=True)


def test_order_of_batches_is_new_in_each_epoch(processes):
    """The modality of each step depends on seed and epoch, and on nothing else."""
    dataset = dual(40, 40)

    def orders(seed):
        runs = processes(2, dataset, batch=dict(batch_size=2), seed=seed)
        found = []
        for epoch in range(4):
            for run in runs:
                run.sampler.set_epoch(epoch)
            first, second = (tuple(dataset.input_type_of(b[0]) for b in run) for run in runs)
            assert first == second
            found.append(first)
        return found

    by_epoch = orders(5)
    assert len(set(by_epoch)) == 4
    assert orders(5) == by_epoch
    assert set(orders(50)).isdisjoint(by_epoch)


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_share_draws_other_samples_in_each_epoch(processes, world_size):
    dataset = dual(40, 100)
    samplers = processes(world_size, dataset, share=dict(image=0.3))
    seen = []
    for epoch in range(12):
        drawn = Counter()
        for sampler in samplers:
            sampler.set_epoch(epoch)
            drawn.update(sampler)
        images = [i for i in drawn if i >= 40]
        # no image twice, padding included
        assert len(images) == -(-30 // world_size) * world_size
        assert all(drawn[i] == 1 for i in images)
        assert set(range(40)) <= set(drawn)
        seen.append(frozenset(images))
    assert len(set(seen)) == 12
    assert len(frozenset.union(*seen)) > 90


def test_share_is_exact(processes):
    # 0.07 * 100 is a little more than 7 in floating point
    (sampler,) = processes(1, dual(100, 7), share=dict(video=0.07, image=0.01))
    assert sampler.num_samples_of == dict(video=7, image=1)
    assert len(sampler) == len(list(sampler)) == 8


def test_balance_draws_classes_equally_often(processes):
    labels = [0] * 900 + [1] * 90 + [3] * 10  # no class 2
    dataset = dual(8, image_labels=labels)
    (sampler,) = processes(1, dataset, balance='image')
    drawn = sampler.draw()
    assert len(drawn['image']) == 1000
    assert sorted(drawn['video']) == list(range(8))
    count = np.bincount([labels[i - 8] for i in drawn['image']], minlength=4)
    assert count[2] == 0
    assert (np.abs(count[[0, 1, 3]] - 1000 / 3) < 60).all(), count


@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize('sampler_type', [DualModalSampler, DefaultSampler])
def test_order_is_kept_without_shuffling(monkeypatch, world_size, sampler_type):
    dataset = dual(11, 6)
    collected = []
    for rank in range(world_size):
        for module in ('s4d_mm.datasets.samplers', 'mmengine.dataset.sampler'):
            info = (rank, world_size)
            monkeypatch.setattr(f'{module}.get_dist_info', lambda info=info: info)
        sampler = sampler_type(dataset, shuffle=False, seed=1)
        run = DualModalBatchSampler(sampler, dict(video=4, image=5))
        batches = list(run)
        assert len(batches) == len(run)
        assert all(len(set(kinds(dataset, b))) == 1 for b in batches)
        assert all(len(b) <= run.batch_size[dataset.input_type_of(b[0])] for b in batches)
        own = list(chain(*batches))
        assert len(own) == len(sampler) == -(-17 // world_size)
        collected.append(own)
    # as mmengine's collect_results puts them together
    together = [i for i in chain(*zip_longest(*collected)) if i is not None][:17]
    assert together == list(range(17))


@pytest.mark.parametrize('world_size', [2, 3, 5])
def test_all_processes_have_as_many_batches_in_testing(monkeypatch, world_size):
    """A model in shards waits for the others; 9 videos are 5 and 4 for two processes."""
    for num_videos, num_images in product(range(1, 14), range(1, 8)):
        dataset, counts = dual(num_videos, num_images), set()
        for rank in range(world_size):
            info = (rank, world_size)
            monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda info=info: info)
            sampler = DefaultSampler(dataset, shuffle=False, seed=1)
            batches = list(DualModalBatchSampler(sampler, dict(video=4, image=2)))
            assert all(len(set(kinds(dataset, b))) == 1 for b in batches)
            counts.add(len(batches))
        assert len(counts) == 1


def test_seed_is_agreed_on_when_there_is_none(monkeypatch):
    monkeypatch.setattr(sampler_module, 'sync_random_seed', lambda: 123)
    assert DualModalSampler(dual()).seed == 123


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
def test_runner_builds_and_seeds_them(scope):
    init_default_scope(scope)
    assert DATA_SAMPLERS.get('DualModalSampler') is DualModalSampler
    loader = Runner.build_dataloader(
        dict(
            dataset=dual(),
            batch_size=16,
            num_workers=0,
            sampler=dict(type='DualModalSampler', share=dict(video=1.0, image=0.5)),
            batch_sampler=dict(type='DualModalBatchSampler', batch_size=dict(video=4, image=8)),
        ),
        seed=3,
    )
    assert loader.batch_sampler.sampler.seed == 3
    assert len(loader) == 6 + 3  # 23 videos by 4, 20 images by 8

    def epoch(number):
        runner = type('R', (), dict(epoch=number))()
        runner.train_loop = type('L', (), dict(dataloader=loader))()
        DistSamplerSeedHook().before_train_epoch(runner)
        return [batch['sample_idx'] for batch in loader]

    assert len(epoch(0)) == 9
    assert epoch(0) == epoch(0) != epoch(1)


def test_size_of_the_data_loader_is_taken():
    loader = Runner.build_dataloader(
        dict(
            dataset=dual(),
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_sampler=dict(type='DualModalBatchSampler'),
        ),
        seed=3,
    )
    assert loader.batch_sampler.batch_size == dict(video=4, image=4)
    assert len(loader) == len(list(loader)) == 6 + 11


@pytest.mark.parametrize(
    'kwargs, error',
    [
        (dict(share=dict(audio=1.0)), "share of .* names 'audio'"),
        (dict(balance=('img',)), "balance of .* names 'img'"),
        (dict(share=dict(image=0)), r"share\['image'\] .* above 0"),
        (dict(share=dict(image=1.5)), r"share\['image'\] .* is 1.5"),
        (dict(share=dict(image=0.5), shuffle=False), 'share=.*shuffle=True'),
        (dict(balance='image', shuffle=False), 'balance=.*shuffle=True'),
    ],
)
def test_wrong_sampler_arguments(kwargs, error):
    with pytest.raises(ValueError, match=error):
        DualModalSampler(dual(), seed=0, **kwargs)


@pytest.mark.parametrize(
    'size', [0, 2.5, dict(video=4), dict(video=4, image=-1), dict(video=4, image=8, audio=2)]
)
def test_wrong_batch_size(size):
    sampler = DualModalSampler(dual(), seed=0)
    with pytest.raises(ValueError, match='batch_size of DualModalBatchSam'):
        DualModalBatchSampler(sampler, size)


def test_wrong_combinations():
    dataset = dual()
    with pytest.raises(ValueError, match="dict\\(type='DualModalSampler'\\)"):
        DualModalBatchSampler(DefaultSampler(dataset, seed=0), 4)
    still = DefaultSampler(dataset, shuffle=False, seed=0)
    with pytest.raises(ValueError, match='drop_last=True .* of a test'):
        DualModalBatchSampler(still, 4, drop_last=True)
    with pytest.raises(ValueError, match="23 samples of type 'video'.*=24"):
        DualModalBatchSampler(DualModalSampler(dataset, seed=0), 24, drop_last=True)
    with pytest.raises(TypeError, match='needs a DualModalDataset.*Tiny'):
        DualModalSampler(Tiny([1, 2]))
    with pytest.raises(TypeError, match='needs a DualModalDataset.*Tiny'):
        DualModalBatchSampler(DefaultSampler(Tiny([1, 2]), seed=0), 4)


def test_draw_does_not_touch_the_global_generator():
    sampler = DualModalSampler(dual(), seed=0, balance='image')
    before = torch.get_rng_state()
    list(DualModalBatchSampler(sampler, 4))
    assert torch.equal(before, torch.get_rng_state())


def test_steps_of_an_epoch_by_modality():
    """As the run summary says them: a fold of DFEW with all of AffectNet, and with the part."""
    for images, expected in ((283_901, 2_217), (104_271, 814)):
        sampler = DualModalSampler(dual(9_356, images), seed=0, share=dict(image=0.5))
        batches = DualModalBatchSampler(
            sampler, total_batch_size=dict(video=32, image=64), drop_last=True
        )
        assert batches.steps == dict(video=292, image=expected) and len(batches) == 292 + expected
        loader = SimpleNamespace(batch_sampler=batches)
        steps = f'{292 + expected} steps: 292 of videos, {expected} of images'
        assert describe_epoch(loader) == steps
