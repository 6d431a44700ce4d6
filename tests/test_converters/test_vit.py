# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights from other ViTs, and ours for mmaction2: the numbers stay equal,
what finds no place is listed, what does not fit is refused by name."""

import importlib.util
import os
import os.path as osp
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix, load_checkpoint
from torch import nn

from s4d_mm.converters.s4d import from_authors
from s4d_mm.converters.vit import from_vit, to_mmaction_vit
from s4d_mm.converters.vit_keys import LAYOUTS, REFUSED, SOURCES

DIMS, HEADS, DEPTH, IMG, FRAMES = 48, 3, 2, 32, 4
ARCH = dict(embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS)
PATCH = (16, 16)


def randomise(module: nn.Module) -> nn.Module:
    """Every parameter differs, so that none can be mistaken for another."""
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    module.eval()  # that of mmpretrain returns nothing
    return module


def build(**cfg) -> nn.Module:
    init_default_scope('mmaction')
    return randomise(MODELS.build(cfg))


def s4d_vit(weights: dict, **kwargs) -> nn.Module:
    """S4DViT with the weights, none missing and none left."""
    model = build(type='S4DViT', arch=ARCH, img_size=IMG, num_frames=FRAMES, **kwargs)
    load_part(model, weights, 'backbone.')
    return model


def load_part(module: nn.Module, weights: dict, prefix: str) -> None:
    module.load_state_dict(
        {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}, strict=True
    )


def fc_norm(x, weights):
    return F.layer_norm(
        x, (DIMS,), weights['cls_head.fc_norm.weight'], weights['cls_head.fc_norm.bias'], 1e-6
    )


def assert_equal(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def clip(size=IMG, frames=FRAMES):
    torch.manual_seed(1)
    return torch.randn(2, 3, frames, size, size)


# --- mmaction2, both ways, against the model itself


def mmaction_vit(**kwargs):
    return build(
        type='mmaction.VisionTransformer',
        img_size=IMG,
        embed_dims=DIMS,
        depth=DEPTH,
        num_heads=HEADS,
        num_frames=FRAMES,
        **kwargs,
    )


def under(prefix, module, **more):
    return {**{f'{prefix}{k}': v for k, v in module.state_dict().items()}, **more}


@pytest.mark.parametrize('init_values', [0.0, 0.1])
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_from_mmaction(prefix, init_values):
    theirs = mmaction_vit(init_values=init_values)
    head = {'cls_head.fc_cls.weight': torch.zeros(7, DIMS)}
    result = from_vit(under(prefix, theirs, **head))
    assert result.family == 'mmaction_vit'
    assert result.unplaced == list(head)
    assert any('sin-cos' in n for n in result.notes)
    assert any('LayerScale' in n for n in result.notes) == (init_values > 0)
    ours = s4d_vit(result.weights, out_type='avg')
    for size in (IMG, 48):  # other sizes interpolate
        x = clip(size)
        assert_equal(fc_norm(ours(x), result.weights), theirs(x))


def test_to_mmaction_finetuned():
    ours = build(
        type='Recognizer3D',
        backbone=dict(type='S4DViT', arch=ARCH, img_size=IMG, num_frames=FRAMES),
        cls_head=dict(type='DualModalHead', in_channels=DIMS, num_classes=dict(video=7)),
    )
    result = to_mmaction_vit(ours.state_dict(), IMG, FRAMES)
    theirs = mmaction_vit()
    load_part(theirs, result.weights, 'backbone.')
    assert set(result.unplaced) == {
        'cls_head.classifiers.video.weight',
        'cls_head.classifiers.video.bias',
    }
    assert 'use_mean_pooling=True' in result.notes[0]
    for size in (IMG, 48):
        x = clip(size)
        assert_equal(theirs(x), ours.cls_head.features(ours.backbone(x)))
    # and back: nothing is lost
    back = from_vit(result.weights)
    assert back.unplaced == []
    mine = {k: v for k, v in ours.state_dict().items() if 'classifiers' not in k}
    assert set(back.weights) == set(mine)
    assert all(torch.equal(back.weights[k], v) for k, v in mine.items())


def test_to_mmaction_pretrained():
    ours = build(type='S4DMAEViT', arch=ARCH, img_size=IMG, num_frames=FRAMES, out_type='featmap')
    decoder = build(
        type='S4DMAEDecoder',
        in_channels=DIMS,
        img_size=IMG,
        num_frames=FRAMES,
        arch=dict(embed_dims=24, num_layers=1, num_heads=2),
    )
    weights = {**under('backbone.', ours), **under('neck.', decoder)}
    result = to_mmaction_vit(weights, IMG, FRAMES)
    assert set(result.unplaced) == set(under('neck.', decoder))
    # as VideoMAE: without the norm after the last block
    assert 'use_mean_pooling=True' in result.notes[0]
    assert 'norm after the last block is left out' in result.notes[1]
    theirs = mmaction_vit(return_feat_map=True)
    missing, unexpected = theirs.load_state_dict(
        {k[len('backbone.') :]: v for k, v in result.weights.items()}, strict=False
    )
    assert set(missing) == {'fc_norm.weight', 'fc_norm.bias'}
    assert unexpected == []
    ours.norm = torch.nn.Identity()
    # without a norm the features are in the tens
    torch.testing.assert_close(theirs(clip()), ours(clip(), mask=None), atol=1e-4, rtol=1e-4)


def test_to_mmaction_refuses():
    moae = build(type='MoAENeck', arch=ARCH, num_layers=1, num_experts=2)
    first = s4d_vit(from_vit(mmaction_vit().state_dict()).weights)
    with pytest.raises(ValueError, match='last 1 blocks .* MoAENeck'):
        to_mmaction_vit({**under('backbone.', first), **under('neck.', moae)})
    with pytest.raises(ValueError, match='not a checkpoint of s4d_mm'):
        to_mmaction_vit(mmaction_vit().state_dict())
    ours = under('backbone.', first)
    with pytest.raises(ValueError, match='multiple of the patch size 16'):
        to_mmaction_vit(ours, img_size=40)
    norm = torch.ones(DIMS)
    with pytest.raises(ValueError, match='before and after the average'):
        to_mmaction_vit({**ours, 'backbone.norm.weight': norm, 'cls_head.fc_norm.weight': norm})
    assert 'starts anew' in to_mmaction_vit(ours).notes[1]


# --- mmpretrain, against the model itself


def mmpretrain_vit(**kwargs):
    return build(
        type='mmpretrain.VisionTransformer',
        img_size=IMG,
        arch=dict(
            embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * DIMS
        ),
        **kwargs,
    )


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('final_norm,out_type', [(True, 'featmap'), (False, 'avg_featmap')])
def test_from_mmpretrain(prefix, final_norm, out_type):
    theirs = mmpretrain_vit(
        with_cls_token=False, out_type=out_type, final_norm=final_norm, layer_scale_init_value=0.1
    )
    result = from_vit(under(prefix, theirs), source='mmpretrain_mae')
    assert result.unplaced == [f'{prefix}pos_embed']
    assert f'{2 * DEPTH} LayerScales folded' in ' '.join(result.notes)
    assert f'{DEPTH} biases of keys dropped' in ' '.join(result.notes)
    ours = s4d_vit(result.weights, final_norm=final_norm, out_type=out_type.split('_')[0])
    # the same positions
    theirs.pos_embed.data[0] = ours.positions((1, 2, 2))
    image = clip()[:, :, 0]
    ref, out = theirs(image)[0], ours(image)
    if final_norm:
        assert_equal(out, ref)
    else:
        assert_equal(fc_norm(out, result.weights), ref)


@pytest.mark.parametrize('tubelet_size', [None, 1, 4])
def test_inflated_kernel(tubelet_size):
    theirs = mmpretrain_vit(with_cls_token=False, out_type='featmap')
    size = tubelet_size or 2
    result = from_vit(theirs.state_dict(), tubelet_size=tubelet_size)
    ours = s4d_vit(result.weights, tubelet_size=size, final_norm=True)
    image = clip()[:, :, 0]
    tokens = theirs.patch_embed(image)[0]
    assert_equal(ours.patch_embed(image), tokens)
    # a still image, frame by frame
    still = image[:, :, None].expand(-1, -1, FRAMES, -1, -1)
    assert_equal(ours.patch_embed(still), tokens.repeat(1, FRAMES // size, 1))
    kernel = result.weights['backbone.patch_embed.proj.weight']
    assert_equal(kernel.sum(2), theirs.patch_embed.projection.weight)


def test_from_mmpretrain_mae():
    """The whole pre-training model: decoder and class token are listed."""
    init_default_scope('mmpretrain')
    mae = MODELS.build(
        dict(
            type='mmpretrain.MAE',
            data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
            backbone=dict(
                type='mmpretrain.MAEViT',
                img_size=IMG,
                arch=dict(
                    embed_dims=DIMS,
                    num_layers=DEPTH,
                    num_heads=HEADS,
                    feedforward_channels=4 * DIMS,
                ),
            ),
            neck=dict(
                type='mmpretrain.MAEPretrainDecoder',
                num_patches=4,
                embed_dim=DIMS,
                decoder_embed_dim=24,
                decoder_depth=1,
                decoder_num_heads=2,
            ),
            head=dict(
                type='mmpretrain.MAEPretrainHead',
                patch_size=16,
                loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
            ),
        )
    )
    state = mae.state_dict()
    result = from_vit(state)
    assert result.family == 'mmpretrain_mae'
    assert set(result.unplaced) == {'backbone.cls_token', 'backbone.pos_embed'} | {
        k for k in state if 'neck.' in k
    }
    s4d_vit(result.weights, final_norm=True)


# --- plain models with the names of families that are not installed


class PlainBlock(nn.Module):
    """Parameters and computation as in (style): timm, ``class Block`` of
    huggingface/pytorch-image-models timm/models/vision_transformer.py;
    videomae, of MCG-NJU/VideoMAE modeling_finetune.py; omnimae, of
    facebookresearch/omnivore omnimae/vision_transformer.py."""

    def __init__(self, style):
        super().__init__()
        self.style = style
        self.norm1 = nn.LayerNorm(DIMS, eps=1e-6)
        self.norm2 = nn.LayerNorm(DIMS, eps=1e-6)
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(DIMS, 3 * DIMS, bias=style != 'videomae')
        self.attn.proj = nn.Linear(DIMS, DIMS)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(DIMS, 4 * DIMS)
        self.mlp.fc2 = nn.Linear(4 * DIMS, DIMS)
        if style == 'timm':
            self.ls1, self.ls2 = nn.Module(), nn.Module()
            self.ls1.gamma = nn.Parameter(torch.zeros(DIMS))
            self.ls2.gamma = nn.Parameter(torch.zeros(DIMS))
        elif style == 'videomae':
            self.attn.q_bias = nn.Parameter(torch.zeros(DIMS))
            self.attn.v_bias = nn.Parameter(torch.zeros(DIMS))
            self.gamma_1 = nn.Parameter(torch.zeros(DIMS))
            self.gamma_2 = nn.Parameter(torch.zeros(DIMS))
        else:
            self.layer_scale_gamma1 = nn.Parameter(torch.zeros(1, 1, DIMS))
            self.layer_scale_gamma2 = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, x):
        if self.style == 'timm':
            scale1, scale2 = self.ls1.gamma, self.ls2.gamma
        elif self.style == 'videomae':
            scale1, scale2 = self.gamma_1, self.gamma_2
        else:
            scale1, scale2 = self.layer_scale_gamma1, self.layer_scale_gamma2
        qkv = self.attn.qkv(self.norm1(x))
        if self.style == 'videomae':
            bias = self.attn.q_bias, 0 * self.attn.q_bias, self.attn.v_bias
            qkv = qkv + torch.cat(bias)
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in qkv.chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) * (DIMS // HEADS) ** -0.5
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + scale1 * self.attn.proj(y)
        y = F.gelu(self.mlp.fc1(self.norm2(x)))
        return x + scale2 * self.mlp.fc2(y)


class PlainViT(nn.Module):
    def __init__(self, style):
        super().__init__()
        self.patch_embed = nn.Module()
        conv = (
            nn.Conv2d(3, DIMS, PATCH, PATCH)
            if style == 'timm'
            else nn.Conv3d(3, DIMS, (2,) + PATCH, (2,) + PATCH)
        )
        self.patch_embed.proj = conv
        if style == 'omnimae':  # the first one only pads images in time
            self.patch_embed.proj = nn.Sequential(nn.Identity(), conv)
        self.blocks = nn.ModuleList(PlainBlock(style) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIMS, eps=1e-6)

    def forward(self, x, positions):
        """Tokens before and after the final norm."""
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + positions
        for block in self.blocks:
            x = block(x)
        return x, self.norm(x)


def test_from_timm():
    theirs = randomise(PlainViT('timm'))
    # the prefix tokens of DeiT and the head of `global_pool='avg'`
    extra = dict(
        cls_token=torch.randn(1, 1, DIMS),
        dist_token=torch.randn(1, 1, DIMS),
        pos_embed=torch.randn(1, 6, DIMS),
    )
    for name in ('head', 'head_dist'):
        extra[f'{name}.weight'] = torch.randn(7, DIMS)
    state = {**extra, **theirs.state_dict()}
    assert state['blocks.0.attn.qkv.bias'][DIMS : 2 * DIMS].abs().min() > 0
    before = {k: v.clone() for k, v in state.items()}
    result = from_vit(state)
    assert result.family == 'timm_vit' and result.unplaced == list(extra)
    assert all(torch.equal(before[k], v) for k, v in state.items())
    ours = s4d_vit(result.weights, final_norm=True)
    image = clip()[:, :, 0]
    assert_equal(ours(image), theirs(image, ours.positions((1, 2, 2)))[1])
    # half precision is not made worse by folding
    half = from_vit({k: v.half() for k, v in state.items()}).weights
    weight = half['backbone.blocks.0.mlp.fc2.weight']
    assert weight.dtype == torch.float32
    s4d_vit(half, final_norm=True)


def test_from_timm_without_biases():
    theirs = randomise(PlainViT('timm'))
    for block in theirs.blocks:  # qkv_bias=False, proj_bias=False
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.bias = None
    theirs.patch_embed.proj.bias = None
    result = from_vit(theirs.state_dict())
    assert f'{5 * DEPTH + 1} missing biases' in ' '.join(result.notes)
    ours = s4d_vit(result.weights, final_norm=True)
    image = clip()[:, :, 0]
    assert_equal(ours(image), theirs(image, ours.positions((1, 2, 2)))[1])


@pytest.mark.parametrize('wrapper', ['', 'model.'])
@pytest.mark.parametrize('source', ['auto', 'videomae', 'videomaev2'])
def test_from_videomae_finetuned(source, wrapper):
    theirs = randomise(PlainViT('videomae'))
    theirs.norm = nn.Identity()  # fine-tuned: fc_norm after the average
    theirs.fc_norm = randomise(nn.LayerNorm(DIMS, eps=1e-6))
    theirs.head = nn.Linear(DIMS, 7)
    state = under(wrapper, theirs)
    result = from_vit(state, source=source)
    assert result.family == 'videomae'
    assert result.unplaced == [f'{wrapper}head.weight', f'{wrapper}head.bias']
    ours = s4d_vit(result.weights, out_type='avg')
    tokens = theirs(clip(), ours.positions((2, 2, 2)))[0]
    assert_equal(fc_norm(ours(clip()), result.weights), theirs.fc_norm(tokens.mean(1)))
    # the patch size of ViT-g shows in the shapes
    state[f'{wrapper}patch_embed.proj.weight'] = torch.zeros(DIMS, 3, 2, 14, 14)
    with pytest.raises(ValueError, match='of another size'):
        s4d_vit(from_vit(state).weights)


def test_from_videomae_pretrained():
    """S4D's pre-training model is VideoMAE's: numbers of the authors' code."""
    ref = torch.load(osp.join(ROOT, 'tests', 'data', 'pretrain_a.pt'), weights_only=True)
    theirs, arch = ref['state_dict'], ref['arch']
    result = from_vit(theirs)
    assert result.family == 'videomae' and result.unplaced == []
    assert result.notes == []
    expected, _ = from_authors(theirs, 'pretrain')
    assert set(result.weights) == set(expected)
    assert all(torch.equal(result.weights[k], expected[k]) for k in expected)
    model = build(
        type='S4DMAEViT',
        img_size=arch['img'],
        arch=dict(embed_dims=arch['dim'], num_layers=arch['depth'], num_heads=arch['heads']),
    )
    load_part(model, result.weights, 'backbone.')
    with torch.no_grad():
        latent = model(ref['video'], ref['video_mask'])[0]
    assert_equal(latent, ref['video_encoded'])
    # the encoder alone
    part = {k: v for k, v in theirs.items() if k.startswith('encoder.')}
    assert all(k.startswith('backbone.') for k in from_vit(part).weights)


