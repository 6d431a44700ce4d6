# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The model that the benchmarks compare with computes what ours computes and
what the authors' code computed; the measuring code runs. Nothing here is
timed."""

import functools
import glob
import os.path as osp
import sys

import pytest
import torch
from helpers import ROOT

from benchmarks import (
    data_pipeline,
    memory_workers,
    moae_layer,
    plain_s4d,
    scaling,
    scaling_plan,
    steps,
    targets,
    testing,
    timing,
)
from benchmarks.flops import embed_flops, step_flops, tokens_of
from s4d_mm.converters.s4d import to_authors

TOLERANCE = 1e-5
FRAMES = 4
PEAKS = dict(float32=1e11, bfloat16=1e11)


def assert_close(a: torch.Tensor, b: torch.Tensor, name: str = '') -> None:
    assert a.shape == b.shape, name
    error = (a - b).abs().max().item()
    assert error <= TOLERANCE, f'{name} differs by {error:.1e}'


def assert_same_gradients(plain, ours, stage: str) -> None:
    grads, unplaced = to_authors({k: p.grad for k, p in ours.named_parameters()}, stage)
    assert unplaced == []
    own = dict(plain.named_parameters())
    assert set(own) == set(grads)
    for name, param in own.items():
        grad = torch.zeros_like(param) if param.grad is None else param.grad
        assert_close(grad, grads[name], name)


def both_models(stage: str, experts: int = 4):
    """Ours and PlainS4D, tiny, with the same weights."""
    torch.manual_seed(0)
    ours = steps.build_model(steps.our_config(stage, 'tiny', FRAMES, experts)).train()
    for param in ours.parameters():  # also where the initial value is zero
        param.data += 0.02 * torch.randn_like(param)
    size, decoder = plain_s4d.SIZES['tiny']
    if stage == 'pretrain':
        plain = plain_s4d.PlainS4DPretrain(size, decoder, num_frames=FRAMES)
    else:
        plain = plain_s4d.PlainS4D(size, size[1] // 2, experts, num_frames=FRAMES)
    plain_s4d.load_from_s4d_mm(plain, ours.state_dict())
    return ours, plain.train()


def random_input(modality: str, batch: int = 2) -> torch.Tensor:
    frames = (FRAMES,) if modality == 'video' else ()
    return torch.randn(batch, 3, *frames, 160, 160)


@pytest.mark.parametrize('modality', ['video', 'image'])
def test_plain_pretraining_is_ours(modality):
    ours, plain = both_models('pretrain')
    x = random_input(modality)
    mask = plain_s4d.random_masks(2, tokens_of(modality, FRAMES), steps.MASK_RATIO[modality])
    latent, float_mask, ids = ours.backbone(x, mask)
    our_loss = ours.head.loss(ours.neck(latent, ids), x, float_mask)
    plain_loss = plain.loss(x, mask)
    assert_close(plain_loss, our_loss)
    our_loss.backward()
    plain_loss.backward()
    assert_same_gradients(plain, ours, 'pretrain')


@pytest.mark.parametrize('modality', ['video', 'image'])
def test_plain_fine_tuning_is_ours(modality, monkeypatch):
    monkeypatch.setattr(torch, 'randn_like', torch.zeros_like)  # router noise
    ours, plain = both_models('finetune')
    x = random_input(modality)
    tokens, losses = ours.neck(ours.backbone(x))
    our_scores = ours.cls_head(tokens, input_types=modality)
    plain_scores, balance = plain(x)
    assert_close(plain_scores, our_scores)
    assert_close(1e-3 * balance, losses['loss_balance'])
    target = torch.rand(2, 7)
    for scores, extra in ((our_scores, losses['loss_balance']), (plain_scores, 1e-3 * balance)):
        (
            -(target * scores.log_softmax(-1)).sum(-1).mean()
            + extra
            + sum(0.0 * p.sum() for p in ours.parameters())
        ).backward()
    assert_same_gradients(plain, ours, 'finetune')


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_plain_is_the_authors(stage):
    (path,) = glob.glob(osp.join(ROOT, 'tests', 'data', f'{stage}_*.pt'))
    ref = torch.load(path, weights_only=True)
    arch = ref['arch']
    size = arch['dim'], arch['depth'], arch['heads']
    if stage == 'pretrain':
        model = plain_s4d.PlainS4DPretrain(
            size, (arch['ddim'], arch['ddepth'], arch['dheads']), arch['img']
        )
    else:
        model = plain_s4d.PlainS4D(
            size,
            len(arch['layers']),
            arch['E'],
            arch['k'],
            dict(video=arch['nvid'], image=arch['nimg']),
            arch['img'],
        )
    model.load_state_dict(ref['state_dict'])
    model.eval()
    for kind in ('video', 'image'):
        with torch.no_grad():
            if stage == 'pretrain':
                mask = ref[f'{kind}_mask']
                assert_close(model(ref[kind], mask), ref[f'{kind}_pred'])
                assert_close(model.loss(ref[kind], mask), ref[f'{kind}_loss'])
            else:
                assert_close(model(ref[kind])[0], ref[f'{kind}_logits'])


@pytest.mark.parametrize('modality', ['video', 'image'])
@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_flops_by_hand(stage, modality):
    """PlainS4D does what is needed, and what flops.py says is not."""
    batch, tokens = 2, tokens_of(modality, FRAMES)
    (dim, *_), (ddim, *_) = plain_s4d.SIZES['tiny']
    step = steps.Step('plain', stage, modality, batch, 'tiny', frames=FRAMES)
    counted = timing.count_flops(steps.build_step(step))
    needed = step_flops(stage, modality, batch, 'tiny', FRAMES)
    masked = int(steps.MASK_RATIO[modality] * tokens)
    if stage == 'finetune':
        embedded, more = tokens, 0
    else:
        embedded = tokens - masked
        more = 3 * 2 * batch * (tokens - masked) * ddim * 1536
    more += 2 * (
        embed_flops(batch, tokens, 'video', dim) - embed_flops(batch, embedded, modality, dim)
    )
    assert counted == needed + more


@pytest.mark.parametrize('impl', ['ours', 'no_moae'])
@pytest.mark.parametrize('modality', ['video', 'image'])
def test_ours_does_what_is_needed(modality, impl):
    """No more products than the equations ask for."""
    step = steps.Step(impl, 'finetune', modality, 2, 'tiny', frames=FRAMES)
    counted = timing.count_flops(steps.build_step(step))
    assert counted == step_flops('finetune', modality, 2, 'tiny', FRAMES, moae=impl == 'ours')


@pytest.mark.parametrize('impl', ['plain', 'ours', 'no_moae', 'in_backward'])
@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_step_learns(stage, impl):
    for modality in ('video', 'image'):
        run = steps.build_step(
            steps.Step(
                impl, stage, modality, 2, 'tiny', frames=FRAMES, pixels='uint8', dtype='bfloat16'
            )
        )
        before = [p.clone() for p in run.model.parameters()]
        run()
        moved = [(a != b).any() for a, b in zip(before, run.model.parameters())]
        assert sum(moved) > len(moved) / 2


def test_measurements_have_rows():
    options = dict(repeats=1, warmup=0, memory=False, arch='tiny')
    rows = steps.measure(
        'finetune',
        'video',
        PEAKS,
        batch=1,
        impls=('plain', 'ours', 'no_moae'),
        frames=FRAMES,
        **options,
    )
    assert [r['impl'] for r in rows] == ['plain', 'ours', 'no_moae']
    assert rows[0]['ratio'] == 1 and all(r['share_of_peak'] > 0 for r in rows)
    rows = scaling.measure(PEAKS, frames=(2, 4), experts=(2,), batch=(1,), **options)
    assert len(rows) == 8
    rows = moae_layer.measure((2,), 16, repeats=1, warmup=0, dim=16)
    assert rows[0]['loop_ratio'] > 0


def test_scaling_stops_at_the_memory_limit(monkeypatch):
    monkeypatch.setattr(
        steps,
        'measure',
        lambda *args, batch=1, **kwargs: [
            dict.fromkeys(('impl', 'seconds', 'spread', 'ratio', 'share_of_peak', 'memory_ratio'))
            | dict(peak_gib=batch)
        ],
    )
    rows = scaling.measure(PEAKS, frames=(), experts=(), batch=(1, 2, 4, 8), memory_limit_gib=4.0)
    assert [r['value'] for r in rows] == [1, 2, 4, 8]
    assert '8.0 GiB' in rows[-1]['impl']


def test_test_protocols_agree():
    """Two views give what the four of the authors' protocol give."""
    rows, difference = testing.measure('tiny', (66, 9), repeats=1, warmup=0)
    assert difference <= TOLERANCE
    assert len(rows) == 4


