# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Large models: accumulated gradients, recomputed blocks, sharded training in two processes."""

import copy
import json
import os.path as osp
import re
import socket
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, MODELS, STRATEGIES, init_default_scope
from torch import nn
from torch.utils.checkpoint import checkpoint

from s4d_mm.engine import S4DFSDPStrategy
from s4d_mm.engine.launch import prepare_strategy
from s4d_mm.models.layers import MoAEBlock, TransformerBlock

TINY = dict(embed_dims=24, num_layers=2, num_heads=2)
SIZE = dict(img_size=32, num_frames=4)
OPTIM = dict(
    # not Adam, whose first step hides the gradient's size
    optimizer=dict(type='SGD', lr=0.1)
)


def build(stage, **neck):
    init_default_scope('mmaction')
    name = 's4d_mae_tiny' if stage == 'pretrain' else 's4d_tiny'
    cfg = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'models', f'{name}.py')).model
    cfg.backbone.update(arch=TINY, **SIZE)
    cfg.neck.update(arch=TINY, **neck)
    if stage == 'pretrain':
        cfg.neck.update(in_channels=24, **SIZE)
    else:
        cfg.backbone.depth = 1
        cfg.neck.num_layers = 1
        cfg.cls_head.in_channels = 24
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


VIDEOS = torch.randn(4, 3, 4, 32, 32, generator=torch.manual_seed(1))


def pretrain_losses(model, rows):
    """Pre-training loss of some videos with masks that are fixed."""
    num_tokens = 8
    noise = torch.rand(4, num_tokens, generator=torch.manual_seed(2))
    mask = noise.argsort(dim=1) < 6
    x, mask, ids = model.backbone(VIDEOS[rows], mask[rows])
    pred = model.neck(x, ids)
    return dict(loss=model.head.loss(pred, VIDEOS[rows], mask))


def finetune_losses(model, rows):
    """Losses of the fine-tuning of some videos."""
    x, losses = model.neck(model.backbone(VIDEOS[rows]), data_samples=None)
    scores = model.cls_head(x, 'video')
    labels = torch.tensor([0, 1, 2, 6])[rows]
    return dict(loss_cls=nn.functional.cross_entropy(scores, labels), **losses)


def update(model, losses_of, parts, names):
    """Parameters after one step whose batch is cut into parts."""
    wrapper = build_optim_wrapper(
        model, dict(accumulative_counts=len(parts), **copy.deepcopy(OPTIM))
    )
    wrapper.initialize_count_status(model, 0, len(parts))
    for rows in parts:
        losses = losses_of(model, rows)
        wrapper.update_params(sum(losses[k] for k in names or losses))
    return {k: v.detach().clone() for k, v in model.named_parameters()}


WHOLE, PARTS = [slice(0, 4)], [slice(0, 2), slice(2, 4)]
CASES = {
    'pretrain': (pretrain_losses, {}, None),
    'finetune': (finetune_losses, dict(noisy=False), ['loss_cls']),
}


@pytest.mark.parametrize('stage', CASES)
def test_accumulated_gradients_are_those_of_the_whole_batch(stage):
    losses_of, neck, names = CASES[stage]
    start = dict(build(stage, **neck).named_parameters())
    whole = update(build(stage, **neck), losses_of, WHOLE, names)
    parts = update(build(stage, **neck), losses_of, PARTS, names)
    moved = 0.0
    for name, value in whole.items():
        moved = max(moved, (value - start[name]).abs().max().item())
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-5, msg=name)
    assert moved > 5e-4


def test_load_balance_loss_is_that_of_each_micro_batch():
    """The load-balance loss is a product of two means over the tokens of a
    batch. So accumulation (and data-parallel training) optimises its mean
    over the micro-batches, which is not the loss of the whole batch."""
    model = build('finetune', noisy=False, loss_weight=1.0)

    def balance(rows):
        return finetune_losses(model, rows)['loss_balance']

    def gradient(loss):
        router = model.neck.blocks[0].moae.router.gate.weight
        return torch.autograd.grad(loss, router)[0]

    mean = sum(balance(rows) for rows in PARTS) / len(PARTS)
    assert abs(mean - balance(WHOLE[0])) > 1e-6
    before = model.neck.blocks[0].moae.router.gate.weight.detach().clone()
    expected = before - 0.1 * gradient(mean)
    after = update(model, finetune_losses, PARTS, ['loss_balance'])
    torch.testing.assert_close(after['neck.blocks.0.moae.router.gate.weight'], expected)