@pytest.mark.parametrize('finetuned', [False, True])
def test_from_omnimae(finetuned):
    theirs = randomise(PlainViT('omnimae'))
    state = under('trunk.', theirs)
    assert 'trunk.patch_embed.proj.1.weight' in state
    head = {'head.weight': torch.zeros(7, DIMS), 'head.bias': torch.zeros(7)}
    decoder = (
        {}
        if finetuned
        else {
            'trunk.mask_token': torch.zeros(1, DIMS),
            'trunk.decoder.decoder_embed.weight': torch.zeros(24, DIMS),
            'trunk.decoder.decoder_blocks.0.norm1.weight': torch.zeros(24),
        }
    )
    ours = build(type='S4DViT', arch=ARCH, img_size=IMG, num_frames=FRAMES)
    state = {'trunk.pos_embed': ours.pos_embed[None], **state, **decoder, **head}
    result = from_vit(state)
    assert result.family == 'omnimae'
    assert result.unplaced == [*decoder, *head]
    assert any('sin-cos' in n for n in result.notes)
    ours = s4d_vit(result.weights, final_norm=not finetuned)
    raw, normed = theirs(clip(), ours.positions((2, 2, 2)))
    if finetuned:  # averages, then normalises
        assert_equal(fc_norm(ours(clip()).mean(1), result.weights), theirs.norm(raw.mean(1)))
    else:
        assert_equal(ours(clip()), normed)


