# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The toolbox's own tools on our configs."""

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


def test_mmaction2_tests_as_ours_does(toolbox_run, tmp_path, monkeypatch):
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    arguments = [FINETUNE, toolbox_run.finetuned, '--cfg-options', *TEST_OPTIONS]
    tools = dict(theirs=osp.join(UPSTREAM['mmaction'], 'test.py'), ours='tools/test.py')
    for name, tool in tools.items():
        files = ('--work-dir', tmp_path / name, '--dump', tmp_path / f'{name}.pkl')
        run_script(tool, *arguments, *files)
    theirs = metrics_of(tmp_path / 'theirs')
    assert {'video/WAR', 'image/UAR'} < set(theirs)
    assert theirs == metrics_of(tmp_path / 'ours')
    scores = [
        torch.stack([s['pred_score'] for s in mmengine.load(tmp_path / f'{name}.pkl')])
        for name in ('theirs', 'ours')
    ]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)
