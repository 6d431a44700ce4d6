# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Runs repeat bit by bit, and a run that was killed ends like one that was not."""

import functools
import os
import os.path as osp
import random
import signal

import numpy as np
import pytest
import torch
from killed_runs import (
    KillHook,
    differences,
    final_state,
    in_fork,
    resumed,
    run,
    small_config,
    train,
)
from mmengine.config import Config
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from processes import run_ranks
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from s4d_mm.datasets import SeedDraws, SeededSampler
from s4d_mm.engine import ResumableEpochBasedTrainLoop
from s4d_mm.engine.launch import build_runner
from s4d_mm.engine.loops import read_from, seed_step

KILLED = -signal.SIGKILL
MID_EPOCH = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=2)

ACCUMULATED = dict(MID_EPOCH, optim_wrapper__accumulative_counts=2)


@pytest.fixture(scope='module')
def whole(quickstart, tmp_path_factory):
    """The state that a training ends with which nobody kills, without workers."""
    known = {}

    def get(stage, name='', change=None, **options):
        if (stage, name) not in known:
            work_dir = tmp_path_factory.mktemp(f'whole_{stage}{name}')
            cfg = small_config(stage, work_dir, **options)
            if change:
                change(cfg)
            assert train(cfg) == 0
            known[stage, name] = final_state(work_dir)
        return known[stage, name]

    return get


def assert_same(found, expected):
    assert not differences(expected, found)


# ------------------------------------------------------------------ repetition
@pytest.mark.parametrize('stage, numbers', [('pretrain', [4]), ('finetune', [2, 4])])
def test_workers_change_nothing(whole, tmp_path, stage, numbers):
    assert len(set(whole(stage)['scalars']['train/loss'])) > 5  # it trains
    for workers in numbers:
        cfg = small_config(stage, tmp_path / str(workers), workers=workers)
        assert train(cfg) == 0
        assert_same(final_state(cfg.work_dir), whole(stage))


def read_log(work_dir):
    paths = sorted(p.name for p in os.scandir(work_dir) if p.is_dir() and p.name[0] == '2')
    return '\n'.join(
        open(osp.join(work_dir, p, f'{p}.log'), encoding='utf-8').read() for p in paths
    )


class Pixels(Hook):
    """Keep what a step was given, and its loss."""

    def __init__(self):
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        names = [s.sample_id for s in data_batch['data_samples']]
        sums = [int(x.long().sum()) for x in data_batch['inputs']]
        self.steps.append((sorted(zip(names, sums)), outputs['loss_cls'].item()))


def test_processes_change_neither_samples_nor_pixels(quickstart, tmp_path):
    """At one total batch; the losses are equal without noise and blending."""

    def steps(world_size):
        def train_one():
            cfg = small_config(
                'finetune',
                tmp_path / f'run{world_size}',
                launcher='pytorch',
                train_cfg__max_epochs=1,
                train_dataloader__batch_sampler__total_batch_size=dict(video=4, image=8),
                model__neck__noisy=False,
                model__neck__loss_weight=0.0,
                val_cfg=None,
                val_dataloader=None,
                val_evaluator=None,
                default_hooks__checkpoint=dict(type='SafeCheckpointHook', interval=-1),
            )
            cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05))
            runner = build_runner(cfg)
            hook = Pixels()
            runner.register_hook(hook)
            runner.train()
            return hook.steps

        folder = tmp_path / str(world_size)
        folder.mkdir()
        return run_ranks(train_one, folder, world_size)

    ((alone,), two, four) = map(steps, (1, 2, 4))
    assert len(alone) == 5
    for ranks in (two, four):
        for step, parts in zip(alone, zip(*ranks)):
            samples = sorted(tuple(s) for part in parts for s in part[0])
            assert samples == [tuple(s) for s in step[0]]
            mean = sum(part[1] for part in parts) / len(parts)
            assert mean == pytest.approx(step[1], abs=2e-5)


# ------------------------------------------------------------------ resumption
@pytest.fixture(autouse=True)
def rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # mmengine reads it, also without GPUs