def test_learned_positions_are_listed():
    state = PlainViT('videomae').state_dict()
    state['pos_embed'] = torch.randn(1, 8, DIMS)
    assert from_vit(state).unplaced == ['pos_embed']


# --- what does not fit


def keys(*names):
    return {name: torch.zeros(1) for name in names}


def swin3d():
    return build(
        type='mmaction.SwinTransformer3D',
        arch=dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2]),
        out_indices=(1,),
    ).state_dict()


def swin():
    return build(
        type='mmpretrain.SwinTransformer',
        out_indices=(1,),
        arch=dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2]),
    ).state_dict()


def mvit():
    return build(
        type='mmaction.MViT',
        out_scales=1,
        temporal_size=4,
        spatial_size=32,
        arch=dict(embed_dims=24, num_layers=2, num_heads=1, downscale_indices=[1]),
    ).state_dict()


def timesformer():
    return build(
        type='mmaction.TimeSformer',
        num_frames=2,
        img_size=32,
        patch_size=16,
        embed_dims=48,
        num_heads=3,
        num_transformer_layers=1,
    ).state_dict()


FOREIGN = [
    # sunlicai/MAE-DFER, modeling_pretrain.py and modeling_finetune.py
    (
        'MAE-DFER',
        lambda: {
            **PlainViT('videomae').state_dict(),
            **keys('lg_region_tokens', 'blocks.0.first_attn.q.weight'),
        },
    ),
    ('MAE-DFER', lambda: keys('encoder.blocks.0.first_attn.kv.weight')),
    ('Swin Transformer', swin3d),
    ('Swin Transformer', swin),
    # microsoft/Swin-Transformer, models/swin_transformer.py
    ('Swin Transformer', lambda: keys('layers.0.blocks.0.attn.relative_position_bias_table')),
    # openai/CLIP, clip/model.py
    (
        'CLIP',
        lambda: keys(
            'visual.conv1.weight',
            'visual.ln_pre.weight',
            'visual.transformer.resblocks.0.attn.in_proj_weight',
        ),
    ),
    (
        'CLIP or SigLIP of Hugging Face',
        lambda: keys('vision_model.encoder.layers.0.self_attn.q_proj.weight'),
    ),
    ('TimeSformer', timesformer),
    (
        'TimeSformer',
        lambda: {**PlainViT('timm').state_dict(), **keys('blocks.0.temporal_attn.qkv.weight')},
    ),
    ('MViT', mvit),
    (
        'ViT, ViTMAE or VideoMAE of Hugging Face',
        lambda: keys('videomae.encoder.layer.0.attention.attention.query.weight'),
    ),
    (
        "S4D of the authors' code, fine-tuned",
        lambda: torch.load(osp.join(ROOT, 'tests', 'data', 'finetune_a.pt'), weights_only=True)[
            'state_dict'
        ],
    ),
]


