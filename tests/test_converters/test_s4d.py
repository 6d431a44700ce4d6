# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The authors' checkpoints, there and back, by the command."""

import os.path as osp

import pytest
import s4d_to_mm
import torch
from authors_files import save_finetuning, save_pretraining
from helpers import ROOT

from s4d_mm.converters.s4d import from_authors, to_authors
from s4d_mm.datasets import DFEW, AffectNet


def reference(stage):
    path = osp.join(ROOT, 'tests', 'data', f'{stage}_a.pt')
    return torch.load(path, weights_only=True)['state_dict']


def convert(*args):
    return s4d_to_mm.main([str(arg) for arg in args])


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_there_and_back(stage, tmp_path, capsys):
    theirs = reference(stage)
    src, mid, back = (tmp_path / n for n in ('a.pth', 'b.pth', 'c.pth'))
    torch.save(dict(model=dict(theirs, step_counter=torch.zeros(1)), epoch=3), src)
    assert convert(src, mid, '--stage', stage) == 0
    out = capsys.readouterr().out
    assert '1 keys' in out and '  step_counter' in out
    ours = torch.load(mid, weights_only=True)
    assert ours['meta']['converted_from'] == 'a.pth'
    assert convert(mid, back, '--stage', stage, '--reverse') == 0
    result = torch.load(back, weights_only=True)['model']
    assert set(result) == set(theirs)
    assert all(torch.equal(result[k], theirs[k]) for k in theirs)


def test_the_authors_files_convert_as_they_are(tmp_path):
    for stage, save in (('pretrain', save_pretraining), ('finetune', save_finetuning)):
        src, dst = save(reference(stage), tmp_path / 'a.pth'), tmp_path / 'b.pth'
        assert convert(src, dst, '--stage', stage) == 0
        ours, _ = from_authors(reference(stage), stage)
        result = torch.load(dst, weights_only=True)['state_dict']
        assert set(result) == set(ours)
        assert all(torch.equal(result[k], ours[k]) for k in ours)


def test_classes_of_a_config_go_into_the_checkpoint(tmp_path, capsys):
    src, dst = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save(reference('finetune'), src)
    args = (src, dst, '--stage', 'finetune')
    assert convert(*args) == 0
    assert 'dataset_meta' not in torch.load(dst)['meta']
    configs = osp.join(ROOT, 'configs')
    assert convert(*args, '--config', osp.join(configs, 's4d_finetune_dfew.py')) == 0
    classes = torch.load(dst)['meta']['dataset_meta']['classes']
    names = dict(video=DFEW.METAINFO['classes'], image=AffectNet.METAINFO['classes'][:7])
    assert classes == names
    # of the pre-training there are none
    torch.save(reference('pretrain'), src)
    config = osp.join(configs, 's4d_pretrain.py')
    assert convert(src, dst, '--stage', 'pretrain', '--config', config) == 0
    assert 'dataset_meta' not in torch.load(dst)['meta']


def test_classes_of_another_number_are_refused(tmp_path, capsys):
    torch.save(reference('finetune'), tmp_path / 'a.pth')
    args = [tmp_path / name for name in ('a.pth', 'b.pth')] + ['--stage', 'finetune', '--config']
    assert convert(*args, osp.join(ROOT, 'configs', 's4d_finetune_mafw.py')) == 1
    assert 'video classifier has 7 classes, but the video dataset' in capsys.readouterr().err
    assert not (tmp_path / 'b.pth').exists()
    with pytest.raises(SystemExit):
        convert(*args, tmp_path / 'none.py')


def test_what_the_authors_have_no_place_for_is_listed(tmp_path, capsys):
    ours, _ = from_authors(reference('pretrain'), 'pretrain')
    _, unplaced = to_authors({**ours, 'head.scale': torch.zeros(1)}, 'pretrain')
    assert unplaced == ['head.scale']


@pytest.mark.parametrize(
    'make,match',
    [
        (lambda: dict(model=reference('pretrain')), 'looks like a checkpoint of: authors pretrain'),
        (lambda: dict(weight=torch.zeros(2)), 'not a finetune checkpoint of authors'),
    ],
)
def test_refuses_other_files(tmp_path, make, match, capsys):
    torch.save(make(), tmp_path / 'x.pth')
    assert convert(tmp_path / 'x.pth', tmp_path / 'y.pth', '--stage', 'finetune') == 1
    err = capsys.readouterr().err
    assert err.startswith(f'{tmp_path}/x.pth: ') and match in err
    assert not (tmp_path / 'y.pth').exists()


def test_refuses_the_wrong_direction(tmp_path, capsys):
    torch.save(reference('finetune'), tmp_path / 'x.pth')
    args = (tmp_path / 'x.pth', tmp_path / 'y.pth', '--stage', 'finetune', '--reverse')
    assert convert(*args) == 1
    assert 'looks like a checkpoint of: authors finetune' in capsys.readouterr().err


def test_a_missing_expert_is_refused():
    state = {k: v for k, v in reference('finetune').items() if '.experts.0.fc1.weight' not in k}
    with pytest.raises(ValueError, match=r'incomplete.*fc1_weight.*\[1, 2'):
        from_authors(state, 'finetune')


def test_experts_before_plain_blocks_are_refused():
    state = reference('finetune')
    last = max(int(k.split('.')[1]) for k in state if k.startswith('blocks.'))
    plain = {k: v for k, v in state.items() if not k.startswith(f'blocks.{last}.moe_layer.')}
    with pytest.raises(ValueError, match='Only the last blocks may have MoAE'):
        from_authors(plain, 'finetune')
