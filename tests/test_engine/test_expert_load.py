# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Shares of the experts and entropy of the routers, in a real run and in processes."""

import json
import math
import os.path as osp
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from processes import run_ranks
from small_models import FINETUNE, build, pixel_batch, run

from s4d_mm.engine import ExpertLoadHook
from s4d_mm.engine.hooks.expert_load_hook import RouterLoad, modality_of

CONFIG = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')


class Witness(Hook):
    """See what the router of layer 3 gives in each step, of which it bars one expert."""

    priority = 'LOWEST'

    def before_train(self, runner):
        router = runner.model.neck.blocks[1].moae.router
        router.gate.bias.data[2] = -1e4
        router.register_forward_hook(self.see)
        self.seen, self.steps = [], []

    def see(self, router, args, outputs):
        if router.training:
            self.seen.append((outputs[1].clone(), outputs[2].detach().double()))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(modality_of(data_batch))


def expected(modality, steps, seen):
    """Shares and entropy by the definition, over the tokens of all steps of a modality."""
    ids, probs = zip(*(s for s, kind in zip(seen, steps) if kind == modality))
    ids, probs = torch.cat(ids), torch.cat(probs)
    shares = F.one_hot(ids, probs.shape[1]).amax(1).double().mean(0)
    logs = torch.where(probs > 0, probs, 1.0).log()
    return shares.tolist(), float(-(probs * logs).sum(1).mean())


def test_a_training_logs_them_and_warns_of_an_idle_expert(quickstart, tmp_path):
    cfg = Config.fromfile(CONFIG)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    cfg.merge_from_dict(
        {
            'train_cfg': dict(max_epochs=1, val_interval=9),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_sampler.batch_size': dict(video=4, image=8),
            'default_hooks.logger.interval': 100,  # the end of the epoch is logged
            'default_hooks.checkpoint.interval': -1,
        }
    )
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    runner, witness = Runner.from_cfg(cfg), Witness()
    runner.register_hook(witness)
    runner.train()
    with open(next(tmp_path.glob('*/vis_data/scalars.json'))) as f:
        lines = [json.loads(line) for line in f]
    (shares,) = [line for line in lines if 'moae/video/layer_3/expert_0' in line]
    assert shares['step'] == len(witness.steps) >= 5
    assert set(witness.steps) == {'video', 'image'}
    names = [*(f'expert_{i}' for i in range(4)), 'entropy']
    assert set(shares) == {'step'} | {
        f'moae/{kind}/layer_{layer}/{name}'
        for kind in ('video', 'image')
        for layer in (2, 3)
        for name in names
    }
    log = next(tmp_path.glob('*/*.log')).read_text()
    for kind in ('video', 'image'):
        experts, entropy = expected(kind, witness.steps, witness.seen)
        found = [shares[f'moae/{kind}/layer_3/expert_{i}'] for i in range(4)]
        assert found == pytest.approx(experts) and sum(found) == pytest.approx(2)
        assert found[2] == 0 and max(found) < 1
        assert shares[f'moae/{kind}/layer_3/entropy'] == pytest.approx(entropy, rel=1e-5)
        assert 0 < entropy < math.log(4)
        assert f'WARNING - Epoch 1: expert 2 of layer 3 got 0.00% of the {kind} tokens' in log
    assert log.count(' tokens (of 4 experts, under 1%)') == 2
    # the text has the extremes alone
    (text,) = re.findall(r'Epoch\(train\) .*', log)
    assert 'moae/video/min_share: 0.0000' in text and 'moae/image/max_share: ' in text
    assert 'layer_' not in text and ' grad_norm: ' in text


def test_evaluation_and_compiled_routers_are_not_counted(monkeypatch):
    model = build(FINETUNE)
    router = model.neck.routers()[3]
    load = RouterLoad(router)
    run(model.eval(), (2, 3, 32, 32))
    assert load.take() == {}
    run(model.train(), (2, 3, 32, 32))  # of no step of the loop
    assert load.take() == {}
    load.modality = 'image'
    run(model, (2, 3, 32, 32))
    ((*experts, _, tokens),) = load.take().values()
    assert tokens == 2 * 4 and sum(experts) == 2 * tokens
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    router(torch.zeros(4, 32))
    monkeypatch.undo()
    assert load.take() == {}
    load.remove()
    router(torch.zeros(4, 32))
    assert load.take() == {}


def test_the_warning_counts_all_processes(tmp_path):
    """An expert that one process alone leaves idle is none; neither may wait for the other."""

    def warn():
        rank = torch.distributed.get_rank()
        lines, hook = [], ExpertLoadHook(min_share=0.2)
        logger = type('Logger', (), dict(warning=lambda self, text: lines.append(text)))()
        hook._loads = {3: type('Load', (), dict(take=lambda self: sums))()}
        sums = dict(video=[0.0 if rank == 0 else 50.0, 100.0, 3.0 - rank, 1.0, 100.0])
        if rank == 0:  # a modality that one process has seen alone
            sums['image'] = [1.0, 9.0, 9.0, 1.0, 10.0]
        hook.after_train_epoch(type('Runner', (), dict(logger=logger, epoch=4))())
        return lines

    first, second = run_ranks(warn, tmp_path)
    assert first == second
    assert [re.sub(r' tokens.*', '', line) for line in first] == [
        'Epoch 5: expert 0 of layer 3 got 10.00% of the image',
        'Epoch 5: expert 2 of layer 3 got 2.50% of the video',
    ]


def test_batches_without_a_modality():
    assert modality_of(pixel_batch('image', 2)) == 'image'
    assert modality_of(pixel_batch('image', 2, meta=False)) == 'all'
    assert modality_of([1]) == modality_of(dict(inputs=[])) == 'all'


@pytest.mark.parametrize('value', [-0.1, 1.1])
def test_min_share_is_checked(value):
    with pytest.raises(ValueError, match=f'min_share={value}'):
        ExpertLoadHook(value)
