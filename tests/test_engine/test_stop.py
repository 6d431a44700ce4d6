# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Trainings that end before their last epoch: signals, hangs, losses that are not finite."""

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist
from mmaction.structures import ActionDataSample
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runs import STEPS, TIMEOUT, Training, config, train
from torch import nn
from torch.utils.data import Dataset

from s4d_mm.engine import HangHook, NonFiniteHook
from s4d_mm.files.errors import NonFiniteError

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}


def start(folder, pause=0.1, **options):
    return Training(lambda: train(config(folder / 'run', pause=pause, **options)), folder)


def names(folder):
    return sorted(p.name for p in (folder / 'run').glob('*.pth'))


# ------------------------------------------------------------------ signals
@pytest.mark.parametrize('number', SIGNALS)
def test_the_step_is_finished_and_saved(number, tmp_path):
    """Also where the whole process group gets the signal, workers too, as by Slurm or Ctrl-C."""
    run = start(tmp_path, workers=2, pause=0.3, save=dict(max_keep_ckpts=1))
    run.wait_for('step 8')
    run.signal(number, group=True)
    assert run.end() == SIGNALS[number]
    done = int((tmp_path / 'steps').read_text().split()[-1])
    file = tmp_path / 'run' / f'iter_{done}.pth'
    output = run.output()
    assert f'{number.name}: saved {file}.' in output
    assert 'Traceback' not in output and 'Error' not in output
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == str(file)
    meta = torch.load(file, weights_only=True)['meta']
    assert STEPS < done < 2 * STEPS and (meta['epoch'], meta['iter']) == (1, done)
    if number == signal.SIGTERM:  # the resumed training replaces it
        run = start(tmp_path, save=dict(max_keep_ckpts=1), resume=True)
        assert run.end() == 0, run.output()
        assert names(tmp_path) == ['epoch_3.pth']


def test_process_can_still_end_its_forks(tmp_path):
    class Fork(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            context = multiprocessing.get_context('fork')
            ready = context.Event()
            fork = context.Process(target=lambda: ready.set() or time.sleep(TIMEOUT))
            fork.start()
            ready.wait()
            time.sleep(0.2)
            fork.terminate()
            fork.join(TIMEOUT)
            os._exit(7 if fork.exitcode == -signal.SIGTERM else 1)

    def run():
        cfg = config(tmp_path / 'run')
        cfg.custom_hooks.append(Fork())
        train(cfg)

    assert Training(run, tmp_path).end() == 7


def test_second_interrupt_ends_at_once(tmp_path):
    """Also while the step does not come back to Python."""
    run = start(tmp_path, pause=TIMEOUT)
    run.wait_for('step 1')
    run.signal(signal.SIGINT)
    run.wait_for('SIGINT: the step is finished and saved.', 'output')
    run.signal(signal.SIGINT)
    assert run.end() == -signal.SIGINT and names(tmp_path) == []


@pytest.mark.parametrize(
    'options, moment, saved',
    [
        # accumulated gradients are not lost
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=4)),)
        + ('step 1', 'iter_4.pth'),
        # a validation ends at once if the epoch is saved, or else after the next step
        (dict(scores=[1, 2, 3]), 'val 1', 'epoch_1.pth'),
        (dict(scores=[1, 2, 3], save=dict(interval=2)), 'val 1', f'iter_{STEPS + 1}.pth'),
        # the saved step counts in ``max_keep_ckpts`` where those of steps are saved
        (dict(save=dict(by_epoch=False, interval=4, max_keep_ckpts=1)), 'step 6', 'iter_[67].pth'),
    ],
)
def test_what_is_saved(options, moment, saved, tmp_path):
    run = start(tmp_path, pause=0.2, **options)
    run.wait_for(moment)
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    (name,) = names(tmp_path)
    assert re.fullmatch(saved, name)


def test_error_gives_the_signals_back(tmp_path):
    """Where the process continues after it, as a notebook does; and it waits for no step."""

    class Failing(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            raise RuntimeError

    def failing():
        cfg = config(tmp_path / 'run')
        cfg.train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=1)
        cfg.custom_hooks += [Failing(), HangHook(2)]
        with pytest.raises(RuntimeError):
            train(cfg)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            time.sleep(3)
            os._exit(7)

    run = Training(failing, tmp_path)
    assert run.end() == 7, run.output()


def test_one_of_two_processes_is_told(tmp_path):
    def rank(number):
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
        store = f'file://{tmp_path}/store'
        dist.init_process_group('gloo', store, rank=number, world_size=2)
        train(config(tmp_path / 'run', pause=0.1, launcher='pytorch'))

    runs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        runs.append(Training(lambda number=number: rank(number), tmp_path / str(number)))
    runs[0].wait_for('step 4', '../steps0')
    runs[1].signal(signal.SIGTERM)
    assert [run.end() for run in runs] == [143, 143]
    counts = {int((tmp_path / f'steps{i}').read_text().split()[-1]) for i in range(2)}
    assert len(counts) == 1
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith(f'/iter_{counts.pop()}.pth')


