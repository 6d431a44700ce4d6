# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One recipe on one process or several: the same losses, each process with its own randomness."""

import os.path as osp

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from processes import run_ranks
from small_models import ARCH, SIZE

from s4d_mm.engine.launch import build_runner

FINETUNE = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')


@pytest.fixture(autouse=True)
def rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # mmengine reads it, also without GPUs


class LossLog(Hook):
    """Keep the loss of each batch."""

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss_cls'].item())


def plain_config(work_dir, counts):
    """The quickstart's fine-tuning by SGD, with nothing random but the order of the samples."""
    cfg = Config.fromfile(FINETUNE)
    pipelines = (cfg.train_pipeline, cfg.image_train_pipeline)
    for pipeline, part in zip(pipelines, ('video', 'image')):
        kept = [t for t in pipeline if t.type not in ('RandomResizedCrop', 'Flip')]
        cfg.train_dataloader.dataset[part].pipeline = kept
    cfg.train_dataloader.dataset.video.pipeline[1].test_mode = True  # the middle of the clip
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = None
    cfg.model.neck.update(noisy=False, loss_weight=0.0)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=counts)
    cfg.param_scheduler = [dict(type='WarmupCosineLR', convert_to_iter_based=True)]
    cfg.merge_from_dict(
        {
            'train_cfg': dict(max_epochs=3, val_interval=9),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_sampler.total_batch_size': dict(video=4, image=8),
            'train_dataloader.sampler.balance': ('image',),
            'default_hooks.checkpoint.interval': -1,
        }
    )
    cfg.work_dir, cfg.launcher = str(work_dir), 'pytorch'
    return cfg


def loss_curve(folder, world_size, counts=1):
    """Mean loss of all batches of each optimizer step."""

    def train():
        runner = build_runner(plain_config(folder / 'run', counts))
        log = LossLog()
        runner.register_hook(log)
        runner.train()
        return log.losses

    folder.mkdir()
    losses = torch.tensor(run_ranks(train, folder, world_size))
    return losses.mean(0).unflatten(0, (-1, counts)).mean(1).tolist()


def test_same_losses_on_any_number_of_processes(quickstart, tmp_path):
    alone = loss_curve(tmp_path / 'one', 1)
    assert len(alone) >= 15
    assert max(alone) - min(alone) > 0.1  # it trains
    for world_size, counts in [(2, 1), (4, 1), (2, 2)]:
        curve = loss_curve(tmp_path / f'{world_size}_{counts}', world_size, counts)
        print(world_size, counts, [round(loss, 5) for loss in curve])
        assert curve == pytest.approx(alone, abs=2e-5)


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
        gates, _, noisy = router(torch.zeros(4, 32))
        found.append([mask.tolist(), labels.tolist(), gates.tolist(), noisy.tolist()])
    return found


def test_processes_draw_their_own_numbers_and_the_same_in_every_run(tmp_path):
    runs = []
    for i, seed in enumerate((3, 3, 4)):
        (tmp_path / str(i)).mkdir()
        runs.append(run_ranks(lambda seed=seed: draws(seed), tmp_path / str(i)))
    first, again, other = runs
    assert first == again
    for stage in range(2):
        for kind in range(4):
            ranks = [rank[stage][kind] for rank in first]
            assert ranks[0] != ranks[1]
            assert ranks[0] != other[0][stage][kind]


@pytest.mark.parametrize('seed', [None, 5])
def test_processes_agree_on_weights_and_on_the_order_of_samples(quickstart, tmp_path, seed):
    """Although their random streams differ from the start."""

    def start():
        cfg = plain_config(tmp_path / 'run', 1)
        cfg.randomness.seed = seed
        runner = build_runner(cfg)
        stream = torch.rand(3).tolist()
        sampler = runner.train_dataloader.batch_sampler
        runner._init_model_weights()
        weights = runner.model.state_dict().values()
        total = sum(float(w.double().abs().sum()) for w in weights)
        return stream, sampler.sampler.seed, total

    folder = tmp_path / 'ranks'
    folder.mkdir()
    (stream, *one), (other, *two) = run_ranks(start, folder)
    assert one == two
    assert stream != other
