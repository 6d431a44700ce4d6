# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Losses, gradients and weights that are not finite, in real runs of mmengine's Runner."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, process_env
from mmaction.structures import ActionDataSample
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from processes import run_ranks
from torch import nn
from torch.utils.data import Dataset

from s4d_mm.engine import NonFiniteHook, amp
from s4d_mm.files.errors import NonFiniteError

OPTIMIZERS = [
    dict(type='AdamW', lr=0.1, fused=True),
    dict(type='AdamW', lr=0.1),
    dict(type='SGD', lr=0.1, momentum=0.9, fused=True),
    dict(type='SGD', lr=0.1, momentum=0.9),
]


class Numbers(Dataset):
    """Samples that say what is to go wrong with them, by their number."""

    def __init__(self, faults, size=6):
        self.faults, self.size = dict(faults), size

    def __len__(self):
        return self.size

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
    """Two layers and two losses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)
        self.seen = nn.BatchNorm1d(1, affine=False)  # its running values see what goes bad

    def forward(self, inputs, data_samples=None, mode='loss'):
        x = self.first(torch.ones(len(inputs), 2))
        self.seen(x[:, None] * (torch.nan if 'balance' in inputs else 1))
        x = BadRoot.apply(x) if 'gradient' in inputs else x
        loss = self.last(x).square().mean()
        if 'value' in inputs:  # an infinite loss whose gradients are finite
            loss = loss + torch.inf
        balance = self.last.bias.square().sum()
        if 'balance' in inputs:
            balance = balance * torch.nan
        return dict(loss_cls=loss, acc=torch.ones(1), loss_balance=balance)


class Steps(Hook):
    """Keep the weights after each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        params = runner.model.parameters()
        self.weights.append(torch.cat([p.detach().flatten() for p in params]).clone())


def train(folder, faults, optimizer=OPTIMIZERS[0], max_skips=0, size=6, hooks=(), **wrapper):
    """Train with a batch size of 1 in order; the runner, the steps, and what stopped it."""
    loader = dict(
        dataset=Numbers(faults, size),
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    steps = Steps()
    runner = Runner(
        Model(),
        str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(optimizer), **wrapper),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='SafeCheckpointHook', interval=1, by_epoch=False),
        ),
        custom_hooks=[NonFiniteHook(max_skips), steps, *hooks],
        experiment_name=folder.name,
        default_scope='mmengine',
    )
    try:
        runner.train()
    except NonFiniteError as e:
        return runner, steps, str(e)
    return runner, steps, None


def finite_weights(folder):
    return {
        path.name: all(
            torch.isfinite(v).all()
            for v in torch.load(path, weights_only=True)['state_dict'].values()
        )
        for path in folder.glob('*.pth')
    }


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda o: f'{o["type"]}{o.get("fused", "")}')
@pytest.mark.parametrize(
    'fault, named',
    [
        ('balance', 'the loss is not finite: loss_balance is nan'),
        ('value', 'the loss is not finite: loss_cls is inf'),
        (
            'gradient',
            'the gradient is not finite (norm inf) while the loss is, first at first.bias',
        ),
    ],
)
def test_the_step_that_goes_bad_stops_the_run(fault, named, optimizer, tmp_path):
    runner, steps, text = train(tmp_path, {3: fault}, optimizer)
    assert f'In step 4 (epoch 1) {named}' in text
    assert 'the samples are clip3. The training stops' in text
    assert f'the last checkpoint is {tmp_path}/iter_3.pth' in text and 'now 0.1' in text
    assert finite_weights(tmp_path) == {f'iter_{i}.pth': True for i in (1, 2, 3)}
    assert len(steps.weights) == 3  # no hook of a lower priority sees the step
    params = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    assert torch.equal(params, steps.weights[2])


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda o: f'{o["type"]}{o.get("fused", "")}')
def test_steps_are_left_out_as_if_they_had_not_been(optimizer, tmp_path):
    faults = {1: 'value', 2: 'gradient', 4: 'balance'}
    runner, steps, text = train(tmp_path / 'skips', faults, optimizer, max_skips=2)
    assert text is None
    other, others, _ = train(tmp_path / 'without', {}, optimizer, size=3)
    kept = [steps.weights[i] for i in (0, 3, 5)]
    assert all(torch.equal(a, b) for a, b in zip(kept, others.weights))
    assert torch.equal(steps.weights[2], steps.weights[0])
    buffers = [[*r.model.buffers()] for r in (runner, other)]
    assert len(buffers[0]) == 3 and all(map(torch.equal, *buffers))
    log = next((tmp_path / 'skips').glob('*/*.log')).read_text()
    found = re.findall(r'In step (\d) .* are (clip\d)\. The step is left out, (\d) in a row', log)
    assert found == [('2', 'clip1', '1'), ('3', 'clip2', '2'), ('5', 'clip4', '1')]
    # the means of the log go on without them
    (last,) = re.findall(r'\[6/6\].* loss: (\S+).* grad_norm: (\S+)', log)
    assert all(np.isfinite(float(value)) for value in last)


def test_one_more_than_may_be_left_out(tmp_path):
    _, _, text = train(tmp_path, dict.fromkeys((2, 3, 4), 'value'), max_skips=2)
    assert 'In step 5 ' in text and '(now 2)' in text