def test_data_pipelines():
    rows = data_pipeline.measure(clips=1, images=1, num_frames=66, repeats=1, warmup=0)
    assert {(r['modality'], r['impl']) for r in rows} == {
        (m, i) for m in ('video', 'image') for i in ('raw', 'plain', 'ours')
    }


def test_workers_report_their_memory():
    found = memory_workers.run_workers(lines=50, workers=2, reads=10, serialize=True)
    assert len(found['workers']) == 2
    assert all(0 < w['uss'] <= w['pss'] <= w['rss'] for w in found['workers'])


def test_peak_memory_of_a_fresh_process():
    size = 2**26  # float32
    peak = timing.peak_memory(functools.partial, torch.ones, size)
    # a baseline that shrinks a little takes some pages off
    assert 3.9 * size <= peak < 4 * size + 2**26
    with pytest.raises(RuntimeError, match='boom'):
        timing.peak_memory(functools.partial, exec, 'raise ValueError("boom")')


def test_interleaving():
    order = []
    times = timing.interleave(dict(a=lambda: order.append('a'), b=lambda: order.append('b')), 2, 1)
    assert ''.join(order) == 'abbaab'
    assert len(times['a'].seconds) == len(times['b'].seconds) == 2
    assert timing.median_ratio(timing.Times([2.0, 6.0, 4.0]), timing.Times([1.0, 2.0, 4.0])) == 2


