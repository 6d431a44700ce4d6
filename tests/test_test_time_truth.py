# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The scores of a sample are its own: alone, in any batch and order, with workers and processes."""

import copy
import os.path as osp
from glob import glob

import pytest
import torch
from helpers import write_text, write_video
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import FINETUNE, run_ranks

from s4d_mm.apis import ExpressionInferencer
from s4d_mm.engine.launch import build_runner
from s4d_mm.evaluation.predictions import read_predictions


class Truth:
    """A model with weights that tell its inputs apart, its data, and the scores of one run."""

    def __init__(self, folder, data):
        self.folder, self.data = folder, str(data / 'data')
        self.clips = sorted(glob(osp.join(self.data, 'clips', '*')))[:5]
        # too short for a second view
        self.clips += [write_video(folder / f'short{i}.mp4', 9 + 8 * i, 80, 80) for i in range(2)]
        self.images = sorted(glob(osp.join(self.data, 'images', 'test', '*')))[:6]
        cfg = Config.fromfile(FINETUNE)
        init_default_scope('mmaction')
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg.model))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        self.checkpoint = str(folder / 'epoch_1.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), self.checkpoint)
        self.first = self.scores('first', 16)

    def config(self, name, batch, backwards=False, workers=0, launcher='none'):
        cfg = Config.fromfile(FINETUNE)
        loader = cfg.test_dataloader
        loader.update(batch_size=batch, num_workers=workers, persistent_workers=False)
        clips = [osp.splitext(path)[0] for path in self.clips]
        for kind, paths in dict(video=clips, image=self.images).items():
            lines = [f'{path},0' for path in paths[:: -1 if backwards else 1]]
            file = write_text(self.folder / name / f'{kind}.csv', *lines)
            part = loader.dataset[kind]
            part.update(ann_file=file, data_root='')
            part.data_prefix = {key: '' for key in part.data_prefix}
        loader.dataset.pipeline[1].merge_equal = True
        plain = dict(type='PredictionsFile', out_file_path=str(self.folder / name / 'out.json'))
        cfg.test_evaluator = [cfg.test_evaluator, plain]
        work_dir = str(self.folder / name)
        cfg.update(load_from=self.checkpoint, work_dir=work_dir, launcher=launcher)
        return cfg

    def scores(self, name, batch, **settings):
        build_runner(self.config(name, batch, **settings)).test()
        return self.read(name)

    def read(self, name):
        samples = read_predictions(str(self.folder / name / 'out.json'))
        return {osp.basename(s['sample_id']): torch.as_tensor(s['pred_score']) for s in samples}

    def check(self, scores):
        assert set(scores) == set(self.first) and len(scores) == 13
        for name, expected in self.first.items():
            torch.testing.assert_close(scores[name], expected, atol=1e-6, rtol=0)


@pytest.fixture(scope='module')
def truth(quickstart_data, tmp_path_factory):
    return Truth(tmp_path_factory.mktemp('truth'), quickstart_data)


@pytest.mark.parametrize('batch, backwards, workers', [(1, False, 0), (4, True, 2)])
def test_batch_order_and_workers(batch, backwards, workers, truth):
    values = torch.stack(list(truth.first.values()))
    distances = torch.cdist(values, values) + torch.eye(len(values))
    assert distances.min() > 1e-5  # so that a mix-up would show
    truth.check(truth.scores(str(batch), batch, backwards=backwards, workers=workers))


def test_two_processes(truth, tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # as there is no launcher
    (truth.folder / 'two').mkdir()

    def rank():
        build_runner(truth.config('two', 3, launcher='pytorch')).test()

    run_ranks(rank, tmp_path)
    truth.check(truth.read('two'))


def test_prediction(truth):
    inferencer = ExpressionInferencer(FINETUNE, truth.checkpoint, 'cpu', show_progress=False)
    scores = {}
    for path in [*truth.clips, *truth.images]:
        stem, suffix = osp.splitext(osp.basename(path))
        # the windows of a clip of up to two windows are the views of the test
        names = inferencer.scorer.classes['video' if suffix == '.mp4' else 'image']
        found = inferencer(path, faces='none')
        windows = [[r.probabilities[name] for name in names] for r in found]
        scores[stem if suffix == '.mp4' else stem + suffix] = torch.tensor(windows).mean(dim=0)
    truth.check(scores)