@pytest.mark.parametrize(
    'family,make', FOREIGN, ids=[f'{f}-{i}' for i, (f, _) in enumerate(FOREIGN)]
)
def test_refuses_by_name(family, make):
    with pytest.raises(ValueError) as e:
        from_vit(make())
    assert f'checkpoint of {family} (' in str(e.value)


def test_every_family_is_tested():
    assert {f for f, _ in FOREIGN} == {f for f, *_ in REFUSED}
    assert set(SOURCES) == {x.family for x in LAYOUTS} | {'videomaev2'}


@pytest.mark.parametrize(
    'name,match',
    [
        ('norm_pre.weight', 'a norm before its blocks'),
        ('reg_token', 'register tokens'),
        ('blocks.0.attn.q_norm.weight', 'norms of queries and keys'),
        ('blocks.0.attn.relative_position_bias_table', 'relative positions'),
        ('blocks.1.attn.scale', 'cosine attention'),
        ('patch_embed.norm.weight', 'more than one convolution'),
        ('blocks.0.mlp.fc1_g.weight', 'a gated MLP'),
        ('blocks.0.attn.norm.weight', r"has \['attn.norm.weight'\]"),
        ('blocks.3.norm1.weight', r'numbered \[2\] are missing'),
    ],
)
def test_refuses_what_computes_something_else(name, match):
    with pytest.raises(ValueError, match=match):
        from_vit({**PlainViT('timm').state_dict(), **keys(name)})


