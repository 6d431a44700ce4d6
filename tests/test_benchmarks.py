# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The measuring code runs and measures what it says. Nothing here is timed."""

import json
import subprocess
import sys

import pytest
from helpers import process_env
from runs import TIMEOUT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import predict, run, steps, timing


def flops(case):
    """Operations of matrix products and convolutions."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        case()
    return counter.get_total_flops()


@pytest.mark.parametrize('modality', ['video', 'image'])
@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_steps(stage, modality):
    """They learn, and ours does no more than the plain S4D."""
    counts = {}
    for impl in ('plain', 'ours', 'no_experts' if stage == 'finetune' else 'decoder_masking'):
        step = steps.build_step(impl, stage, modality, 2, 'tiny', dtype='bfloat16')
        before = [w.detach().clone() for w in step.weights]
        counts[impl] = flops(step)
        moved = [bool((a != b).any()) for a, b in zip(before, step.weights)]
        assert sum(moved) > len(moved) / 2
    # an image is embedded once, not twice; masked tubelets are not embedded at all
    limit = 1 if (stage, modality) == ('finetune', 'video') else 0.9
    assert 0 < counts['ours'] <= limit * counts['plain']
    if stage == 'pretrain':
        assert 0.4 * counts['ours'] < counts['decoder_masking'] < 0.8 * counts['ours']


def test_table_of_steps(tmp_path, capsys):
    command = 'steps --arch tiny --stage finetune --modality image --batch 1 --repeats 1'
    run.main([*command.split(), '--out', str(tmp_path / 'out.json')])
    rows = json.loads((tmp_path / 'out.json').read_text())['rows']
    assert [r['impl'] for r in rows] == ['plain', 'ours', 'no_experts']
    assert rows[0]['ratio'] == 1 and rows[1]['ratio'] == rows[0]['min_s'] / rows[1]['min_s']
    assert '| finetune | image | 1 | no_experts |' in capsys.readouterr().out


def test_options_are_the_arguments():
    options = vars(run.parse_args(['s2d', '--clips', '2']))
    assert options == dict(part='s2d', out=None, clips=2, repeats=5)
    assert run.parse_args(['data']).configs == [f'{steps.CONFIGS}/s4d_pretrain.py']
    assert run.parse_args(['data', '--config', 'a.py', 'b.py']).configs == ['a.py', 'b.py']


def test_rounds_are_compared():
    rows = timing.compare(dict(a=lambda: None, b=lambda: None), 3, size=4)
    assert [(r['size'], r['impl']) for r in rows] == [(4, 'a'), (4, 'b')]
    assert timing.summary([2.0, 4.0, 1.0], [4.0, 4.0, 4.0]) == dict(min_s=1, median_s=2, ratio=2)


@pytest.mark.parametrize('frames', [66, 9])
def test_test_protocols_agree(frames):
    """Two views give what the four of the authors' protocol give, but for rounding in resizing."""
    rows = predict.measure_testing('tiny', frames, repeats=1)
    assert [r['impl'] for r in rows] == ['plain', 'ours']
    assert all(r['difference'] <= 1e-4 for r in rows)


def test_data_pipelines(tmp_path):
    """In a process of its own: it sets threads, and decord stands in the way of PyAV."""
    command = f'{sys.executable} {run.__file__} data --clips 1 --repeats 1 --out out.json'
    subprocess.run(command.split(), cwd=tmp_path, env=process_env(), check=True, timeout=TIMEOUT)
    rows = json.loads((tmp_path / 'out.json').read_text())['rows']
    names = [f's4d_pretrain.py, {kind}' for kind in ('mp4', 'frames', 'packed', 'jpg', 'packed')]
    others = ['plain pre-training', 'raw decoding']
    assert [r['pipeline'] for r in rows] == [*names[:3], *others, *names[3:], *others]
    assert rows[3]['times_plain'] == rows[4]['share_of_raw'] == 1 and rows[2]['per_second'] > 0


def test_stages_of_a_prediction():
    rows = predict.measure_inference('tiny', seconds=0.6, repeats=1)
    assert [row['stage'] for row in rows] == ['decode', 'model', 'faces', 'draw', 'all']
    assert sum(row['share'] for row in rows[:-1]) == pytest.approx(1)
    assert rows[-1]['times_real_time'] == pytest.approx(0.6 / rows[-1]['median_s'])