def test_targets():
    """Each finds its figure, and compares in the right direction."""
    where = dict(device='cpu', dtype='float32', arch='base', against='plain float32')
    results = dict(
        steps=[
            dict(
                where,
                stage='finetune',
                modality='video',
                impl='ours',
                ratio=1.2,
                over_no_moae=1.05,
                memory_ratio=0.8,
            ),
            dict(
                where,
                stage='finetune',
                modality='video',
                impl='no_moae',
                ratio=1.26,
                memory_ratio=0.7,
            ),
        ]
    )
    rows = {r['target']: r for r in targets.target_rows(results)}
    assert len(rows) == len(targets.TARGETS)
    assert rows['fine-tuning step, video, ratio']['met'] is True
    share = rows['MoAE, share added to the fine-tuning step, video']
    assert share['measured'] == pytest.approx(0.05) and share['met'] is True
    assert rows['peak memory of fine-tuning, ratio, video']['met'] is False
    assert rows['testing, ratio']['met'] == 'not measured'
    assert 'not measured' in timing.table(list(rows.values()))


def test_scaling_plan(monkeypatch, capsys):
    """Of a small model, with what it measures itself."""
    config = osp.join(ROOT, 'configs', 's4d_quickstart_pretrain_fsdp.py')
    monkeypatch.setattr(scaling_plan, 'measure_matmul_peak', lambda: 1e11)
    monkeypatch.setattr(
        sys,
        'argv',
        ['scaling_plan.py', '--config', config, '--gpus', '8', '--measure', '--measure-batch', '2'],
    )
    scaling_plan.main()
    rows = {
        cells[0]: [float(c.replace(',', '')) for c in cells[1:] if c]
        for cells in (
            [c.strip() for c in line.strip('|').split('|')]
            for line in capsys.readouterr().out.splitlines()
            if line.startswith('|')
        )
        if cells[-1][:1].isdigit()
    }
    flops = rows['GFLOP of a sample, forward and backward']
    kept = rows['MiB that a sample keeps']
    recomputed = rows['... with recomputed blocks']  # the later table's
    assert flops[0] > flops[1] > 0
    assert kept[0] > recomputed[0] > 0 and kept[1] > recomputed[1] > 0
    assert {'DDP, autocast', 'FSDP, bfloat16', 'video', 'image'} <= set(rows)
