# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A run in which no step is finished ends: real processes."""

import ctypes
import os
import os.path as osp
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from helpers import ROOT, process_env
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from tiny_training import Training, config, train

from s4d_mm.engine.hooks import HangHook
from s4d_mm.engine.launch import group_timeout, prepare_distributed

LIMIT = 4.0  # seconds; a busy machine makes a step of the tiny model in less


@HOOKS.register_module()
class Stuck(Hook):
    """Stands still in the fourth step, or sends itself a signal, or fails."""

    def __init__(self, how):
        self.how = how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            getattr(self, self.how, lambda: None)()

    before_val_iter = before_train_iter

    def sleep(self):
        time.sleep(100)

    def lock(self):
        ctypes.PyDLL(None).sleep(100)  # does not release Python's lock

    def error(self):
        raise ValueError('as asked for')


def stuck(folder, how, timeout=LIMIT, **options):
    cfg = config(folder / 'run', epochs=1, **options)
    cfg.default_hooks['hang'] = dict(type='HangHook', timeout=timeout)
    cfg.custom_hooks.append(dict(type='Stuck', how=how))
    return cfg


@pytest.mark.parametrize('how', ['sleep', 'lock'])
def test_a_step_that_never_ends_ends_the_run(how, tmp_path):
    run = Training(lambda: train(stuck(tmp_path, how)), tmp_path)
    assert run.end() == 1
    assert 'Timeout (0:00:04)' in run.output()
    assert f'in {how}' in run.output()


@TRANSFORMS.register_module()
class StuckSample(BaseTransform):
    """The third sample of a process stops it, or kills it."""

    def __init__(self, number=None):
        self.number, self.count = number, 0

    def transform(self, results):
        self.count += 1
        if self.count == 3:
            os.kill(os.getpid(), self.number) if self.number else time.sleep(100)
        return results


def test_a_worker_that_never_returns_ends_a_test(quickstart, tmp_path):
    """And one that is killed is named, in the command, without a traceback."""
    text = (
        "_base_ = '{}/configs/quickstart/s4d_quickstart_finetune.py'\n"
        "custom_imports = dict(imports=['s4d_mm', 'test_hangs'])\n"
        'default_hooks = dict(hang=dict(timeout=8))\n'
        "train_pipeline = [dict(type='StuckSample', number={}), *_base_.train_pipeline]\n"
        'train_dataloader = dict(num_workers=1, persistent_workers=False,\n'
        '    dataset=dict(video=dict(pipeline=train_pipeline)))\n'
    )
    outputs = []
    for number in (None, int(signal.SIGKILL)):
        (tmp_path / 'x.py').write_text(text.format(ROOT, number))
        paths = os.pathsep.join([ROOT, osp.dirname(__file__), osp.join(ROOT, 'tests')])
        done = subprocess.run(
            [sys.executable, f'{ROOT}/tools/train.py', 'x.py', '--work-dir', f'run{number}'],
            cwd=tmp_path,
            env={**process_env(), 'PYTHONPATH': paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        assert done.returncode == 1, done.stdout[-3000:]
        outputs.append(done.stdout)
    assert 'Timeout (0:00:08)' in outputs[0] and 'dataloader.py' in outputs[0]
    assert 'Traceback' not in outputs[1]
    assert 'DataLoader worker (pid' in outputs[1] and 'num_workers' in outputs[1]


def test_what_follows_an_error_goes_on(tmp_path):
    """With the training loop of the recipes, which ends the wait."""
    cfg = stuck(tmp_path, 'error')
    cfg.train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=1)

    def run():
        try:
            train(cfg)
        except ValueError:
            time.sleep(LIMIT + 1)
            print('went on')

    run = Training(run, tmp_path)
    assert run.end() == 0 and 'went on' in run.output()


def test_a_finished_run_and_an_interactive_session_have_no_limit(tmp_path, monkeypatch):
    def run():
        train(stuck(tmp_path, 'none'))
        time.sleep(LIMIT + 1)

    assert Training(run, tmp_path).end() == 0
    monkeypatch.setattr(sys, 'ps1', '>>> ', raising=False)
    assert HangHook(5).timeout == 0


@pytest.mark.parametrize('value', [-1, '600', None, True, float('nan')])
def test_limit_is_a_number_of_seconds(value):
    with pytest.raises(ValueError, match='timeout of HangHook must be a number of seconds'):
        HangHook(value)
    hooks = dict(hang=dict(type='HangHook', timeout=value))
    with pytest.raises(ValueError, match='default_hooks.hang.timeout must be'):
        prepare_distributed(Config(dict(launcher='pytorch', default_hooks=hooks)))


def test_the_process_group_waits_as_long():
    hooks = dict(hang=dict(type='HangHook'))
    assert group_timeout(Config(dict(default_hooks=hooks))) == timedelta(minutes=30)
    hooks['hang']['timeout'] = 0
    assert group_timeout(Config(dict(default_hooks=hooks))) is None
    dist_cfg = dict(env_cfg=dict(dist_cfg=dict(timeout=7)), default_hooks=hooks)
    assert group_timeout(Config(dist_cfg)) == timedelta(seconds=7)