@pytest.mark.parametrize(
    'stage, workers, kill, options',
    [
        # in the middle of an epoch, of which no step was saved
        ('pretrain', 0, ('after_train_iter', 7), {}),
        ('finetune', 2, ('after_train_iter', 8), {}),
        # in the middle of an epoch, of which a part was saved
        ('pretrain', 2, ('after_train_iter', 7), MID_EPOCH),
        ('finetune', 0, ('after_train_iter', 3), MID_EPOCH),
        # after an optimizer step of two batches; the log of the experts is the same too
        ('finetune', 0, ('after_train_iter', 7), ACCUMULATED),
        # in the validation of the first epoch and of the last
        ('finetune', 0, ('after_val_iter', 1), {}),
        ('finetune', 2, ('after_val_iter', 4), MID_EPOCH),
    ],
)
def test_killed_run_ends_like_a_whole_one(whole, tmp_path, stage, workers, kill, options):
    expected = whole(stage, f'{options}', **options)
    cfg = small_config(stage, tmp_path, workers=workers, **options)
    assert train(cfg, kill) == KILLED
    assert train(resumed(cfg)) == 0
    assert_same(final_state(tmp_path), expected)


def test_killed_processes_end_like_whole_ones(quickstart, tmp_path):
    cfg = small_config('finetune', tmp_path / 'killed', launcher='pytorch', **MID_EPOCH)
    for name in ('ranks', 'again', 'whole'):
        (tmp_path / name).mkdir()
    with pytest.raises(ProcessExitedException, match='SIGKILL'):
        run_ranks(lambda: run(cfg, ('after_train_iter', 4)), tmp_path / 'ranks')
    run_ranks(lambda: run(resumed(cfg)), tmp_path / 'again')
    whole = Config(cfg.to_dict())
    whole.work_dir = str(tmp_path / 'whole' / 'run')
    run_ranks(lambda: run(whole), tmp_path / 'whole')
    assert_same(final_state(cfg.work_dir), final_state(whole.work_dir))


# ------------------------------------------------------------------ other trainings, of a toy
class Toy(BaseDataset):
    """Vectors, which the pipeline changes at random."""

    def load_data_list(self):
        return [dict(x=np.full(4, i / 20, np.float32), label=i % 3) for i in range(20)]


def jitter(results):
    results['x'] = results['x'] + np.random.rand(4).astype(np.float32)
    return results


