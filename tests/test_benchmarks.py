# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The measuring code runs and measures what it says. Nothing here is timed."""

import json

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import data, inference, run, steps, testing, timing


@pytest.mark.parametrize('impl', ['plain', 'ours', 'no_experts'])
@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_step_learns(stage, impl):
    for modality in ('video', 'image'):
        step = steps.build_step(steps.Step(impl, stage, modality, 2, 'tiny', dtype='bfloat16'))
        before = [p.clone() for p in step.model.parameters()]
        step()
        moved = [bool((a != b).any()) for a, b in zip(before, step.model.parameters())]
        assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize('modality', ['video', 'image'])
@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_ours_does_no_more_than_plain(stage, modality):
    ours, plain = (
        timing.count_flops(steps.build_step(steps.Step(impl, stage, modality, 2, 'tiny')))
        for impl in ('ours', 'plain')
    )
    # an image is embedded once, not twice; masked tubelets are not embedded at all
    assert ours <= plain if (stage, modality) == ('finetune', 'video') else ours < 0.9 * plain
    if stage == 'pretrain':
        step = steps.build_step(steps.Step('decoder_masking', stage, modality, 2, 'tiny'))
        assert 0.4 * ours < timing.count_flops(step) < 0.8 * ours


def test_table_of_steps(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(timing, 'matmul_peak', lambda device, dtype: 1e11)
    command = 'steps --arch tiny --stage finetune --modality image --batch 1 --repeats 1'
    run.main([*command.split(), '--no-memory', '--out', str(tmp_path / 'out.json')])
    rows = json.loads((tmp_path / 'out.json').read_text())['rows']
    assert [r['impl'] for r in rows] == ['plain', 'ours', 'no_experts']
    assert rows[0]['ratio'] == rows[2]['to_no_experts'] == 1
    for row in rows:
        assert row['share_of_peak'] == pytest.approx(row['gflop'] / row['median_s'] / 100)
    assert '| finetune | image | 1 | no_experts |' in capsys.readouterr().out


def test_test_protocols_agree():
    """Two views give what the four of the authors' protocol give."""
    rows = testing.measure('tiny', (66, 9), repeats=1)
    assert [(r['clip_frames'], r['impl']) for r in rows] == [
        (frames, impl) for frames in (66, 9) for impl in ('plain', 'ours')
    ]
    assert all(r['difference'] <= 1e-5 for r in rows)


def test_data_pipelines():
    config = f'{steps.CONFIGS}/s4d_pretrain.py'
    rows = data.measure([config], clips=1, repeats=1)
    assert [(r['modality'], r['pipeline']) for r in rows] == [
        (modality, name)
        for modality in ('video', 'image')
        for name in ('raw decoding', 's4d_pretrain.py')
    ]
    assert rows[0]['share_of_raw'] == 1 and rows[1]['per_second'] > 0


def test_operations_by_hand():
    layer, x = nn.Linear(8, 16), torch.randn(4, 8, requires_grad=True)
    product = 2 * 4 * 8 * 16
    assert timing.count_flops(lambda: layer(x).square().sum().backward()) == 3 * product
    q = torch.randn(1, 1, 5, 8)
    assert timing.count_flops(lambda: scaled_dot_product_attention(q, q, q)) == 2 * 2 * 5 * 5 * 8


def test_stages_of_a_prediction():
    rows = inference.measure('tiny', seconds=0.6, repeats=1)
    assert [row['stage'] for row in rows] == [*inference.STAGES, 'all']
    assert sum(row['share'] for row in rows[:-1]) == pytest.approx(1)
    assert rows[-1]['times_real_time'] == pytest.approx(0.6 / rows[-1]['median_s'])
