# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoints in our models, by mmengine's loading: the authors' as they are, and what fits."""

import argparse
import copy
import logging

import pytest
import torch
from authors_files import save_finetuning, save_pretraining
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.files.errors import WeightsError
from s4d_mm.models.state_dict import as_own_checkpoint, check_fit, first_not_finite
from s4d_mm.weights.s4d import to_authors


@pytest.fixture(scope='module')
def pretrained():
    return build(PRETRAIN, seed=3)


@pytest.fixture(scope='module')
def theirs(pretrained):
    return to_authors(pretrained.state_dict(), 'pretrain')[0]


@pytest.fixture(scope='module')
def fine():
    return build(FINETUNE)


def equal(one, two):
    return set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


def with_init(path, *parts, **more):
    cfg = copy.deepcopy(FINETUNE)
    for part in parts:
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=str(path), **more)
    return cfg


# -------------------------------------------------------- files of the authors
def test_a_finetuned_file_of_the_authors_is_a_whole_model(tmp_path):
    model = build(FINETUNE, seed=3)
    path = save_finetuning(to_authors(model.state_dict(), 'finetune')[0], tmp_path / 'x.pth')
    fine = build(FINETUNE, seed=4)
    load_checkpoint(fine, path, map_location='cpu', strict=True)
    assert equal(fine.state_dict(), model.state_dict())
    # the neck alone takes its own part of it, the backbone the other
    parts = build(with_init(path, 'backbone', 'neck'), seed=5)
    for part in ('backbone', 'neck'):
        assert equal(getattr(parts, part).state_dict(), getattr(model, part).state_dict())


@pytest.mark.parametrize('authors', [True, False])
def test_a_pretrained_file_is_a_start(authors, pretrained, theirs, tmp_path):
    path, options = str(tmp_path / 'x.pth'), {} if authors else dict(prefix='backbone.')
    if authors:
        save_pretraining(theirs, path)
    else:
        torch.save(dict(state_dict=pretrained.state_dict(), meta={}), path)
    fine = build(FINETUNE, seed=5)
    load_checkpoint(fine, path, map_location='cpu')
    for model in (fine, build(with_init(path, 'backbone', 'neck', **options))):
        assert equal(
            model.backbone.patch_embed.state_dict(), pretrained.backbone.patch_embed.state_dict()
        )
        for i in range(4):
            block = model.backbone.blocks[i] if i < 2 else model.neck.blocks[i - 2]
            ours = {k: v for k, v in block.state_dict().items() if not k.startswith('moae.')}
            assert equal(ours, pretrained.backbone.blocks[i].state_dict())


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(model=weights, epoch=1)])
def test_bare_weights(pretrained, theirs, wrap, prefix, tmp_path):
    torch.save(wrap({prefix + k: v for k, v in theirs.items()}), tmp_path / 'x.pth')
    model = build(PRETRAIN, seed=4)
    load_checkpoint(model, str(tmp_path / 'x.pth'), strict=True)
    assert equal(model.state_dict(), pretrained.state_dict())


def test_as_a_checkpoint_of_mmengine(pretrained, theirs):
    """What has no place keeps its name; mmengine's own stay as they are."""
    read = as_own_checkpoint(dict(model=dict(theirs, counter=torch.ones(1)), epoch=3))
    assert set(read['state_dict']) == {*pretrained.state_dict(), 'counter'}
    assert read['epoch'] == 3
    content = dict(state_dict=pretrained.state_dict(), meta=dict(epoch=3), message_hub=dict(x=1))
    assert as_own_checkpoint(content) is content
    assert as_own_checkpoint(dict(epoch=3)) == dict(epoch=3)


def test_files_of_others_are_read_unchanged(tmp_path):
    """A plain ViT with ``fc_norm`` has the authors' first names, and another classifier."""
    weights = {
        'patch_embed.proj.weight': torch.zeros(8, 3, 16, 16),
        'fc_norm.weight': torch.zeros(8),
        'head.weight': torch.zeros(5, 8),
    }
    content = dict(model=weights, epoch=3)
    torch.save(dict(content, args=argparse.Namespace(lr=1)), tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'meta')
    assert set(read) == {*content, 'args'}
    assert read['model']['fc_norm.weight'].device.type == 'meta'
    assert equal(as_own_checkpoint(content)['state_dict'], weights)


