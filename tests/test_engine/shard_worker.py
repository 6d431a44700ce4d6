# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run by test_sharding.py in two processes: short trainings on the
quickstart's drawn faces, one after the other, with different strategies.

    torchrun --nproc-per-node 2 tests/shard_worker.py FOLDER RUN [RUN ...]

FOLDER/RUN gets the checkpoints and, of the first process, ``log.json``.
"""

import json
import os.path as osp
import sys

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import s4d_mm  # noqa: F401
from s4d_mm.engine.launch import finish_distributed, prepare_distributed

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PRETRAIN, FINETUNE = (f's4d_quickstart_{name}.py' for name in ('pretrain', 'finetune'))
START = 'pretrain_ddp/epoch_1.pth'  # of FOLDER
FSDP_STRATEGY = '_base_/strategies/fsdp.py'
ZERO = '_base_/strategies/deepspeed_zero2.py'
NO_NOISE = {'model.neck.noisy': False}
# AdamW's first steps are of the size of the learning rate however small, or
# rounded, a gradient is
SGD = {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=0.01, weight_decay=0.05)}
FLOAT32 = {'strategy.model_wrapper.mixed_precision': None}
# name: config, strategy, where to start, options
RUNS = {
    'pretrain_ddp': (PRETRAIN, None, None, {}),
    'pretrain_flexible_ddp': (
        PRETRAIN,
        'ddp',
        None,
        {'auto_scale_lr': None, 'optim_wrapper.optimizer.lr': 2e-3},
    ),
    'pretrain_fsdp': (PRETRAIN, FSDP_STRATEGY, None, FLOAT32),
    'pretrain_fsdp_bf16': (PRETRAIN, FSDP_STRATEGY, None, {}),
    'pretrain_fsdp_resumed': (
        PRETRAIN,
        FSDP_STRATEGY,
        'pretrain_fsdp/epoch_1.pth',
        {**FLOAT32, 'resume': True, 'train_cfg.max_epochs': 2},
    ),
    'pretrain_ddp_resumed': (PRETRAIN, None, START, {'resume': True, 'train_cfg.max_epochs': 2}),
    'finetune_ddp': (FINETUNE, None, START, NO_NOISE),
    'finetune_fsdp': (FINETUNE, FSDP_STRATEGY, START, {**NO_NOISE, **FLOAT32}),
    'pretrain_zero2': (PRETRAIN, ZERO, None, {'strategy.config.torch_autocast.enabled': False}),
    'pretrain_ddp_accumulate': (PRETRAIN, None, None, {'optim_wrapper.accumulative_counts': 2}),
    'pretrain_fsdp_accumulate': (
        PRETRAIN,
        FSDP_STRATEGY,
        None,
        {**FLOAT32, 'optim_wrapper.accumulative_counts': 2},
    ),
    'pretrain_zero2_resumed': (
        PRETRAIN,
        ZERO,
        'pretrain_zero2/epoch_1.pth',
        {
            'strategy.config.torch_autocast.enabled': False,
            'resume': True,
            'train_cfg.max_epochs': 2,
        },
    ),
    'pretrain_zero2_bf16': (PRETRAIN, ZERO, None, {}),
    'pretrain_zero3': (
        PRETRAIN,
        ZERO,
        None,
        {'strategy.zero_optimization.stage': 3, 'strategy.config.torch_autocast.enabled': False},
    ),
    'finetune_ddp_sgd': (FINETUNE, None, START, {**NO_NOISE, **SGD}),
    'finetune_zero2_sgd': (
        FINETUNE,
        ZERO,
        START,
        {
            **NO_NOISE,
            **SGD,
            'strategy.config.torch_autocast.enabled': False,
            'strategy.config.zero_allow_untested_optimizer': True,
        },
    ),
    'finetune_zero2': (
        FINETUNE,
        ZERO,
        START,
        {**NO_NOISE, 'strategy.config.torch_autocast.enabled': False},
    ),
    'finetune_zero3': (
        FINETUNE,
        ZERO,
        START,
        {
            **NO_NOISE,
            'strategy.zero_optimization.stage': 3,
            'strategy.config.torch_autocast.enabled': False,
        },
    ),
}


class LossLog(Hook):
    """Keeps what each iteration logged."""

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rows.append({k: float(v) for k, v in outputs.items() if k.startswith('loss')})


def load_config(folder, name):
    path, strategy, start, options = RUNS[name]
    cfg = Config.fromfile(osp.join(ROOT, 'configs', path))
    if strategy == 'ddp':
        cfg.runner_type = 'FlexibleRunner'
    elif strategy is not None:
        base = Config.fromfile(osp.join(ROOT, 'configs', strategy))
        cfg.merge_from_dict(base._cfg_dict.to_dict())
        if strategy == ZERO:
            cfg.optim_wrapper.type = 'DeepSpeedOptimWrapper'
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_size': 8,
            'train_dataloader.batch_sampler.batch_size': dict(video=2, image=8),
            # the schedule of one run is that of the other
            'param_scheduler': [],
            'auto_scale_lr': dict(enable=True, base_batch_size=8),
            'load_from': start and osp.join(folder, start),
            'work_dir': osp.join(folder, name),
            'experiment_name': name,
            'launcher': 'pytorch',
            **options,
        }
    )
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    return cfg


def train(folder, name):
    cfg = load_config(folder, name)
    prepare_distributed(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    log = LossLog()
    runner.register_hook(log)
    runner.train()
    groups = runner.optim_wrapper.optimizer.param_groups
    report = dict(
        rows=log.rows,
        groups=sorted((g['lr'], g['weight_decay']) for g in groups),
        held=sum(p.numel() for p in runner.model.parameters()),
        classes=sorted({type(m).__name__ for m in runner.model.modules()}),
    )
    if runner.rank == 0:
        with open(osp.join(folder, name, 'log.json'), 'w') as f:
            json.dump(report, f)


if __name__ == '__main__':
    torch.set_num_threads(1)
    for run in sys.argv[2:]:
        train(sys.argv[1], run)
    finish_distributed()
