# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Runs repeat bit by bit, and a run that was killed ends like one that was not."""

import functools
import random
import signal
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from runs import (
    FINETUNE,
    PRETRAIN,
    KillHook,
    Training,
    differences,
    final_state,
    resumed,
    run,
    run_ranks,
    short_config,
)
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from s4d_mm.datasets import SeedDraws, SeededSampler
from s4d_mm.engine import ResumableEpochBasedTrainLoop
from s4d_mm.engine.loop import read_from, seed_step

KILLED = -signal.SIGKILL
MID_EPOCH = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=2)
ACCUMULATED = dict(MID_EPOCH, optim_wrapper__accumulative_counts=2)


def config_of(path, work_dir, workers=0, **options):
    """Two epochs of five or six steps."""
    if path == FINETUNE:
        options['default_hooks__checkpoint__save_best'] = 'video/WAR'
        options['default_hooks__checkpoint__rule'] = 'greater'
    return short_config(
        path,
        work_dir,
        train_cfg__max_epochs=2,
        train_dataloader__num_workers=workers,
        train_dataloader__persistent_workers=workers > 0,
        train_dataloader__batch_sampler__batch_size=dict(video=5, image=7),
        default_hooks__logger__interval=1,
        default_hooks__checkpoint__max_keep_ckpts=-1,
        visualizer=None,
        **options,
    )


def train(cfg, folder, kill=None):
    return Training(lambda: run(cfg, kill), folder).end()


@pytest.fixture(scope='module')
def whole(quickstart, tmp_path_factory):
    """The state that a training ends with which nobody kills, without workers."""
    known = {}

    def get(path, **options):
        key = path, str(options)
        if key not in known:
            folder = tmp_path_factory.mktemp('whole')
            cfg = config_of(path, folder / 'run', **options)
            assert train(cfg, folder) == 0
            known[key] = final_state(cfg.work_dir)
        return known[key]

    return get


def assert_same(found, expected):
    assert not differences(expected, found)


def test_workers_change_nothing(whole, tmp_path):
    expected = whole(FINETUNE)
    assert len(set(expected['scalars']['train/loss'])) > 5  # it trains
    cfg = config_of(FINETUNE, tmp_path / 'run', workers=3)
    assert train(cfg, tmp_path) == 0
    assert_same(final_state(cfg.work_dir), expected)


@pytest.mark.parametrize(
    'path, workers, kill, options',
    [
        # in the middle of an epoch, of which no step, or a part was saved
        (FINETUNE, 2, ('after_train_iter', 8), {}),
        (PRETRAIN, 2, ('after_train_iter', 7), MID_EPOCH),
        # after an optimizer step of two batches; the log of the experts is the same too
        (FINETUNE, 0, ('after_train_iter', 7), ACCUMULATED),
        # in a validation
        (FINETUNE, 0, ('after_val_iter', 4), {}),
    ],
)
def test_killed_run_ends_like_a_whole_one(whole, tmp_path, path, workers, kill, options):
    cfg = config_of(path, tmp_path / 'run', workers, **options)
    assert train(cfg, tmp_path, kill) == KILLED
    assert train(resumed(cfg), tmp_path) == 0
    assert_same(final_state(cfg.work_dir), whole(path, **options))


def test_killed_processes_end_like_whole_ones(quickstart, tmp_path):
    cfg = config_of(FINETUNE, tmp_path / 'killed', launcher='pytorch', **MID_EPOCH)
    with pytest.raises(ProcessExitedException, match='SIGKILL'):
        run_ranks(lambda: run(cfg, ('after_train_iter', 4)), tmp_path / 'ranks')
    run_ranks(lambda: run(resumed(cfg)), tmp_path / 'again')
    whole = Config(cfg.to_dict())
    whole.work_dir = str(tmp_path / 'whole')
    run_ranks(lambda: run(whole), tmp_path / 'others')
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


