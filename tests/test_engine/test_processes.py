# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One recipe on one process or several: the same samples, pixels and losses."""

import pytest
import torch
from mmengine.hooks import Hook
from runs import FINETUNE, run_ranks, short_config

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
