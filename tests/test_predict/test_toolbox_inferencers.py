# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The toolbox's own inferencers on our configs: those that work, and what the others say."""

import os.path as osp

import numpy as np
import pytest
import torch
from helpers import ROOT, write_image, write_video
from mmaction.apis import MMAction2Inferencer, inference_recognizer, init_recognizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from small_models import build

JOINT = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')


@pytest.fixture
def files(tmp_path):
    """A clip, an image, and weights of the quickstart's model."""
    model = build(Config.fromfile(JOINT).model)
    torch.nn.init.normal_(model.cls_head.classifiers['video'].weight)
    weights = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=model.state_dict()), weights)
    clip = write_video(tmp_path / 'clip.mp4', 60, 80, 80)
    return clip, write_image(tmp_path / 'face.jpg'), weights


def scores_of(model, pipeline, path):
    """Scores as tools/test.py computes them."""
    data = Compose(pipeline)(dict(filename=path, label=0, start_index=0, modality='RGB'))
    with torch.no_grad():
        return model.test_step(pseudo_collate([data]))[0].pred_score


def test_mmaction2_inferencers_give_the_scores_of_a_test(files):
    clip, image, weights = files
    model = init_recognizer(JOINT, weights, 'cpu')
    expected = scores_of(model, model.cfg.test_pipeline, clip)
    assert expected.max() > 0.3  # not all the same

    one = MMAction2Inferencer(rec=JOINT, rec_weights=weights, device='cpu')
    (found,) = one(clip)['predictions']
    np.testing.assert_allclose(found['rec_scores'][0], expected, atol=1e-6)
    assert found['rec_labels'] == [[expected.argmax().item()]]

    steps = Compose(model.cfg.image_test_pipeline)
    torch.testing.assert_close(
        inference_recognizer(model, image, steps).pred_score,
        scores_of(model, model.cfg.image_test_pipeline, image),
    )
