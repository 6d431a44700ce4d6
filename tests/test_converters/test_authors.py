# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""mmengine's loading of files as they are, also the authors'."""

import copy

import pytest
import torch
from authors_files import save_finetuning, save_pretraining
from mmengine.runner import CheckpointLoader, load_checkpoint
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.converters.s4d import to_authors


@pytest.fixture(scope='module')
def pretrained():
    return build(PRETRAIN, seed=3)


def equal(one, two):
    return set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


def test_a_finetuned_file_of_the_authors_is_a_whole_model(tmp_path):
    model = build(FINETUNE, seed=3)
    theirs, _ = to_authors(model.state_dict(), 'finetune')
    path = save_finetuning(theirs, tmp_path / 'x.pth')
    fine = build(FINETUNE, seed=4)
    loaded = load_checkpoint(fine, path, map_location='cpu', strict=True)
    assert equal(fine.state_dict(), model.state_dict())
    assert loaded['meta']['converted_from'] == 'x.pth'


def test_a_pretrained_file_of_the_authors_is_a_start(pretrained, tmp_path):
    theirs, _ = to_authors(pretrained.state_dict(), 'pretrain')
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
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    check(build(cfg))


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(model=weights, epoch=1)])
def test_bare_weights(pretrained, wrap, prefix, tmp_path):
    theirs, _ = to_authors(pretrained.state_dict(), 'pretrain')
    torch.save(wrap({prefix + k: v for k, v in theirs.items()}), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu')
    assert equal(read['state_dict'], pretrained.state_dict())


def test_what_has_no_place_keeps_its_name(pretrained, tmp_path):
    theirs, _ = to_authors(pretrained.state_dict(), 'pretrain')
    torch.save(dict(model=dict(theirs, counter=torch.ones(1))), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))
    assert set(read['state_dict']) == {*pretrained.state_dict(), 'counter'}


def test_checkpoints_of_mmengine_come_as_they_are(pretrained, tmp_path):
    content = dict(
        state_dict=pretrained.state_dict(),
        meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b'))),
        message_hub=dict(x=1),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
    )
    torch.save(content, tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu')
    assert equal(read.pop('state_dict'), content.pop('state_dict'))
    assert read == content
    # and so does what is no weights at all
    torch.save(dict(epoch=3), tmp_path / 'y.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'y.pth')) == dict(epoch=3)


def test_weights_of_others_are_found_but_not_renamed(tmp_path):
    """A plain ViT with ``fc_norm`` has the authors' first names, and another classifier."""
    weights = {
        'patch_embed.proj.weight': torch.zeros(8, 3, 16, 16),
        'fc_norm.weight': torch.zeros(8),
        'head.weight': torch.zeros(5, 8),
    }
    torch.save(dict(model=weights), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))
    assert equal(read['state_dict'], weights)


def test_the_device_is_passed_on(pretrained, tmp_path):
    torch.save(dict(model=dict(a=torch.ones(1))), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'meta')
    assert read['state_dict']['a'].device.type == 'meta'
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*none.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))