def test_refuses_variants():
    with pytest.raises(ValueError, match='a norm before its blocks'):
        from_vit(mmpretrain_vit(pre_norm=True).state_dict())
    beit = build(
        type='mmpretrain.BEiTViT',
        img_size=IMG,
        arch=dict(embed_dims=DIMS, num_layers=1, num_heads=HEADS, feedforward_channels=4 * DIMS),
    )
    with pytest.raises(ValueError, match='relative positions'):
        from_vit(beit.state_dict())
    state = PlainViT('timm').state_dict()
    lost = {k: v for k, v in state.items() if k != 'blocks.1.norm2.bias'}
    with pytest.raises(ValueError, match='blocks.1 has no norm2.bias'):
        from_vit(lost)
    gated = dict(state)
    gated['blocks.0.mlp.fc2.weight'] = torch.zeros(DIMS, 2 * DIMS)
    with pytest.raises(ValueError, match='gated'):
        from_vit(gated)
    narrow = dict(state)
    narrow['blocks.0.attn.qkv.weight'] = torch.zeros(72, DIMS)
    with pytest.raises(ValueError, match='not as wide'):
        from_vit(narrow)


def test_refuses_wrong_arguments():
    image = PlainViT('timm').state_dict()
    video = PlainViT('videomae').state_dict()
    with pytest.raises(ValueError, match='not one of'):
        from_vit(image, source='vit')
    with pytest.raises(ValueError, match='keys are those of timm_vit'):
        from_vit(image, source='videomaev2')
    with pytest.raises(ValueError, match='at least 1'):
        from_vit(image, tubelet_size=0)
    with pytest.raises(ValueError, match='tubelets of 2 frames'):
        from_vit(video, tubelet_size=4)
    from_vit(video, tubelet_size=2)
    with pytest.raises(ValueError, match=r"has 1, for example \['conv1"):
        from_vit(keys('conv1.weight'))
    with pytest.raises(ValueError, match='nothing to convert'):
        from_vit(under('backbone.', build(type='S4DViT', arch=ARCH, img_size=IMG)))


