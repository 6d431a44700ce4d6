# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The toolbox's own tools and instruments on our configs, and the package as
``mim`` finds it."""

import json
import os.path as osp

import mmengine
import torch
from helpers import run_script
from runs import FINETUNE, TEST_OPTIONS, UPSTREAM


def metrics_of(work_dir):
    (file,) = work_dir.glob('20*/20*.json')
    metrics = json.loads(file.read_text())
    return {k: v for k, v in metrics.items() if 'time' not in k}


# ------------------------------------------------------- mmaction2's tools
def test_mmaction2_trains_both_configs(toolbox_run):
    for checkpoint in (toolbox_run.pretrained, toolbox_run.finetuned):
        weights = torch.load(checkpoint, weights_only=True)['state_dict']
        assert all(torch.isfinite(v).all() for v in weights.values())
    assert 'image/WAR' in toolbox_run.finetune_log


def test_mmaction2_tests_as_ours_does(toolbox_run, tmp_path, monkeypatch):
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    arguments = [FINETUNE, toolbox_run.finetuned, '--cfg-options', *TEST_OPTIONS]
    run_script(
        osp.join(UPSTREAM['mmaction'], 'test.py'),
        *arguments,
        '--work-dir',
        tmp_path / 'theirs',
        '--dump',
        tmp_path / 'theirs.pkl',
    )
    run_script(
        'tools/test.py',
        *arguments,
        '--work-dir',
        tmp_path / 'ours',
        '--dump',
        tmp_path / 'ours.pkl',
    )
    theirs = metrics_of(tmp_path / 'theirs')
    assert {'video/WAR', 'image/UAR'} < set(theirs)
    assert theirs == metrics_of(tmp_path / 'ours')
    scores = [
        torch.stack([s['pred_score'] for s in mmengine.load(tmp_path / f'{name}.pkl')])
        for name in ('theirs', 'ours')
    ]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)