class Steps(Hook):
    """Say which step is done, slowly."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        print(f'step {runner.iter + 1}', flush=True)
        time.sleep(0.05)


BY_ITER = dict(by_epoch=False, interval=2)
TOYS = dict(
    # each epoch is the best one: its checkpoint is saved again after the validation
    epochs=dict(best='done', rule='greater'),
    accumulation=dict(counts=5),
    ema=dict(checkpoint=BY_ITER, custom_hooks=[dict(type='EMAHook', momentum=0.1)]),
    schedules_by_epoch=dict(checkpoint=dict(by_epoch=False, interval=5)),
)


def toy_run(
    work_dir,
    kill=None,
    counts=1,
    checkpoint=None,
    batch_size=4,
    best='total',
    rule='less',
    **kwargs,
):
    """Three epochs, 15 iterations."""
    data = dict(batch_size=batch_size, num_workers=0, collate_fn=dict(type='default_collate'))
    checkpoint = dict(
        type='SafeCheckpointHook', save_best=best, rule=rule, **(checkpoint or dict(interval=1))
    )
    runner = Runner(
        model=Net(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Toy(pipeline=[dict(type=SeedDraws), jitter]),
            sampler=dict(type=SeededSampler),
            **data,
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
        default_hooks=dict(checkpoint=checkpoint),
        randomness=dict(seed=kwargs.pop('seed', None), diff_rank_seed=True),
        default_scope='mmengine',
        **kwargs,
    )
    runner.register_hook(Steps() if kill == 'slow' else KillHook(*(kill or ('after_run', 9))))
    runner.train()


def start_toy(folder, seed_of_process=0, **kwargs):
    np.random.seed(seed_of_process)  # mmengine draws the seed of the run from it
    return Training(lambda: toy_run(folder / 'run', **kwargs), folder)


@pytest.fixture(scope='module')
def whole_toys(tmp_path_factory):
    """The state with which a toy ends that nobody kills."""

    @functools.cache
    def get(name):
        folder = tmp_path_factory.mktemp(name)
        assert start_toy(folder, **TOYS[name]).end() == 0
        return final_state(folder / 'run')

    return get


@pytest.mark.parametrize(
    'name, kill',
    [
        *((name, ('after_train_iter', 8)) for name in TOYS),
        ('epochs', ('after_val_iter', 7)),
        ('epochs', ('after_val_iter', 12)),  # of the last epoch
        ('schedules_by_epoch', ('after_val_iter', 7)),
    ],
)
def test_killed_toy(whole_toys, tmp_path, name, kill):
    assert start_toy(tmp_path, kill=kill, **TOYS[name]).end() == KILLED
    # the seed of a resumed run comes from the checkpoint
    assert start_toy(tmp_path, 1, resume=True, **TOYS[name]).end() == 0
    assert_same(final_state(tmp_path / 'run'), whole_toys(name))


@pytest.mark.parametrize('draw', range(2))
def test_killed_at_a_random_moment(whole_toys, tmp_path, draw):
    run = start_toy(tmp_path, kill='slow', **TOYS['ema'])
    run.wait_for('step 3', 'output')
    time.sleep(random.uniform(0, 0.5))
    run.signal(signal.SIGKILL)
    assert run.end() == KILLED
    assert start_toy(tmp_path, 1, resume=True, **TOYS['ema']).end() == 0
    assert_same(final_state(tmp_path / 'run'), whole_toys('ema'))


def test_nothing_is_read_twice_to_skip_it():
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
    assert list(read_from(loader, 5)) == []


def read_log(work_dir):
    return '\n'.join(p.read_text() for p in sorted(work_dir.glob('2*/*.log')))


def test_a_run_without_a_seed_says_which_one_repeats_it(tmp_path):
    states = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert start_toy(folder, number).end() == 0
        states.append(final_state(folder / 'run'))
    seed = int(read_log(tmp_path / '0' / 'run').split('Random seed ')[1].split(':')[0])
    (tmp_path / '2').mkdir()
    assert start_toy(tmp_path / '2', 7, seed=seed).end() == 0
    assert_same(final_state(tmp_path / '2' / 'run'), states[0])
    assert differences(states[0]['state_dict'], states[1]['state_dict'])


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
