# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run by test_sharding.py in two processes: short trainings on the quickstart's drawn faces.

    torchrun --nproc-per-node 2 tests/test_engine/shard_worker.py FOLDER

They run one after the other. FOLDER/RUN gets the checkpoints and, of the first process,
``log.json``.
"""

import json
import os.path as osp
import sys

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed

from s4d_mm.engine.launch import build_runner, finish_distributed

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
PRETRAIN = 'quickstart/s4d_quickstart_pretrain.py'
FINETUNE = 'quickstart/s4d_quickstart_finetune.py'
FINETUNE_OPTIONS = {
    'optim_wrapper.accumulative_counts': 2,
    'load_from': 'pretrain_ddp/epoch_1.pth',
}
RESUME_OPTIONS = {'resume': True, 'load_from': 'pretrain_fsdp/epoch_1.pth'}
# name: config, whether it is sharded, epochs, options
RUNS = {
    'pretrain_ddp': (PRETRAIN, False, 2, {}),
    'pretrain_fsdp': (PRETRAIN, True, 1, {}),
    'pretrain_fsdp_resumed': (PRETRAIN, True, 2, RESUME_OPTIONS),
    'finetune_ddp': (FINETUNE, False, 1, FINETUNE_OPTIONS),
    'finetune_fsdp': (FINETUNE, True, 1, FINETUNE_OPTIONS),
}


class LossLog(Hook):
    """Keep the losses of each iteration; start each epoch from random numbers of its own."""

    def __init__(self):
        self.rows = []

    def before_train_epoch(self, runner):
        set_random_seed(runner.epoch, diff_rank_seed=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rows.append({k: float(v) for k, v in outputs.items() if k.startswith('loss')})


def load_config(folder, name):
    path, sharded, epochs, options = RUNS[name]
    cfg = Config.fromfile(osp.join(ROOT, 'configs', path))
    # groups of their own for what does not decay, and for each layer, as the recipes have them
    paramwise = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
    paramwise['custom_keys'] = {'_bias': dict(decay_mult=0.0)}
    if 'finetune' in path:
        cfg.optim_wrapper.constructor = 'S4DLayerDecayOptimWrapperConstructor'
        paramwise['layer_decay_rate'] = 0.9
    cfg.optim_wrapper.paramwise_cfg = paramwise
    if sharded:
        strategy = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'strategies', 'fsdp.py'))
        cfg.merge_from_dict(strategy._cfg_dict.to_dict())
        cfg.strategy.model_wrapper.mixed_precision = None
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': epochs,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_size': 8,
            'train_dataloader.batch_sampler.batch_size': dict(video=2, image=8),
            'param_scheduler': [],  # that of one epoch would differ from that of two
            'auto_scale_lr': dict(enable=True, base_batch_size=8),
            'work_dir': osp.join(folder, name),
            'experiment_name': name,
            'launcher': 'pytorch',
            **options,
        }
    )
    if cfg.get('load_from'):
        cfg.load_from = osp.join(folder, cfg.load_from)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    return cfg


def train(folder, name):
    runner = build_runner(load_config(folder, name))
    log = LossLog()
    runner.register_hook(log)
    runner.train()
    if runner.rank == 0:
        groups = runner.optim_wrapper.optimizer.param_groups
        report = dict(
            rows=log.rows,
            groups=sorted((g['lr'], g['weight_decay']) for g in groups),
            held=sum(p.numel() for p in runner.model.parameters()),
            classes=sorted({type(m).__name__ for m in runner.model.modules()}),
        )
        with open(osp.join(folder, name, 'log.json'), 'w') as f:
            json.dump(report, f)


if __name__ == '__main__':
    torch.set_num_threads(1)
    for run in RUNS:
        train(sys.argv[1], run)
    finish_distributed()
