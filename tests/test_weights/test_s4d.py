# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The S4D authors' checkpoints, there and back, by the command."""

import os.path as osp

import pytest
import s4d_to_mm
import torch
from authors_files import save_finetuning, save_pretraining
from helpers import ROOT

from s4d_mm.datasets import DFEW, AffectNet
from s4d_mm.weights.s4d import from_authors, to_authors

CONFIGS = osp.join(ROOT, 'configs')
SAVE = dict(pretrain=save_pretraining, finetune=save_finetuning)


def reference(stage):
    path = osp.join(ROOT, 'tests', 'data', f'{stage}_a.pt')
    return torch.load(path, weights_only=True)['state_dict']


def convert(*args):
    return s4d_to_mm.main([str(arg) for arg in args])


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_there_and_back(stage, tmp_path, capsys):
    theirs = reference(stage)
    mid, back = tmp_path / 'b.pth', tmp_path / 'c.pth'
    src = SAVE[stage](dict(theirs, step_counter=torch.zeros(1)), tmp_path / 'a.pth')
    assert convert(src, mid, '--stage', stage) == 0
    out = capsys.readouterr().out
    assert '1 keys' in out and '  step_counter' in out
    ours = torch.load(mid, weights_only=True)
    assert ours['meta']['converted_from'] == 'a.pth' and 'dataset_meta' not in ours['meta']
    assert convert(mid, back, '--stage', stage, '--reverse') == 0
    result = torch.load(back, weights_only=True)['model']
    assert set(result) == set(theirs)
    assert all(torch.equal(result[k], theirs[k]) for k in theirs)
    # what the authors have no place for is listed
    ours = {**ours['state_dict'], 'head.scale': torch.zeros(1)}
    assert to_authors(ours, stage)[1] == ['head.scale']


def test_classes_of_a_config_go_into_the_checkpoint(tmp_path, capsys):
    src, dst = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save(reference('finetune'), src)
    args = [src, dst, '--stage', 'finetune', '--config']
    assert convert(*args, osp.join(CONFIGS, 's4d_finetune_mafw.py')) == 1
    assert 'video classifier has 7 classes, but the video dataset' in capsys.readouterr().err
    assert not dst.exists()
    assert convert(*args, osp.join(CONFIGS, 's4d_finetune_dfew.py')) == 0
    classes = torch.load(dst)['meta']['dataset_meta']['classes']
    names = dict(video=DFEW.METAINFO['classes'], image=AffectNet.METAINFO['classes'][:7])
    assert classes == names


@pytest.mark.parametrize(
    'weights, reverse, match',
    [
        (reference('pretrain'), (), 'looks like a pretrain checkpoint of the S4D'),
        (dict(weight=torch.zeros(2)), (), "no checkpoint of the S4D authors' code (finetune)"),
        (reference('finetune'), ('--reverse',), 'looks like a finetune checkpoint of the S4D'),
    ],
)
def test_refuses_other_files(weights, reverse, match, tmp_path, capsys):
    torch.save(weights, tmp_path / 'x.pth')
    args = (tmp_path / 'x.pth', tmp_path / 'y.pth', '--stage', 'finetune', *reverse)
    assert convert(*args) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'{tmp_path}/x.pth: ') and match in err
    assert convert(tmp_path / 'none.pth', *args[1:]) == 1
    assert not (tmp_path / 'y.pth').exists()


def test_experts_that_are_missing_are_refused():
    state = reference('finetune')
    part = {k: v for k, v in state.items() if '.experts.0.fc1.weight' not in k}
    with pytest.raises(ValueError, match=r'incomplete.*fc1_weight.*\[1, 2'):
        from_authors(part, 'finetune')