def test_in_a_sum_of_several_batches_the_bad_one_is_named(tmp_path):
    _, steps, text = train(tmp_path, {4: 'value'}, accumulative_counts=3)
    assert 'In step 6 ' in text and 'the samples are clip4.' in text
    assert torch.equal(steps.weights[2], steps.weights[4])
    (tmp_path / 'gradient').mkdir()
    _, _, text = train(tmp_path / 'gradient', {4: 'gradient'}, accumulative_counts=3)
    assert 'the samples are clip3, clip4, clip5.' in text  # the sum does not tell which


def test_the_norm_is_logged_and_equals_that_of_clipping(tmp_path):
    logs = []
    for name, options in (('plain', {}), ('clip', dict(clip_grad=dict(max_norm=1e9)))):
        runner, _, _ = train(tmp_path / name, {}, **options)
        logs.append(runner.message_hub.get_scalar('train/grad_norm').data[0])
    assert len(logs[0]) == 6 and logs[0].min() > 0
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-6)


def test_a_clipped_gradient_that_is_bad_stops_the_run_too(tmp_path):
    _, steps, text = train(tmp_path, {1: 'gradient'}, clip_grad=dict(max_norm=1.0))
    assert 'In step 2 ' in text and torch.isfinite(steps.weights[0]).all()


class Spoil(Hook):
    """Weights that overflow in the third step, with finite gradients."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            runner.model.last.weight.data[0, 1:] = torch.inf


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    _, _, text = train(tmp_path, {}, hooks=[Spoil()])
    assert 'After step 3 (epoch 1)' in text and '2 of the 3 numbers of last.weight' in text
    assert finite_weights(tmp_path) == {'iter_1.pth': True, 'iter_2.pth': True}


@pytest.mark.parametrize('value', [-1, 1.5, '2'])
def test_max_skips_is_checked(value):
    with pytest.raises(ValueError, match=f'max_skips={value!r}'):
        NonFiniteHook(value)


# ----------------------------------------------------------------- loss scaler
@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(OptimWrapper):
    """``AmpOptimWrapper`` without a GPU, which mmengine's asks for: torch's scaler has it."""

    def __init__(self, init_scale, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


@pytest.mark.parametrize('fused', [True, False])
def test_a_gradient_too_large_for_the_scale_is_no_fault(fused, tmp_path):
    """The scaler has left the step out by itself, until the scale is under 1."""
    options = dict(type='ScaledOptimWrapper', init_scale=4.0)
    optimizer = dict(type='AdamW', lr=0.1, fused=fused)
    runner, steps, text = train(tmp_path / 'once', {1: 'gradient'}, optimizer, **options)
    assert text is None
    assert torch.equal(steps.weights[1], steps.weights[0])
    norms = runner.message_hub.get_scalar('train/grad_norm').data[0]
    plain, _, _ = train(tmp_path / 'plain', {}, optimizer)
    assert norms[0] == pytest.approx(plain.message_hub.get_scalar('train/grad_norm').data[0][0])
    assert len(norms) == 5
    always = dict.fromkeys(range(6), 'gradient')
    _, steps, text = train(tmp_path / 'always', always, optimizer, **options)
    assert 'In step 3 ' in text  # the scale is 2, 1, 0.5 after the steps
    _, steps, text = train(tmp_path / 'loss', {1: 'value'}, optimizer, **options)
    assert 'In step 2 ' in text and 'loss_cls is inf' in text


def test_on_a_cpu_there_is_no_scale_that_a_gradient_is_too_large_for(tmp_path, monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    _, _, text = train(tmp_path / 'run', {1: 'gradient'}, type='CpuFallbackAmpOptimWrapper')
    assert 'the gradient is not finite' in text


# ------------------------------------------------------------------- processes
@pytest.mark.parametrize('fault', ['value', 'gradient'])
def test_two_processes_stop_together(fault, tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    work_dir = tmp_path / 'run'

    def run():
        loader = dict(
            dataset=Numbers({5: fault}, 12),  # of the second process, its third step
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        )
        steps = Steps()
        runner = Runner(
            Model(),
            str(work_dir),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(OPTIMIZERS[0])),
            default_hooks=dict(
                checkpoint=dict(type='SafeCheckpointHook', interval=1, by_epoch=False)
            ),
            custom_hooks=[NonFiniteHook(), steps],
            launcher='pytorch',
            default_scope='mmengine',
            cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
        )
        with pytest.raises(NonFiniteError) as error:
            runner.train()
        return str(error.value), len(steps.weights)

    folder = tmp_path / 'ranks'
    folder.mkdir()
    first, second = run_ranks(run, folder)
    text, count = first
    assert first == second and count == 2 and 'In step 3 ' in text
    # the sum of the gradients does not tell whose was bad
    assert ('are clip5.' if fault == 'value' else 'are clip4, clip5.') in text
    assert finite_weights(work_dir) == {'iter_1.pth': True, 'iter_2.pth': True}


# ------------------------------------------------------------ the command line
SHORT = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.batch_sampler.batch_size.video=4',
    'train_dataloader.batch_sampler.batch_size.image=8',
    'default_hooks.checkpoint.interval=1',
)


def test_a_pretraining_with_a_huge_rate_ends_with_a_sentence(quickstart, tmp_path):
    command = [sys.executable, 'tools/train.py', 'configs/quickstart/s4d_quickstart_pretrain.py']
    command += ['--work-dir', str(tmp_path), '--cfg-options', *SHORT]
    command += ['optim_wrapper.optimizer.lr=1e10']
    done = subprocess.run(
        command, cwd=ROOT, env=process_env(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert 'Traceback' not in done.stderr + done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r'In step \d \(epoch 1\) the loss is not finite: loss is nan; the sam', last)
    assert not list(tmp_path.glob('*.pth'))
