# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One recipe on one process or several: the same samples, pixels and losses."""

import os.path as osp

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from runs import FINETUNE, run_ranks, short_config
from small_models import ARCH, SIZE

from s4d_mm.engine.launch import build_runner


class Steps(Hook):
    """Keep what each step was given, and its loss."""

    def __init__(self):
        self.samples, self.losses = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        names = [s.sample_id for s in data_batch['data_samples']]
        sums = [int(x.long().sum()) for x in data_batch['inputs']]
        self.samples.append(sorted(zip(names, sums)))
        self.losses.append(outputs['loss_cls'].item())


def plain_config(work_dir, counts=1):
    """The quickstart's fine-tuning by SGD, without router noise and load balance."""
    cfg = short_config(
        FINETUNE,
        work_dir,
        train_cfg__max_epochs=2,
        train_dataloader__batch_sampler__total_batch_size=dict(video=4, image=8),
        default_hooks__checkpoint__interval=-1,
        model__neck__noisy=False,
        model__neck__loss_weight=0.0,
        launcher='pytorch',
        randomness__seed=1,
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
    )
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=counts)
    cfg.param_scheduler = [dict(type='WarmupCosineLR', convert_to_iter_based=True)]
    return cfg


def test_same_steps_on_any_number_of_processes(quickstart, tmp_path):
    """Also where a step is two batches."""

    def steps_of(world_size, counts=1):
        def train():
            steps = Steps()
            runner = build_runner(plain_config(tmp_path / f'run{world_size}{counts}', counts))
            runner.register_hook(steps)
            runner.train()
            return [steps.samples, steps.losses]

        found = run_ranks(train, tmp_path / f'ranks{world_size}{counts}', world_size)
        parts = [samples for samples, _ in found]
        joined = [sorted(tuple(s) for part in step for s in part) for step in zip(*parts)]
        steps = [sum(joined[i : i + counts], []) for i in range(0, len(joined), counts)]
        losses = torch.tensor([losses for _, losses in found]).mean(0)
        return list(map(sorted, steps)), losses.unflatten(0, (-1, counts)).mean(1).tolist()

    samples, losses = steps_of(1)
    assert len(losses) == 10 and max(losses) - min(losses) > 0.1  # it trains
    for world_size, counts in [(2, 1), (4, 1), (2, 2)]:
        others, curve = steps_of(world_size, counts)
        assert others == samples
        assert curve == pytest.approx(losses, abs=2e-5)


# ------------------------------------------------------------------ randomness
def draws(seed):
    """Masks, the ratio of Mixup and the router's noise, drawn as a run of the recipes does."""
    init_default_scope('mmaction')
    configs = [osp.join(ROOT, 'configs', f's4d_{n}.py') for n in ('pretrain', 'finetune_dfew')]
    pretrain, finetune = map(Config.fromfile, configs)
    encoder = MODELS.build(dict(type='S4DMAEViT', arch=ARCH, mask_ratio=0.5, **SIZE))
    blending = MODELS.build(finetune.model.data_preprocessor.blending.video)
    router = MODELS.build(dict(type='MoAENeck', arch=ARCH, num_layers=1)).blocks[0].moae.router
    for parameter in router.parameters():
        torch.nn.init.zeros_(parameter)
    found = []
    for cfg in (pretrain, finetune):
        set_random_seed(**{**cfg.randomness, 'seed': seed})  # what the Runner does
        _, mask, _ = encoder(torch.zeros(2, 3, 4, 32, 32))
        _, labels = blending.augments[0].do_blending(torch.zeros(7, 1, 3, 2, 2, 2), torch.eye(7))
        weights = router(torch.zeros(4, 32))[0]
        found.append([mask.tolist(), labels.tolist(), weights.tolist()])
    return found


def test_processes_draw_their_own_numbers_and_the_same_in_every_run(tmp_path):
    runs = [
        run_ranks(lambda seed=seed: draws(seed), tmp_path / str(i))
        for i, seed in enumerate((3, 3, 4))
    ]
    first, again, other = runs
    assert first == again
    for stage in range(2):
        for kind in range(3):
            ranks = [rank[stage][kind] for rank in first]
            assert ranks[0] != ranks[1]
            assert ranks[0] != other[0][stage][kind]


def test_processes_agree_on_weights_and_on_the_order_of_samples(quickstart, tmp_path):
    """Although their random streams differ from the start."""

    def start():
        cfg = plain_config(tmp_path / 'run')
        cfg.randomness.seed = None
        runner = build_runner(cfg)
        stream = torch.rand(3).tolist()
        sampler = runner.train_dataloader.batch_sampler
        runner._init_model_weights()
        weights = runner.model.state_dict().values()
        total = sum(float(w.double().abs().sum()) for w in weights)
        return stream, sampler.sampler.seed, total

    (stream, *one), (other, *two) = run_ranks(start, tmp_path / 'ranks')
    assert one == two
    assert stream != other
