# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Recipes in mixed precision start on a CPU; their checkpoints go from GPU to CPU and back."""

import pytest
import torch
from mmengine.runner import Runner
from runs import config

from s4d_mm.engine import CpuFallbackAmpOptimWrapper, amp

AMP = dict(type='CpuFallbackAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
PLAIN = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    monkeypatch.setattr('mmengine.runner.amp.get_device', lambda: 'cpu')
    monkeypatch.setattr(amp, 'cpu_has_bfloat16', lambda: False)


def train(folder, wrapper, **options):
    options = {'optim_wrapper': dict(wrapper), 'epochs': 1, **options}
    runner = Runner.from_cfg(config(folder / 'run', **options))
    runner.train()
    return runner


def test_float32_gives_what_a_plain_training_gives(tmp_path, capfd):
    mixed = train(tmp_path / 'amp', AMP)
    assert 'Mixed precision on a CPU: float32 in its place.' in capfd.readouterr().out
    plain = train(tmp_path / 'plain', PLAIN)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, mixed.model.state_dict()[name]), name
    assert 'loss_scaler' not in mixed.optim_wrapper.state_dict()


@pytest.mark.parametrize(
    'dtype, chosen', [(None, torch.bfloat16), ('float16', torch.bfloat16), ('float32', None)]
)
def test_a_cpu_with_bfloat16(dtype, chosen, monkeypatch):
    monkeypatch.setattr(amp, 'cpu_has_bfloat16', lambda: True)
    model = torch.nn.Linear(2, 2)
    wrapper = CpuFallbackAmpOptimWrapper(
        dtype=dtype, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
    )
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 2))
    assert out.dtype == (chosen or torch.float32)
    wrapper.update_params(out.float().sum())
    assert torch.isfinite(model.weight).all()


def test_a_checkpoint_of_a_gpu_goes_on_on_a_cpu(tmp_path):
    """That of a real loss scaler of torch's."""
    train(tmp_path, PLAIN)
    path = tmp_path / 'run' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    scale = torch.amp.GradScaler('cpu', init_scale=512.0).state_dict()
    assert scale
    checkpoint['optimizer']['loss_scaler'] = scale
    torch.save(checkpoint, path)
    for wrapper in (AMP, PLAIN):
        runner = train(tmp_path, wrapper, epochs=2, resume=True, load_from=str(path))
        assert runner.iter == 12


def test_a_checkpoint_of_a_cpu_goes_on_with_a_loss_scale(tmp_path):
    """A GPU's scaler refuses an empty state, so there is none."""
    runner = train(tmp_path, AMP)
    state = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)['optimizer']
    assert 'loss_scaler' not in state
    wrapper = runner.optim_wrapper
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=512.0)
    wrapper.load_state_dict(state)
    assert wrapper.loss_scaler.get_scale() == 512
