# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From files to metrics: the real Runner, tools and configs, on a few drawn faces."""

import csv
import itertools
import json
import re
import socket
import subprocess

import numpy as np
import pytest
import torch
from authors_files import save_finetuning, save_pretraining
from helpers import (
    ROOT,
    make_public_layout,
    process_env,
    read_config,
    run_script,
    without_workers,
)
from mmengine.runner import Runner
from runs import FINETUNE, PRETRAIN, TRAIN_OPTIONS, short_config

from s4d_mm.evaluation.predictions import read_predictions
from s4d_mm.weights.s4d import to_authors

pytestmark = pytest.mark.usefixtures('quickstart')


def run_processes(script, *arguments):
    """Run tools/dist_*.sh as a user does, in the root of the project; its output."""
    with socket.socket() as s:  # a port that nobody uses
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    done = subprocess.run(
        ['bash', f'tools/{script}', *map(str, arguments)],
        cwd=ROOT,
        env=process_env(PORT=port),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-9000:]
    return done.stdout


@pytest.fixture(scope='module')
def pretrained(quickstart):
    """Checkpoint of a pre-training in two processes, and its output."""
    work_dir = quickstart / 'pretrain'
    output = run_processes(
        'dist_train.sh', PRETRAIN, 2, '--work-dir', work_dir, '--cfg-options', *TRAIN_OPTIONS
    )
    return str(work_dir / 'epoch_1.pth'), output


@pytest.fixture(scope='module')
def finetuned(quickstart, pretrained):
    """A fine-tuned checkpoint."""
    work_dir = quickstart / 'finetune'
    cfg = short_config(FINETUNE, work_dir, load_from=pretrained[0])
    Runner.from_cfg(cfg).train()
    return str(work_dir / 'epoch_1.pth')


def test_two_processes_pretrain(pretrained):
    path, output = pretrained
    assert re.search('processes +2, backend gloo', output) or torch.cuda.is_available()
    weights = torch.load(path, weights_only=True)['state_dict']
    assert all(torch.isfinite(v).all() for v in weights.values())
    assert 'backbone.blocks.3.attn.qkv.weight' in weights


def test_finetuning_validates_and_tests(finetuned, tmp_path):
    saved = torch.load(finetuned, weights_only=True)
    assert set(saved['meta']['dataset_meta']['classes']) == {'video', 'image'}
    assert saved['meta']['trained_on'] == 'drawn faces'
    out_csv = str(tmp_path / 'predictions.csv')
    cfg = short_config(
        FINETUNE, tmp_path / 'test', load_from=finetuned, test_evaluator__out_csv=out_csv
    )
    metrics = Runner.from_cfg(cfg).test()
    for modality in ('video', 'image'):
        for name in ('WAR', 'UAR'):
            assert 0 <= metrics[f'{modality}/{name}'] <= 100
    with open(out_csv, newline='') as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 14  # one tester in each modality, 7 expressions
    # WAR again, from the file alone
    video = [r for r in rows if r['modality'] == 'video']
    right = np.mean([r['label'] == r['prediction'] for r in video])
    assert metrics['video/WAR'] == pytest.approx(100 * right)


def test_two_processes_test_like_one(finetuned, quickstart):
    """The same figures and scores, although 14 samples do not go evenly into
    batches of two processes."""
    figures, scores = [], []
    for name, gpus in (('one', []), ('two', [2])):
        work_dir = quickstart / name
        arguments = [FINETUNE, finetuned, *gpus, '--work-dir', work_dir]
        arguments += ['--dump', work_dir / 'out.pkl']
        if gpus:
            run_processes('dist_test.sh', *arguments)
        else:
            run_script('tools/test.py', *arguments)
        found = json.loads(next(work_dir.glob('20*/20*.json')).read_text())
        figures.append({key: value for key, value in found.items() if 'time' not in key})
        dumped = read_predictions(work_dir / 'out.json')
        scores.append({d['sample_id']: d['pred_score'] for d in dumped})
    assert figures[0] == figures[1] and len(scores[0]) == 14
    torch.testing.assert_close(*scores, atol=1e-6, rtol=0)


def test_the_authors_files_are_used_as_they_are(pretrained, finetuned, tmp_path, capsys):
    """Testing gives the figures of the same weights under our names; training starts from them."""
    weights = {s: torch.load(p)['state_dict'] for s, p in (('a', pretrained[0]), ('b', finetuned))}
    pre = save_pretraining(to_authors(weights['a'], 'pretrain')[0], tmp_path / 'pre.pth')
    fine = save_finetuning(to_authors(weights['b'], 'finetune')[0], tmp_path / 'fine.pth')
    figures = [
        Runner.from_cfg(short_config(FINETUNE, tmp_path / str(i), load_from=path)).test()
        for i, path in enumerate((finetuned, fine))
    ]
    assert figures[0]['video/WAR'] == figures[1]['video/WAR']
    assert figures[0]['image/UAR'] == figures[1]['image/UAR']
    capsys.readouterr()
    # a logger of its own: those of two runners within one second are one
    cfg = short_config(FINETUNE, tmp_path, load_from=pre)
    cfg.experiment_name = 'from_the_authors'
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    for ours, theirs in (('backbone.blocks.1', 1), ('neck.blocks.1', 3)):
        name = 'attn.qkv.weight'
        source = weights['a'][f'backbone.blocks.{theirs}.{name}']
        assert torch.equal(runner.model.state_dict()[f'{ours}.{name}'], source)
    assert 'tensors of the checkpoint found a place in DualModalRec' in capsys.readouterr().out


RECIPES = [
    's4d_pretrain',
    's4d_finetune_dfew',
    's4d_finetune_ferv39k',
    's4d_finetune_mafw',
]


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_train_and_test(name, tmp_path, monkeypatch):
    """The recipes on miniatures of their datasets, with a narrow encoder."""
    make_public_layout(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cfg = without_workers(read_config(name))
    narrow = dict(embed_dims=24, num_layers=12, num_heads=2)
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'train_dataloader.batch_sampler.total_batch_size': dict(video=2, image=2),
            'train_dataloader.sampler.share.video': 1.0,
        }
    )
    cfg.model.backbone.arch = narrow
    if 'pretrain' in name:
        cfg.model.neck.in_channels = 24
        cfg.model.neck.arch = dict(embed_dims=24, num_layers=1, num_heads=2)
    else:
        cfg.model.neck.arch = narrow
        cfg.model.cls_head.in_channels = 24
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == len(runner.train_dataloader) >= 2
    if 'pretrain' in name:
        return
    figures = runner.test()
    for kind, name in itertools.product(('video', 'image'), ('WAR', 'UAR')):
        assert 0 <= figures[f'{kind}/{name}'] <= 100