def test_recomputed_router_draws_the_same_noise():
    """Recomputing gives the gradients of the noise of the forward pass, and
    leaves the generator where it would have been."""
    torch.manual_seed(0)
    block = MoAEBlock(24, 2, moae=dict(num_experts=4)).train()
    nn.init.normal_(block.moae.router.noise.weight)
    x = torch.randn(2, 16, 24, requires_grad=True)
    grads, nexts = [], []
    for recompute in (False, True):
        torch.manual_seed(3)
        out, balance = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        torch.rand(7)  # other random numbers before the backward pass
        loss = out.square().mean() + balance
        grads.append(torch.autograd.grad(loss, [x, *block.parameters()]))
        nexts.append(torch.rand(3))
    assert torch.equal(*nexts)
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
    # without the same noise they would differ
    torch.manual_seed(4)
    out, balance = block(x)
    other = torch.autograd.grad(out.square().mean() + balance, x)[0]
    assert not torch.allclose(other, grads[0][0])


def test_every_block_is_a_unit():
    wrap = FUNCTIONS.get('wrap_transformer_blocks')
    pre, fine = build('pretrain'), build('finetune')
    units = [
        name
        for model in (pre, fine)
        for name, m in model.named_modules()
        if wrap(module=m, recurse=False, nonwrapped_numel=0)
    ]
    assert len(units) == 2 + 2 + 1 + 1 and all('blocks.' in u for u in units)
    assert all(
        wrap(module=m, recurse=True, nonwrapped_numel=0) for m in (pre, TransformerBlock(8, 2))
    )


@pytest.mark.parametrize(
    'name', ['large/s4d_pretrain_large_fsdp', 'large/s4d_finetune_large_dfew_fsdp']
)
def test_large_configs_build(name):
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f'{name}.py'))
    assert cfg.runner_type == 'FlexibleRunner'
    assert STRATEGIES.get(cfg.strategy.type) is S4DFSDPStrategy
    cfg.launcher = 'pytorch'
    prepare_strategy(cfg)
    assert cfg.strategy.batch_size == cfg.train_dataloader.batch_size
    init_default_scope('mmaction')
    cfg.model.data_preprocessor.pop('blending', None)  # needs numbers
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    encoder = sum(
        p.numel()
        for n, p in model.named_parameters()
        if n.startswith(('backbone.', 'neck.blocks')) and '.moae.' not in n
    )
    assert 302e6 < encoder < 306e6  # ViT-L
    blocks = [m for m in model.modules() if isinstance(m, TransformerBlock)]
    assert len(blocks) == (24 if 'finetune' in name else 28)


def test_strategies_are_refused_where_they_cannot_work():
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'large', 's4d_pretrain_large_fsdp.py'))
    cfg.launcher = 'none'
    with pytest.raises(ValueError, match='needs a launcher'):
        prepare_strategy(cfg)
    cfg.strategy = dict(type='FSDPStrategy')
    cfg.auto_scale_lr.enable = True
    with pytest.raises(ValueError, match='Use the ordinary Runner'):
        prepare_strategy(cfg)


def test_fsdp_refuses_what_it_would_do_wrong():
    """Before it builds anything, so that no process group is needed."""
    strategy = S4DFSDPStrategy.__new__(S4DFSDPStrategy)
    strategy._prepared, strategy.batch_size = False, None
    strategy._auto_scale_lr = dict(enable=True, base_batch_size=8)
    sizes = dict(train_micro_batch_size_per_gpu=dict(video=2, image=4))
    with pytest.raises(ValueError, match='Set strategy.batch_size'):
        strategy.prepare(nn.Identity(), dispatch_kwargs=sizes)
    strategy.batch_size, strategy.skip_init_weights = 4, False
    clip = dict(OPTIM, clip_grad=dict(max_norm=1.0))
    with pytest.raises(ValueError, match="clip_grad={'max_norm': 1.0} is not supported"):
        strategy.prepare(nn.Identity(), optim_wrapper=clip, dispatch_kwargs=sizes)


