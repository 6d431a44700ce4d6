# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Runs repeat bit by bit, and a run that was killed ends like one that was not."""

import random
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from runs import (
    FINETUNE,
    PRETRAIN,
    Training,
    differences,
    final_state,
    resumed,
    run,
    run_ranks,
    short_config,
)
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from s4d_mm.datasets import SeededSampler
from s4d_mm.engine.loop import read_from, seed_step

KILLED = -signal.SIGKILL
MID_EPOCH = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=2)
ACCUMULATED = dict(MID_EPOCH, optim_wrapper__accumulative_counts=2)


def config_of(path, work_dir, workers=0, ema=False, **options):
    """Two epochs of five or six steps."""
    if path == FINETUNE:
        options['default_hooks__checkpoint__save_best'] = 'video/WAR'
        options['default_hooks__checkpoint__rule'] = 'greater'
    cfg = short_config(
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
    if ema:
        cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    return cfg


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
        (PRETRAIN, 2, ('after_train_iter', 7), dict(MID_EPOCH, ema=True)),
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


def test_nothing_is_read_twice_to_skip_it():
    class Numbers(list):
        def __getitem__(self, index):
            reads.append(int(index))
            return int(index)

    reads, data = [], Numbers(range(20))
    sampler = SeededSampler(data, seed=3)
    loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=list)
    order = [int(index) for index in sampler]
    assert list(read_from(loader, 3)) == [order[12:16], order[16:]]
    assert reads == order[12:]
    assert list(read_from(loader, 5)) == []


def test_a_run_without_a_seed_says_which_one_repeats_it(quickstart, tmp_path):
    def trained(number, seed):
        folder = tmp_path / str(number)
        folder.mkdir()
        cfg = config_of(PRETRAIN, folder / 'run', randomness__seed=seed)
        np.random.seed(number)  # mmengine draws the seed of the run from it
        assert train(cfg, folder) == 0
        return final_state(cfg.work_dir), next((folder / 'run').glob('2*/*.log')).read_text()

    (first, log), (other, _) = trained(0, None), trained(1, None)
    seed = int(log.split('Random seed ')[1].split(':')[0])
    assert_same(trained(2, seed)[0], first)
    assert differences(first['state_dict'], other['state_dict'])


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
