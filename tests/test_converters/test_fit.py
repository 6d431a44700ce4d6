# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How much of a checkpoint finds a place in a model."""

import copy
import logging

import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner.checkpoint import load_state_dict
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.converters.fit import check_fit
from s4d_mm.converters.s4d import to_authors


@pytest.fixture(scope='module')
def fine():
    return build(FINETUNE)


@pytest.fixture(scope='module')
def whole():
    return build(PRETRAIN, seed=1).state_dict()


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.logger = logging.Logger('test')
        self.logger.addHandler(self)
        self.records = []

    def emit(self, record):
        self.records.append(record)


def report(model, checkpoint):
    lines = Lines()
    fit = check_fit(model, checkpoint, lines.logger)
    (record,) = lines.records
    return fit, record


@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(state_dict=weights, meta={})])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_all(fine, wrap, prefix):
    own = fine.state_dict()
    fit, record = report(fine, wrap({prefix + k: v for k, v in own.items()}))
    assert (len(fit.placed), fit.missing, fit.left_over) == (len(own), [], [])
    line = f'{len(own)} of {len(own)} tensors of the checkpoint found a place in DualModalRec'
    assert record.getMessage().startswith(line) and record.levelno == logging.INFO


def test_a_part_is_what_loading_fills(fine, whole):
    """The count against the tensors that loading really changes."""
    fit, record = report(fine, dict(state_dict=whole))
    model = build(FINETUNE)
    for value in model.state_dict().values():
        value.fill_(7)
    load_state_dict(model, {k: torch.full_like(v, 3) for k, v in whole.items()})
    filled = {k for k, v in model.state_dict().items() if (v == 3).all()}
    assert set(fit.placed) == filled and len(filled) > 20
    assert set(fit.missing) == set(model.state_dict()) - filled
    assert len(fit.left_over) == len(whole) - len(filled)
    first, *others = record.getMessage().splitlines()
    assert first == (
        f'{len(filled)} of {len(whole)} tensors of the checkpoint found a place in '
        f'DualModalRecognizer, which lacks {len(fit.missing)} more.'
    )
    text = '\n'.join(others)
    missing, left_over = text.split('Left over of the checkpoint:')
    assert 'neck.blocks.*.moae.fc1_weight (2)' in missing
    assert 'cls_head.classifiers.video.weight' in missing
    assert 'neck.decoder_blocks.*.attn.qkv.weight (2)' in left_over
    assert record.levelno == logging.WARNING
    assert 'backbone.blocks.2.attn.qkv.weight' in whole  # nothing was renamed in place


def test_another_shape_is_left_over(fine):
    weights = fine.state_dict()
    weights['cls_head.classifiers.image.bias'] = torch.zeros(3)
    fit, _ = report(fine, weights)
    assert fit.missing == fit.left_over == ['cls_head.classifiers.image.bias']


def test_a_wrapped_model(fine, whole):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = fine

    MODEL_WRAPPERS.register_module(module=Wrapper, force=True)
    try:
        assert report(Wrapper(), whole)[0] == report(fine, whole)[0]
    finally:
        del MODEL_WRAPPERS.module_dict['Wrapper']


VIT = {'patch_embed.proj.weight': torch.zeros(8, 3, 16, 16), 'cls_token': torch.zeros(1)}
VIT['blocks.0.attn.qkv.weight'] = torch.zeros(24, 8)


@pytest.mark.parametrize(
    'make, match',
    [
        (lambda f, w: to_authors(w, 'pretrain')[0], r"S4D authors' code.*--stage pretrain"),
        (lambda f, w: to_authors(f, 'finetune')[0], r"S4D authors' code.*--stage finetune"),
        (lambda f, w: {f'model.{k}': v for k, v in f.items()}, r"begin with 'model'"),
        (
            lambda f, w: {'classifiers.video.bias': f['cls_head.classifiers.video.bias']},
            r'weights of a cls_head alone: .*model.cls_head.init_cfg',
        ),
        (lambda f, w: dict(VIT, x=w['neck.mask_token']), r'weights of timm_vit: .*vit_to_mm.py'),
        (lambda f, w: {'stem.conv.weight': torch.zeros(1)}, r'(?s)stem\.conv\.weight.*the model h'),
        (lambda f, w: dict(epoch=3), 'the 0 tensors.*no tensors at all'),
    ],
    ids=['pretrain', 'finetune', 'wrapped', 'part', 'timm', 'unknown', 'empty'],
)
def test_nothing(fine, whole, make, match):
    weights = make(fine.state_dict(), whole)
    # the authors' names are known to our models, not to others'
    model = build(dict(FINETUNE, type='Recognizer3D')) if 'authors' in match else fine
    with pytest.raises(ValueError, match=match) as error:
        check_fit(model, dict(weights))
    assert f'none finds a place in {type(model).__name__}: it would start from scratch' in str(
        error.value
    )


def test_the_authors_names_fit_our_models(fine, whole):
    assert not check_fit(fine, dict(model=to_authors(fine.state_dict(), 'finetune')[0])).missing


@pytest.mark.parametrize('part', ['backbone', 'neck'])
def test_a_part_loaded_alone(part, whole, tmp_path):
    """By ``init_cfg`` without the prefix, which mmengine takes without a word."""
    torch.save(dict(state_dict=whole), tmp_path / 'x.pth')
    cfg = copy.deepcopy(FINETUNE)
    cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    with pytest.raises(ValueError, match='none finds a place') as error:
        build(cfg)
    if part == 'backbone':
        assert "prefix='backbone.'" in str(error.value)
    cfg[part]['init_cfg']['prefix'] = 'backbone.'
    build(cfg)