# --- the commands


def tool(name):
    return osp.join(ROOT, 'tools', 'model_converters', f'{name}.py')


def call(monkeypatch, name, *args):
    """The command's exit code, run in this process."""
    spec = importlib.util.spec_from_file_location(name, tool(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    return module.main()


def test_command(tmp_path, monkeypatch, capsys):
    state = PlainViT('timm').state_dict()
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(dict(model={**state, **keys('head.weight')}), src)
    assert call(monkeypatch, 'vit_to_mm', src, dst) == 0
    out = capsys.readouterr().out
    weights = torch.load(dst, weights_only=True)['state_dict']
    assert f'wrote {len(weights)} parameters' in out
    for text in (
        'timm_vit',
        '1 keys',
        '  head.weight',
        '4 LayerScales',
        '2 biases of keys',
        'tubelets of 2 frames',
    ):
        assert text in out
    assert sorted(os.listdir(tmp_path)) == ['dst.pth', 'src.pth']

    # strictly into the backbone
    backbone = build(type='S4DViT', arch=ARCH, img_size=IMG, final_norm=True)
    backbone.load_state_dict(_load_checkpoint_with_prefix('backbone.', str(dst)), strict=True)
    # as `load_from` into a model whose last block is in the neck
    model = build(
        type='Recognizer3D',
        backbone=dict(type='S4DViT', arch=ARCH, img_size=IMG, depth=1),
        neck=dict(type='MoAENeck', arch=ARCH, num_layers=1, num_experts=2),
        cls_head=dict(type='DualModalHead', in_channels=DIMS, num_classes=dict(video=7)),
    )
    load_checkpoint(model, str(dst), map_location='cpu', strict=False)
    for block, ours in ((0, model.backbone), (1, model.neck)):
        assert torch.equal(
            ours.blocks[0].attn.qkv.weight, weights[f'backbone.blocks.{block}.attn.qkv.weight']
        )
    # as `init_cfg`
    cfg = dict(
        type='S4DViT',
        arch=ARCH,
        img_size=IMG,
        init_cfg=dict(type='Pretrained', checkpoint=str(dst), prefix='backbone.'),
    )
    model = MODELS.build(cfg)
    model.init_weights()
    assert torch.equal(model.patch_embed.proj.weight, weights['backbone.patch_embed.proj.weight'])


def test_command_to_mmaction(tmp_path, monkeypatch, capsys):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    ours = build(type='S4DMAEViT', arch=ARCH, img_size=IMG)
    # as mmengine's CheckpointHook stores it
    torch.save(
        dict(
            state_dict=under('backbone.', ours),
            meta={},
            message_hub=dict(loss=HistoryBuffer([1.0], [1])),
        ),
        src,
    )
    assert (
        call(monkeypatch, 's4d_to_mmaction', src, dst, '--img-size', IMG, '--num-frames', FRAMES)
        == 0
    )
    out = capsys.readouterr().out
    assert 'mmaction_vit' in out and 'use_mean_pooling=False' in out
    theirs = mmaction_vit(use_mean_pooling=False)
    theirs.load_state_dict(_load_checkpoint_with_prefix('backbone.', str(dst)), strict=True)
    # and the other command brings it back
    assert call(monkeypatch, 'vit_to_mm', dst, tmp_path / 'back.pth') == 0
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    mine = under('backbone.', ours)
    assert set(back) == set(mine)
    assert all(torch.equal(back[k], mine[k]) for k in mine)


class Touch:
    """Unpickling this without ``weights_only`` makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('name', ['vit_to_mm', 's4d_to_mmaction'])
def test_commands_refuse(name, tmp_path, monkeypatch, capsys):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    dst.write_text('precious')

    sizes = ['--img-size', IMG, '--num-frames', FRAMES]

    def refuses(match, *more, to=dst):
        more = sizes if name == 's4d_to_mmaction' else more
        assert call(monkeypatch, name, src, to, *more) == 1
        err = capsys.readouterr().err
        assert err.startswith(f'{src}: ') and match in err, err
        assert dst.read_text() == 'precious'
        assert not list(tmp_path.glob('*.part'))

    refuses('There is no checkpoint')
    state = PlainViT('timm').state_dict()
    torch.save(dict(model=state, hook=Touch(tmp_path / 'harm')), src)
    refuses('weights_only=True')
    assert not (tmp_path / 'harm').exists()
    torch.save(dict(epoch=1), src)
    refuses('holds no weights')
    torch.save(keys('conv1.weight'), src)
    refuses('conv1.weight')
    torch.save(
        state if name == 'vit_to_mm' else under('backbone.', build(type='S4DViT', arch=ARCH)), src
    )
    refuses('cannot be written', to=tmp_path / 'no' / 'x.pth')
    assert not (tmp_path / 'no').exists()


def test_command_in_a_process(tmp_path):
    torch.save(swin(), tmp_path / 'swin.pth')
    run = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            tool('vit_to_mm'),
            str(tmp_path / 'swin.pth'),
            str(tmp_path / 'x.pth'),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert 'Swin Transformer' in run.stderr
    assert os.listdir(tmp_path) == ['swin.pth']
