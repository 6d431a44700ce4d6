# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The authors' files in our models, by mmengine's own loading; other files as they are."""

import argparse
import copy
import subprocess
import sys

import pytest
import torch
from authors_files import save_finetuning, save_pretraining
from mmengine.runner import CheckpointLoader, load_checkpoint
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.converters.authors import as_own_checkpoint
from s4d_mm.converters.s4d import to_authors


@pytest.fixture(scope='module')
def pretrained():
    return build(PRETRAIN, seed=3)


@pytest.fixture(scope='module')
def theirs(pretrained):
    return to_authors(pretrained.state_dict(), 'pretrain')[0]


def equal(one, two):
    return set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


def test_a_finetuned_file_of_the_authors_is_a_whole_model(tmp_path):
    model = build(FINETUNE, seed=3)
    theirs, _ = to_authors(model.state_dict(), 'finetune')
    path = save_finetuning(theirs, tmp_path / 'x.pth')
    fine = build(FINETUNE, seed=4)
    load_checkpoint(fine, path, map_location='cpu', strict=True)
    assert equal(fine.state_dict(), model.state_dict())
    # the neck alone takes its own part of it, the backbone the other
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    parts = build(cfg, seed=5)
    for part in ('backbone', 'neck'):
        assert equal(getattr(parts, part).state_dict(), getattr(model, part).state_dict())


def test_a_pretrained_file_of_the_authors_is_a_start(pretrained, theirs, tmp_path):
    path = save_pretraining(theirs, tmp_path / 'x.pth')
    again = build(PRETRAIN, seed=4)
    load_checkpoint(again, path, strict=True)
    assert equal(again.state_dict(), pretrained.state_dict())

    def check(model):
        for i in range(4):
            block = model.backbone.blocks[i] if i < 2 else model.neck.blocks[i - 2]
            expected = pretrained.backbone.blocks[i].state_dict()
            ours = {k: v for k, v in block.state_dict().items() if not k.startswith('moae.')}
            assert equal(ours, expected)

    fine = build(FINETUNE, seed=5)
    load_checkpoint(fine, path)
    check(fine)
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    check(build(cfg))


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(model=weights, epoch=1)])
def test_bare_weights(pretrained, theirs, wrap, prefix, tmp_path):
    torch.save(wrap({prefix + k: v for k, v in theirs.items()}), tmp_path / 'x.pth')
    model = build(PRETRAIN, seed=4)
    load_checkpoint(model, str(tmp_path / 'x.pth'), strict=True)
    assert equal(model.state_dict(), pretrained.state_dict())


def test_without_the_guard_where_torch_reads_the_file(pretrained, theirs, tmp_path):
    """In a process of its own, as mmaction2's tools have it."""
    torch.save(dict(model=theirs), tmp_path / 'theirs.pth')
    torch.save(pretrained.state_dict(), tmp_path / 'ours.pth')
    code = (
        'import sys, torch, s4d_mm; from small_models import PRETRAIN, build; '
        'from mmengine.runner import load_checkpoint; '
        'model, own = build(PRETRAIN), torch.load(sys.argv[2]); '
        'load_checkpoint(model, sys.argv[1], strict=True); '
        'assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items()); '
        'assert "s4d_mm.guard" not in sys.modules'
    )
    files = [str(tmp_path / name) for name in ('theirs.pth', 'ours.pth')]
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *files], check=True, cwd='tests')


def test_what_has_no_place_keeps_its_name(pretrained, theirs):
    read = as_own_checkpoint(dict(model=dict(theirs, counter=torch.ones(1)), epoch=3))
    assert set(read['state_dict']) == {*pretrained.state_dict(), 'counter'}
    assert read['epoch'] == 3


def test_checkpoints_of_mmengine_stay_as_they_are(pretrained):
    content = dict(state_dict=pretrained.state_dict(), meta=dict(epoch=3), message_hub=dict(x=1))
    assert as_own_checkpoint(content) is content
    # and so does what is no weights at all
    assert as_own_checkpoint(dict(epoch=3)) == dict(epoch=3)


@pytest.mark.parametrize('wrap', ['model', 'module', None])
def test_files_of_others_are_read_unchanged(wrap, tmp_path):
    """A plain ViT with ``fc_norm`` has the authors' first names, and another classifier."""
    weights = {
        'patch_embed.proj.weight': torch.zeros(8, 3, 16, 16),
        'fc_norm.weight': torch.zeros(8),
        'head.weight': torch.zeros(5, 8),
    }
    content = {wrap: weights, 'epoch': 3} if wrap else weights
    torch.save(dict(content, args=argparse.Namespace(lr=1)), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))
    assert set(read) == {*content, 'args'}
    assert equal(read[wrap] if wrap else {k: read[k] for k in weights}, weights)
    assert equal(as_own_checkpoint(content)['state_dict'], weights)


def test_the_device_is_passed_on(tmp_path):
    torch.save(dict(model=dict(a=torch.ones(1))), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'meta')
    assert read['model']['a'].device.type == 'meta'
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*none.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))
