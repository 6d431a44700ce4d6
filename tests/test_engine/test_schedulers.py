# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The learning rate in every step of a run, and the weight decay of pre-training."""

import math

import numpy as np
import pytest
import torch
from helpers import read_config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from small_models import PRETRAIN, build
from torch import nn

from s4d_mm.engine import WarmupCosineLR


def learning_rates(cfg, lrs, epochs, epoch_length, counts=1):
    """Learning rates of each group at each update of a run, as the Runner goes on."""
    init_default_scope('mmaction')
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=lr) for lr in lrs]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=1.0), accumulative_counts=counts)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg, end=epochs), default_args=dict(optimizer=wrapper, epoch_length=epoch_length)
    )
    rates = []
    for i in range(epochs * epoch_length):
        if (i + 1) % counts == 0:
            rates.append([g['lr'] for g in wrapper.optimizer.param_groups])
        wrapper.step()
        scheduler.step()
    return np.array(rates).T


def recipe(name):
    cfg = read_config(name)
    (scheduler,) = cfg.param_scheduler
    return scheduler, cfg.optim_wrapper


def test_pretraining_follows_the_cosine_of_the_whole_run():
    """Linear from 1e-6 over 5 epochs of 100, then 0.5 * (1 + cos(pi * t / T))."""
    scheduler, wrapper = recipe('s4d_pretrain')
    (found,) = learning_rates(scheduler, [wrapper.optimizer.lr], 100, 3)
    expected = []
    for t in range(300):
        if t < 15:
            expected.append(1e-6 + (1.2e-3 - 1e-6) * t / 15)
        else:
            expected.append(1.2e-3 * 0.5 * (1 + math.cos(math.pi * t / 300)))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[15] / 1.2e-3 == pytest.approx(0.5 * (1 + math.cos(0.05 * math.pi)))
    assert found.argmax() == 15 and found[15] < 0.994 * 1.2e-3


def test_finetuning_warms_up_from_zero_and_ends_by_layer():
    """Against numpy, written as VideoMAE's scheduler is: a linspace and a cosine."""
    scheduler, wrapper = recipe('s4d_finetune_dfew')
    scales = [1.0, 0.75, 0.75**13]
    found = learning_rates(scheduler, [wrapper.optimizer.lr * s for s in scales], 100, 4)
    rest = np.arange(380)
    cosine = 1.25e-7 + 0.5 * (4e-5 - 1.25e-7) * (1 + np.cos(np.pi * rest / 380))
    expected = np.concatenate((np.linspace(0, 4e-5, 20), cosine))
    for rates, scale in zip(found, scales):
        assert rates == pytest.approx(expected * scale, rel=1e-9, abs=0)
    assert found[0][0] == 0 and found[0][19] == found[0][20] == pytest.approx(4e-5)


@pytest.mark.parametrize('name', ['s4d_pretrain', 's4d_finetune_dfew'])
def test_accumulation_changes_no_step(name):
    scheduler, wrapper = recipe(name)
    whole = learning_rates(scheduler, [wrapper.optimizer.lr], 20, 5)
    parts = learning_rates(scheduler, [wrapper.optimizer.lr], 20, 20, counts=4)
    assert parts.shape == whole.shape == (1, 100)
    assert parts == pytest.approx(whole)


def test_wrong_share():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match='warmup_share of WarmupCosineLR must be in 0..1: 5'):
        WarmupCosineLR(optimizer, end=10, warmup_share=5)


def test_what_decays_in_pretraining():
    """Everything but parameters named ``*.bias`` and norms: q_bias and v_bias do."""
    _, wrapper = recipe('s4d_pretrain')
    model = build(PRETRAIN)
    cfg = dict(wrapper, type='OptimWrapper')
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    found = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decays = set()
    for name, param in model.named_parameters():
        free = name.endswith('.bias') or id(param) in norms
        assert found[id(param)] == (0 if free else 0.05), name
        decays |= set() if free else {name.split('.')[-1]}
    assert decays == {'weight', 'q_bias', 'v_bias', 'mask_token'}
