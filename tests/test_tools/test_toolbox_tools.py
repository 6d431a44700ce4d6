# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The toolbox's own tools and inferencers on our configs."""

import json
import os.path as osp

import mmengine
import numpy as np
import torch
from helpers import run_script, write_image, write_video
from mmaction.apis import MMAction2Inferencer, inference_recognizer, init_recognizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from runs import FINETUNE, TEST_OPTIONS, UPSTREAM
from small_models import build


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


def scores_of(model, pipeline, path):
    """Scores as tools/test.py computes them."""
    data = Compose(pipeline)(dict(filename=path, label=0, start_index=0, modality='RGB'))
    with torch.no_grad():
        return model.test_step(pseudo_collate([data]))[0].pred_score


def test_mmaction2_inferencers_give_the_scores_of_a_test(tmp_path):
    model, weights = build(Config.fromfile(FINETUNE).model), str(tmp_path / 'epoch_1.pth')
    torch.nn.init.normal_(model.cls_head.classifiers['video'].weight)
    torch.save(dict(state_dict=model.state_dict()), weights)
    clip, image = write_video(tmp_path / 'a.mp4', 60, 80, 80), write_image(tmp_path / 'a.jpg')
    model = init_recognizer(FINETUNE, weights, 'cpu')
    expected = scores_of(model, model.cfg.test_pipeline, clip)
    assert expected.max() > 0.3  # not all the same
    one = MMAction2Inferencer(rec=FINETUNE, rec_weights=weights, device='cpu')
    (found,) = one(clip)['predictions']
    np.testing.assert_allclose(found['rec_scores'][0], expected, atol=1e-6)
    assert found['rec_labels'] == [[expected.argmax().item()]]
    found = inference_recognizer(model, image, Compose(model.cfg.image_test_pipeline))
    expected = scores_of(model, model.cfg.image_test_pipeline, image)
    torch.testing.assert_close(found.pred_score, expected)