# ------------------------------------------------------------------ hangs
@HOOKS.register_module()
class Stuck(Hook):
    """Stands still in the fourth step."""

    def __init__(self, how):
        self.how = how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            getattr(self, self.how)()

    def sleep(self):
        time.sleep(100)

    def lock(self):
        ctypes.PyDLL(None).sleep(100)  # does not release Python's lock


@pytest.mark.parametrize('how', ['sleep', 'lock'])
def test_a_step_that_never_ends_ends_the_run(how, tmp_path):
    cfg = config(tmp_path / 'run', epochs=1)
    cfg.default_hooks['hang'] = dict(type='HangHook', timeout=3)
    cfg.custom_hooks.append(dict(type='Stuck', how=how))
    run = Training(lambda: train(cfg), tmp_path)
    assert run.end() == 1
    assert 'Timeout (0:00:03)' in run.output() and f'in {how}' in run.output()


def test_an_interactive_session_has_no_limit(monkeypatch):
    assert HangHook().timeout == 1800
    monkeypatch.setattr(sys, 'ps1', '>>> ', raising=False)
    assert HangHook(5).timeout == 0


# ------------------------------------------------------------------ losses that are not finite
class Numbers(Dataset):
    """Samples that say what is to go wrong with them, by their number."""

    def __init__(self, faults):
        self.faults = dict(faults)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        sample = ActionDataSample(metainfo=dict(sample_id=f'clip{index}'))
        return dict(inputs=self.faults.get(index, ''), data_samples=sample)


class BadRoot(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.inf


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        x = self.first(torch.ones(len(inputs), 2))
        x = BadRoot.apply(x) if 'gradient' in inputs else x
        loss = self.last(x).square().mean()
        balance = self.last.bias.square().sum() * (torch.nan if 'loss' in inputs else 1)
        return dict(loss_cls=loss, acc=torch.ones(1), loss_balance=balance)


class Scaled(Hook):
    """The loss scaler of a GPU, on a CPU."""

    def before_train(self, runner):
        runner.optim_wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0)


def train_numbers(folder, faults, hooks=(), **wrapper):
    """Train with a batch size of 1 in order; the runner, and what stopped it."""
    runner = Runner(
        Model(),
        str(folder),
        train_dataloader=dict(
            dataset=Numbers(faults),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), **wrapper),
        default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook', interval=1, by_epoch=False)),
        custom_hooks=[NonFiniteHook(), *hooks],
        default_scope='mmengine',
    )
    try:
        runner.train()
    except (NonFiniteError, RuntimeError) as e:
        return runner, str(e)
    return runner, None


def saved_weights(folder):
    """Names of the checkpoints; all are finite."""
    for path in folder.glob('*.pth'):
        weights = torch.load(path, weights_only=True)['state_dict'].values()
        assert all(torch.isfinite(v).all() for v in weights)
    return sorted(path.name for path in folder.glob('*.pth'))


def test_a_bad_loss_stops_the_run(tmp_path):
    _, text = train_numbers(tmp_path, {3: 'loss'})
    assert 'In step 4 (epoch 1) the loss is not finite: ' in text and 'loss_balance is nan' in text
    assert 'The samples are clip3; in the step before clip2.' in text
    assert 'now 0.1' in text
    assert saved_weights(tmp_path) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']


def test_a_bad_gradient_is_not_saved(tmp_path):
    """The weights that it spoils are not; torch refuses it at once where it clips."""
    _, text = train_numbers(tmp_path / 'plain', {3: 'gradient'})
    assert 'In step 4 (epoch 1) 6 of the 6 numbers of first.weight became NaN' in text
    assert 'The samples are clip3;' in text
    clip = dict(max_norm=1.0, error_if_nonfinite=True)
    runner, text = train_numbers(tmp_path / 'clip', {3: 'gradient'}, clip_grad=clip)
    assert 'non-finite' in text and all(torch.isfinite(p).all() for p in runner.model.parameters())
    for name in ('plain', 'clip'):
        assert saved_weights(tmp_path / name) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']


def test_a_gradient_too_large_for_the_scale_is_no_fault(tmp_path):
    """The scaler has left the step out by itself, until the scale is under 1."""
    options = dict(hooks=[Scaled()], type='CpuFallbackAmpOptimWrapper', dtype='float32')
    assert train_numbers(tmp_path / 'once', {1: 'gradient'}, **options)[1] is None
    always = dict.fromkeys(range(6), 'gradient')
    _, text = train_numbers(tmp_path / 'always', always, **options)
    assert 'In step 3 ' in text and 'scale has fallen to 0.5' in text
    _, text = train_numbers(tmp_path / 'loss', {1: 'loss'}, **options)
    assert 'In step 2 ' in text and 'loss_balance is nan' in text
