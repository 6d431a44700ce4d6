# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D's numbers are the authors' numbers: tensors that their code computed,
compared with what ours computes from the converted weights.

``S4D_REFERENCE_DIR`` names a folder with other ``pretrain_*.pt`` and
``finetune_*.pt`` files to check.
"""

import glob
import os
import os.path as osp

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from s4d_mm.converters.s4d import from_authors, to_authors

FOLDER = os.environ.get('S4D_REFERENCE_DIR', osp.join(osp.dirname(__file__), 'data'))
TOLERANCE = 1e-5


def files(stage: str) -> list:
    """Reference files of a stage; one that cannot exist when there are none,
    so that the test fails instead of vanishing."""
    return sorted(glob.glob(osp.join(FOLDER, f'{stage}_*.pt'))) or [
        osp.join(FOLDER, f'{stage}_*.pt')
    ]


def load(path: str) -> dict:
    assert osp.isfile(path), f'no reference file {path}'
    return torch.load(path, map_location='cpu', weights_only=True)


def build(cfg: dict, state_dict: dict) -> torch.nn.Module:
    init_default_scope('mmaction')
    model = MODELS.build(cfg)
    model.load_state_dict(state_dict, strict=True)
    return model.eval()


def assert_same(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape, name
    error = (ours - theirs).abs().max().item()
    print(f'{name}: max abs difference {error:.2e}')
    assert error <= TOLERANCE, f'{name} differs by {error:.2e}'


def encoder_arch(arch: dict) -> dict:
    return dict(embed_dims=arch['dim'], num_layers=arch['depth'], num_heads=arch['heads'])


@pytest.mark.parametrize('path', files('pretrain'), ids=osp.basename)
def test_pretrain(path):
    ref = load(path)
    arch, img = ref['arch'], ref['arch']['img']
    state_dict, unplaced = from_authors(ref['state_dict'], 'pretrain')
    assert unplaced == []
    model = build(
        dict(
            type='mmpretrain.MAE',
            data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
            backbone=dict(type='S4DMAEViT', arch=encoder_arch(arch), img_size=img),
            neck=dict(
                type='S4DMAEDecoder',
                in_channels=arch['dim'],
                img_size=img,
                arch=dict(
                    embed_dims=arch['ddim'], num_layers=arch['ddepth'], num_heads=arch['dheads']
                ),
            ),
            head=dict(type='S4DMAEHead'),
        ),
        state_dict,
    )
    for kind in ('video', 'image'):
        mask = ref[f'{kind}_mask']
        with torch.no_grad():
            latent, out_mask, ids = model.backbone(ref[kind], mask)
            pred = model.neck(latent, ids)
            loss = model.head.loss(pred, ref[kind], out_mask)
        assert torch.equal(out_mask.bool(), mask.bool())
        assert_same(f'{kind}_encoded', latent, ref[f'{kind}_encoded'])
        assert_same(f'{kind}_pred', pred, ref[f'{kind}_pred'])
        assert_same(f'{kind}_loss', loss, ref[f'{kind}_loss'])


@pytest.mark.parametrize('path', files('finetune'), ids=osp.basename)
def test_finetune(path):
    ref = load(path)
    arch, img = ref['arch'], ref['arch']['img']
    layers = len(arch['layers'])
    state_dict, unplaced = from_authors(ref['state_dict'], 'finetune')
    assert unplaced == []
    model = build(
        dict(
            type='Recognizer3D',
            backbone=dict(
                type='S4DViT', arch=encoder_arch(arch), img_size=img, depth=arch['depth'] - layers
            ),
            neck=dict(
                type='MoAENeck',
                arch=encoder_arch(arch),
                num_layers=layers,
                num_experts=arch['E'],
                top_k=arch['k'],
            ),
            cls_head=dict(
                type='DualModalHead',
                in_channels=arch['dim'],
                num_classes=dict(video=arch['nvid'], image=arch['nimg']),
            ),
        ),
        state_dict,
    )
    for kind in ('video', 'image'):
        with torch.no_grad():
            tokens, _ = model.extract_feat(ref[kind][:, None], test_mode=True)
            feature = model.cls_head.features(tokens)
            logits = model.cls_head(tokens, input_types=kind)
        assert_same(f'{kind}_feature', feature, ref[f'{kind}_feature'])
        assert_same(f'{kind}_logits', logits, ref[f'{kind}_logits'])


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
def test_conversion_round_trip(stage):
    ref = load(files(stage)[0])['state_dict']
    ours, _ = from_authors(ref, stage)
    back, unplaced = to_authors(ours, stage)
    assert unplaced == [] and set(back) == set(ref)
    assert all(torch.equal(back[k], ref[k]) for k in ref)