class Net(BaseModel):
    """With all that has a state: weights, running means, draws of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x, label, mode='tensor', **kwargs):
        scores = self.layers(torch.stack(list(x)))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(scores, torch.tensor(label)))
        return scores.tolist()


class Scores(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        known = MessageHub.get_current_instance().log_scalars.get('val/done')
        return dict(total=float(np.sum(results)), done=1 + (known.current() if known else 0))


BY_ITER = dict(by_epoch=False, interval=2)
TOYS = dict(
    # each epoch is the best one: its checkpoint is saved again after the validation
    epochs=dict(best='done', rule='greater'),
    # 20 samples in batches of 4: a step of 2 batches goes over the end of an epoch
    accumulation=dict(counts=5),
    accumulation_mid_epoch=dict(counts=2, checkpoint=BY_ITER),
    ema=dict(checkpoint=BY_ITER, custom_hooks=[dict(type='EMAHook', momentum=0.1)]),
    schedules_by_epoch=dict(checkpoint=dict(by_epoch=False, interval=5)),
)


def toy_run(
    work_dir,
    kill=None,
    counts=1,
    checkpoint=None,
    pipeline=(dict(type=SeedDraws), jitter),
    batch_size=4,
    seed=None,
    best='total',
    rule='less',
    **kwargs,
):
    """Three epochs, 15 iterations."""
    torch.set_num_threads(1)
    data = dict(batch_size=batch_size, num_workers=0, collate_fn=dict(type='default_collate'))
    runner = Runner(
        model=Net(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Toy(pipeline=list(pipeline)), sampler=dict(type=SeededSampler), **data
        ),
        train_cfg=dict(type=ResumableEpochBasedTrainLoop, max_epochs=3),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9), accumulative_counts=counts
        ),
        param_scheduler=[
            dict(type='StepLR', step_size=1, gamma=0.5),
            dict(type='ExponentialLR', gamma=0.95, by_epoch=False),
        ],
        val_dataloader=dict(
            dataset=Toy(test_mode=True), sampler=dict(type=DefaultSampler, shuffle=False), **data
        ),
        val_cfg=dict(),
        val_evaluator=dict(type=Scores),
        default_hooks=dict(
            checkpoint=dict(
                type='SafeCheckpointHook',
                save_best=best,
                rule=rule,
                **(checkpoint or dict(interval=1)),
            )
        ),
        randomness=dict(seed=seed, diff_rank_seed=True),
        default_scope='mmengine',
        **kwargs,
    )
    if kill:
        runner.register_hook(KillHook(*kill))
    runner.train()


def start_toy(name, work_dir, **kwargs):
    np.random.seed(kwargs.get('resume', 0))  # the seed of a resumed run comes from the checkpoint
    return in_fork(lambda: toy_run(work_dir, **TOYS[name], **kwargs))


@pytest.fixture(scope='module')
def whole_toys(tmp_path_factory):
    """The state with which a toy ends that nobody kills."""

    @functools.cache
    def get(name):
        work_dir = tmp_path_factory.mktemp(name)
        assert start_toy(name, work_dir) == 0
        return final_state(work_dir)

    return get


@pytest.mark.parametrize(
    'name, kill',
    [
        *((name, ('after_train_iter', 8)) for name in TOYS),
        ('epochs', ('after_val_iter', 7)),
        ('epochs', ('after_val_iter', 12)),
        ('accumulation', ('after_val_iter', 7)),
        ('schedules_by_epoch', ('after_val_iter', 7)),
    ],
)
def test_killed_toy(whole_toys, tmp_path, name, kill):
    assert start_toy(name, tmp_path, kill=kill) == KILLED
    assert start_toy(name, tmp_path, resume=True) == 0
    assert_same(final_state(tmp_path), whole_toys(name))


def test_nothing_is_read_twice_to_skip_it(tmp_path):
    reads = []
    data = Toy(pipeline=[lambda results: reads.append(int(results['sample_idx'])) or results])
    sampler = SeededSampler(data, seed=3)
    loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=list)
    order = list(sampler)
    assert [[s['sample_idx'] for s in batch] for batch in read_from(loader, 3)] == [
        order[12:16],
        order[16:],
    ]
    assert reads == order[12:]
    assert [i.seed for i in sampler] == [i.seed for i in order]  # of an index, in an epoch
    sampler.set_epoch(1)
    assert {i.seed for i in sampler}.isdisjoint(i.seed for i in order)


def test_a_run_without_a_seed_says_which_one_repeats_it(tmp_path):
    for number, name in enumerate(('first', 'second')):
        np.random.seed(number)  # of the process from which mmengine draws the seed
        assert in_fork(lambda name=name: toy_run(tmp_path / name)) == 0
    seed = int(read_log(tmp_path / 'first').split('Random seed ')[1].split(':')[0])
    assert in_fork(lambda: toy_run(tmp_path / 'again', seed=seed)) == 0
    first, second, again = (final_state(tmp_path / n) for n in ('first', 'second', 'again'))
    assert_same(again, first)
    assert first['meta']['seed'] == seed != second['meta']['seed']
    assert differences(first['state_dict'], second['state_dict'])


def test_another_seed_and_another_batch_size_are_said(tmp_path):
    assert in_fork(lambda: toy_run(tmp_path, ('after_train_iter', 8), checkpoint=BY_ITER, seed=4))
    options = dict(checkpoint=BY_ITER, seed=5, resume=True, batch_size=5)
    assert in_fork(lambda: toy_run(tmp_path, **options)) == 0
    log = read_log(tmp_path)
    assert 'The seed 5 that was asked for is not used: the run that is resumed began with 4' in log
    assert 'An epoch had 5 batches when the checkpoint was saved and has 4 now' in log
    assert 'Epoch 2, of which 3 batches were done, starts anew.' in log
    meta = final_state(tmp_path)['meta']
    assert (meta['iter'], meta['seed']) == (16, 4)  # 8 were done before, of 20 in 3 epochs


def test_loop_gives_each_step_its_seed():
    """A function of run seed, iteration and rank, for all three generators."""

    def draws(*key):
        seed_step(*key)
        return random.random(), np.random.rand(), float(torch.rand(()))

    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]
    first = [draws(*key) for key in keys]
    assert first == [draws(*key) for key in keys]
    for generator in zip(*first):
        assert len(set(generator)) == len(keys)