@pytest.fixture(scope='module')
def sharded(quickstart):
    """Short trainings in two processes: folder, log of each run, and output."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2']
    worker = osp.join(osp.dirname(__file__), 'shard_worker.py')
    done = subprocess.run(
        [*launch, f'--master-port={port}', worker, str(quickstart)],
        text=True,
        timeout=900,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-9000:]
    logs = {p.parent.name: json.loads(p.read_text()) for p in quickstart.glob('*/log.json')}
    return quickstart, logs, done.stdout


def weights(folder, name):
    return torch.load(folder / name, weights_only=True)['state_dict']


def assert_same_losses(one, two):
    assert len(one) == len(two) >= 3
    for a, b in zip(one, two):
        assert b == pytest.approx(a, abs=2e-5)


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_fsdp_trains_like_ddp(stage, sharded):
    """Losses, groups of the optimizer, and the weights in the end.

    Fine-tuning accumulates the gradients of two batches.
    """
    folder, logs, output = sharded
    one, two = logs[f'{stage}_ddp'], logs[f'{stage}_fsdp']
    assert_same_losses(one['rows'][: len(two['rows'])], two['rows'])
    assert two['groups'] == [pytest.approx(g) for g in one['groups']]
    # a process holds half of the parameters (and FSDP pads its shards)
    assert two['held'] < 0.52 * one['held']
    assert {'FullyShardedDataParallel', 'CheckpointWrapper'} <= set(two['classes'])
    of_ddp, of_fsdp = (weights(folder, f'{stage}_{kind}/epoch_1.pth') for kind in ('ddp', 'fsdp'))
    assert list(of_ddp) == list(of_fsdp)
    for name, value in of_ddp.items():
        # AdamW moves by up to lr where the gradient is rounding alone
        assert (of_fsdp[name] - value).abs().mean() < 1e-4, name
    if stage == 'finetune':
        assert 'tensors of the checkpoint found a place in DualModalRecognizer' in output
        assert 'neck.blocks.*.moae.fc1_weight (2)' in output
        assert len({lr for lr, _ in two['groups']}) > 3  # layer decay
        assert {0.0, 0.05} == {decay for _, decay in two['groups']}


def test_fsdp_resumes(sharded):
    """An epoch and, in a new run, another one are two epochs of DDP."""
    folder, logs, _ = sharded
    first, resumed = (logs[name]['rows'] for name in ('pretrain_fsdp', 'pretrain_fsdp_resumed'))
    assert len(first) == len(resumed)
    assert_same_losses(logs['pretrain_ddp']['rows'], first + resumed)
    of_ddp, again = (
        torch.load(folder / name / 'epoch_2.pth', weights_only=True)
        for name in ('pretrain_ddp', 'pretrain_fsdp_resumed')
    )
    assert set(again['optimizer']) == set(of_ddp['optimizer']) > {'state', 'param_groups'}
    steps = {int(s['step']) for s in again['optimizer']['state'].values()}
    assert steps == {again['meta']['iter']} == {2 * len(first)}
    assert again['meta']['epoch'] == 2


def test_summary_counts_shards_whole(sharded):
    _, logs, output = sharded
    of_ddp = [logs[f'{stage}_ddp']['held'] / 1e6 for stage in ('pretrain', 'finetune')]
    counted = re.findall(r', ([\d.]+)M parameters', output)
    assert counted == [f'{n:.2f}' for n, runs in zip(of_ddp, (3, 2)) for _ in range(runs)]


def test_fsdp_weights_load_into_the_ordinary_model(sharded):
    folder, _, _ = sharded
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py'))
    init_default_scope('mmaction')
    model = MODELS.build(cfg.model)
    model.load_state_dict(weights(folder, 'finetune_fsdp/epoch_1.pth'), strict=True)