# ------------------------------------------------------------------ what fits
def report(model, checkpoint):
    logger, records = logging.Logger('test'), []
    logger.addFilter(records.append)
    fit = check_fit(model, checkpoint, logger)
    (record,) = records
    return fit, record


def test_all_fits(fine):
    own = fine.state_dict()
    for weights in (own, dict(state_dict={f'module.{k}': v for k, v in own.items()}, meta={})):
        fit, record = report(fine, weights)
        assert (len(fit.placed), fit.missing, fit.left_over) == (len(own), [], [])
        assert record.levelno == logging.INFO
    assert not check_fit(fine, dict(model=to_authors(own, 'finetune')[0])).missing
    own['cls_head.classifiers.image.bias'] = torch.zeros(3)
    fit, _ = report(fine, own)
    assert fit.missing == fit.left_over == ['cls_head.classifiers.image.bias']


def test_a_part_is_what_loading_fills(fine, pretrained):
    """The count against the tensors that loading really changes."""
    whole = pretrained.state_dict()
    fit, record = report(fine, dict(state_dict=whole))
    model = build(FINETUNE)
    for value in model.state_dict().values():
        value.fill_(7)
    load_state_dict(model, {k: torch.full_like(v, 3) for k, v in whole.items()})
    filled = {k for k, v in model.state_dict().items() if (v == 3).all()}
    assert set(fit.placed) == filled and len(filled) > 20
    assert set(fit.missing) == set(model.state_dict()) - filled
    assert len(fit.left_over) == len(whole) - len(filled)
    assert record.getMessage().startswith(f'{len(filled)} of {len(whole)} tensors')
    assert 'neck.blocks.*.moae.fc1_weight (2)' in record.getMessage()
    assert record.levelno == logging.WARNING
    assert 'backbone.blocks.2.attn.qkv.weight' in whole  # nothing was renamed in place


VIT = {'patch_embed.proj.weight': torch.zeros(8, 3, 16, 16), 'cls_token': torch.zeros(1)}
VIT['blocks.0.attn.qkv.weight'] = torch.zeros(24, 8)


@pytest.mark.parametrize(
    'make, match',
    [
        (lambda f: to_authors(f, 'finetune')[0], r"S4D authors' code.*--stage finetune"),
        (lambda f: {f'model.{k}': v for k, v in f.items()}, r"begin with 'model'"),
        (lambda f: VIT, r'weights of timm_vit: .*vit_to_mm.py'),
        (lambda f: dict(epoch=3), 'the 0 tensors.*no tensors at all'),
    ],
    ids=['authors', 'wrapped', 'timm', 'empty'],
)
def test_nothing_fits(fine, make, match):
    # the authors' names are known to our models, not to others'
    model = build(dict(FINETUNE, type='Recognizer3D')) if 'authors' in match else fine
    with pytest.raises(ValueError, match=match) as error:
        check_fit(model, dict(make(fine.state_dict())))
    assert f'none finds a place in {type(model).__name__}' in str(error.value)


@pytest.mark.parametrize('part', ['backbone', 'neck'])
def test_a_part_loaded_alone(part, pretrained, tmp_path):
    """By ``init_cfg`` without the prefix, which mmengine takes without a word."""
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=pretrained.state_dict()), path)
    with pytest.raises(ValueError, match='none finds a place'):
        build(with_init(path, part))


def test_numbers_that_are_not_finite(fine, tmp_path):
    model = build(FINETUNE)
    model.register_buffer('mask', torch.tensor([0.0, -torch.inf]))  # as a buffer may be
    assert first_not_finite(model, model.state_dict()) is None
    model.mask[0] = torch.nan
    with pytest.raises(WeightsError, match='the checkpoint are not finite: 1 of the 2 .* mask'):
        check_fit(model, model.state_dict())
    weights, path = fine.backbone.state_dict(), str(tmp_path / 'x.pth')
    weights['blocks.1.norm1.weight'] = torch.full((32,), torch.inf)
    torch.save(weights, path)
    with pytest.raises(WeightsError, match=f'{path} are not finite: 32 .* blocks.1.norm1.weight'):
        build(with_init(path, 'backbone'))
