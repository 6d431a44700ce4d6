# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The files that a clip passes, from its line in a list to WAR."""

import os
import os.path as osp
import re
import sys

import torch
from helpers import ROOT, read_config, write_text, write_video
from mmengine.logging import MMLogger
from mmengine.registry import METRICS, MODELS, init_default_scope
from mmengine.runner import Runner


def own_file(frame):
    path = frame.f_code.co_filename
    folder = osp.join(ROOT, 's4d_mm') + os.sep
    return path[len(folder) :] if path.startswith(folder) else None


class Calls:
    """Each call into the package: the file of the package that calls, and the one called."""

    def __enter__(self):
        self.pairs = []
        sys.setprofile(self.note)
        return self

    def note(self, frame, event, _):
        called = own_file(frame) if event == 'call' else None
        if called is None:
            return
        frame = frame.f_back
        while frame is not None and own_file(frame) is None:
            frame = frame.f_back
        self.pairs.append((frame and own_file(frame), called))

    def __exit__(self, *error):
        sys.setprofile(None)


def test_files_that_a_clip_passes(tmp_path):
    """From its line in DFEW's test list to WAR: those of docs/data_flow.md, in this order."""
    write_video(tmp_path / '00007.mp4', 90, 80, 80)
    write_text(tmp_path / 'test.csv', '00007,1')
    cfg = read_config('quickstart/s4d_quickstart_finetune')
    init_default_scope('mmaction')
    MMLogger.get_instance('clip')  # others may have filters of the package
    clips = dict(
        type='DFEW',
        ann_file='test.csv',
        data_root=str(tmp_path),
        suffix='.mp4',
        pipeline=cfg.test_pipeline,
        test_mode=True,
    )
    joint = dict(type='DualModalDataset', video=clips, modalities=('video',))
    loader = dict(cfg.test_dataloader, dataset=joint, num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader, seed=0)
    model = MODELS.build(cfg.model).eval()
    metric = METRICS.build(dict(type='ExpressionMetric'))
    metric.dataset_meta = loader.dataset.metainfo
    with Calls() as calls, torch.no_grad():
        assert len(loader.dataset.datasets[0].load_data_list()) == 1
        for batch in loader:
            outputs = model.test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in outputs])
        assert 'WAR' in metric.evaluate(1)
    passed = list(dict.fromkeys(called for _, called in calls.pairs))
    with open(osp.join(ROOT, 'docs', 'data_flow.md'), encoding='utf-8') as f:
        section = f.read().split('## The files that a clip passes')[1].split('\n## ')[0]
    assert passed == re.findall(r'^\d+\. `(\S+\.py)`', section, re.M) and len(passed) <= 14
    # no turn back in the data half: no file calls one that stands before it
    data = passed[: passed.index('models/preprocessor.py')]
    back = {(a, b) for a, b in calls.pairs if a in data and b in data}
    assert all(data.index(a) <= data.index(b) for a, b in back), back
