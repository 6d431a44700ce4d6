# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights from other ViTs, and ours for mmaction2: the numbers stay equal,
what is left out is listed, what does not fit is refused with its keys."""

import os.path as osp

import pytest
import s4d_to_mmaction
import torch
import torch.nn.functional as F
import vit_to_mm
from helpers import ROOT
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix, load_checkpoint
from torch import nn

from s4d_mm.converters.s4d import from_authors
from s4d_mm.converters.vit import from_vit, group_keys, to_mmaction_vit

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
    assert result.left_out == list(head)
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
    assert set(result.left_out) == {
        'cls_head.classifiers.video.weight',
        'cls_head.classifiers.video.bias',
    }
    assert 'use_mean_pooling=True' in result.notes[0]
    for size in (IMG, 48):
        x = clip(size)
        assert_equal(theirs(x), ours.cls_head.features(ours.backbone(x)))
    # and back: nothing is lost
    back = from_vit(result.weights)
    assert back.left_out == []
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
    assert set(result.left_out) == set(under('neck.', decoder))
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
    with pytest.raises(ValueError, match=r'backbone\.blocks\.\*\.ls\.gamma \(2\)'):
        to_mmaction_vit(
            {**ours, **keys('backbone.blocks.0.ls.gamma', 'backbone.blocks.1.ls.gamma')}
        )
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
    assert result.left_out == [f'{prefix}pos_embed']
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
    assert set(result.left_out) == {'backbone.cls_token', 'backbone.pos_embed'} | {
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
    # the prefix tokens of DeiT, the head of `global_pool='avg'`, the decoder of MAE
    extra = dict(
        cls_token=torch.randn(1, 1, DIMS),
        dist_token=torch.randn(1, 1, DIMS),
        pos_embed=torch.randn(1, 6, DIMS),
        mask_token=torch.randn(1, 1, 24),
        decoder_pos_embed=torch.randn(1, 6, 24),
        **keys('decoder_embed.weight', 'decoder_blocks.0.attn.qkv.weight', 'decoder_norm.bias'),
    )
    for name in ('head', 'head_dist'):
        extra[f'{name}.weight'] = torch.randn(7, DIMS)
    state = {**extra, **theirs.state_dict()}
    assert state['blocks.0.attn.qkv.bias'][DIMS : 2 * DIMS].abs().min() > 0
    before = {k: v.clone() for k, v in state.items()}
    result = from_vit(state)
    assert result.family == 'timm_vit' and result.left_out == list(extra)
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
    assert result.left_out == [f'{wrapper}head.weight', f'{wrapper}head.bias']
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
    assert result.family == 'videomae' and result.left_out == []
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
    assert result.left_out == [*decoder, *head]
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
    assert from_vit(state).left_out == ['pos_embed']


# --- what does not fit


def keys(*names):
    return {name: torch.zeros(1) for name in names}


def swin():
    return build(
        type='mmpretrain.SwinTransformer',
        out_indices=(1,),
        arch=dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2]),
    ).state_dict()


def swin3d():
    return build(
        type='mmaction.SwinTransformer3D',
        arch=dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2]),
        out_indices=(1,),
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


@pytest.mark.parametrize('make', [swin, swin3d, mvit, timesformer])
def test_other_architectures_are_refused(make):
    with pytest.raises(ValueError) as e:
        from_vit(make())
    assert 'not the keys of a family that is known (videomae, omnimae' in str(e.value)
    assert 'is no start for S4DViT' in str(e.value)


def test_unknown_keys_are_grouped():
    hugging_face = [
        f'videomae.encoder.layer.{i}.attention.attention.query.weight' for i in range(12)
    ]
    with pytest.raises(ValueError) as e:
        from_vit(keys('videomae.embeddings.norm.3.weight', *hugging_face))
    lines = str(e.value).splitlines()
    assert lines[1:3] == [
        '  videomae.embeddings.norm.3.weight',
        '  videomae.encoder.layer.*.attention.attention.query.weight (12)',
    ]
    assert 'take the file of the original repository' in lines[3]
    many = group_keys(f'key_{i}' for i in range(50)).splitlines()
    assert len(many) == 21 and many[-1] == '  and 30 more'


# what a plain ViT of a known family may have that changes what it computes
DIFFERENT = [
    'norm_pre.weight',
    'reg_token',
    'rope.periods',
    'lg_region_tokens',
    'patch_embed.norm.weight',
    'patch_embed.proj.1.weight',
    'temporal_pos_embed',
    'blocks.0.attn.q_norm.weight',
    'blocks.0.attn.norm.weight',
    'blocks.0.attn.relative_position_bias_table',
    'blocks.1.attn.scale',
    'blocks.0.first_attn.q.weight',
    'blocks.0.temporal_attn.qkv.weight',
    'blocks.0.mlp.fc1_g.weight',
    'blocks.0.head.weight',
]


@pytest.mark.parametrize('name', DIFFERENT)
@pytest.mark.parametrize('style', ['timm', 'videomae'])
def test_a_parameter_without_a_place_is_refused(style, name):
    state = PlainViT(style).state_dict()
    from_vit(state)
    with pytest.raises(ValueError) as e:
        from_vit({**state, **keys(name)})
    assert 'S4DViT does not have' in str(e.value) and f'\n  {name}\n' in str(e.value)
    assert 'take them out of the file' in str(e.value)


def test_a_parameter_without_a_place_in_the_decoder_is_refused():
    ref = torch.load(osp.join(ROOT, 'tests', 'data', 'pretrain_a.pt'), weights_only=True)
    with pytest.raises(ValueError, match=r'decoder\.blocks\.0\.attn\.q_norm'):
        from_vit({**ref['state_dict'], **keys('decoder.blocks.0.attn.q_norm.weight')})


def test_variants_of_mmpretrain_are_refused():
    with pytest.raises(ValueError, match='  pre_norm.weight'):
        from_vit(mmpretrain_vit(pre_norm=True).state_dict())
    beit = build(
        type='mmpretrain.BEiTViT',
        img_size=IMG,
        arch=dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS, feedforward_channels=4 * DIMS),
    )
    with pytest.raises(ValueError, match=r'layers\.\*\.attn\.relative_position_bias_table \(2\)'):
        from_vit(beit.state_dict())


def test_fine_tuned_weights_of_the_authors_are_sent_to_their_converter():
    ref = torch.load(osp.join(ROOT, 'tests', 'data', 'finetune_a.pt'), weights_only=True)
    with pytest.raises(ValueError, match=r'moe_layer\.experts(.|\n)*s4d_to_mm.py'):
        from_vit(ref['state_dict'])


@pytest.mark.parametrize(
    'lost,match',
    [
        ('blocks.1.norm2.bias', r'backbone\.blocks\.1\.norm2\.bias'),
        ('blocks.1.norm1.weight', r'backbone\.blocks\.1\.norm1\.weight'),
        ('blocks.0.mlp.fc2.weight', r'backbone\.blocks\.0\.mlp\.fc2\.weight'),
        ('blocks.1.attn.qkv.weight', r'backbone\.blocks\.1\.attn\.qkv\.weight'),
    ],
)
def test_incomplete_weights_are_refused(lost, match):
    state = PlainViT('timm').state_dict()
    del state[lost]
    with pytest.raises(ValueError, match=f'incomplete(.|\\n)*{match}'):
        from_vit(state)


def test_a_gap_in_the_blocks_is_refused():
    state = PlainViT('timm').state_dict()
    state = {k.replace('blocks.1.', 'blocks.2.'): v for k, v in state.items()}
    with pytest.raises(ValueError, match=r'incomplete(.|\n)*backbone\.blocks\.1\.attn') as e:
        from_vit(state)
    assert 'blocks.2.' not in str(e.value)


@pytest.mark.parametrize(
    'name,shape,expected',
    [
        ('blocks.0.mlp.fc2.weight', (DIMS, 2 * DIMS), (DIMS, 4 * DIMS)),  # gated
        ('blocks.1.attn.qkv.weight', (72, DIMS), (3 * DIMS, DIMS)),  # narrow
        ('blocks.1.norm2.weight', (2 * DIMS,), (DIMS,)),
    ],
)
def test_blocks_of_another_shape_are_refused(name, shape, expected):
    state = PlainViT('timm').state_dict()
    state[name] = torch.zeros(shape)
    with pytest.raises(ValueError) as e:
        from_vit(state)
    assert f'  backbone.{name}: {shape} instead of {expected}' in str(e.value)


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
    with pytest.raises(ValueError, match='nothing to convert'):
        from_vit(under('backbone.', build(type='S4DViT', arch=ARCH, img_size=IMG)))


# --- the commands


def test_command(tmp_path, capsys):
    state = PlainViT('timm').state_dict()
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(dict(model={**state, **keys('head.weight')}), src)
    assert vit_to_mm.main([str(src), str(dst)]) == 0
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
    assert {p.name for p in tmp_path.iterdir()} == {'dst.pth', 'src.pth'}

    # strictly into the backbone
    backbone = build(type='S4DViT', arch=ARCH, img_size=IMG, final_norm=True)
    backbone.load_state_dict(_load_checkpoint_with_prefix('backbone.', str(dst)), strict=True)
    # as `load_from` into a model whose last block is in the neck
    model = build(
        type='DualModalRecognizer',
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


def test_command_to_mmaction(tmp_path, capsys):
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
    sizes = ['--img-size', str(IMG), '--num-frames', str(FRAMES)]
    assert s4d_to_mmaction.main([str(src), str(dst), *sizes]) == 0
    out = capsys.readouterr().out
    assert 'mmaction_vit' in out and 'use_mean_pooling=False' in out
    theirs = mmaction_vit(use_mean_pooling=False)
    theirs.load_state_dict(_load_checkpoint_with_prefix('backbone.', str(dst)), strict=True)
    # and the other command brings it back
    assert vit_to_mm.main([str(dst), str(tmp_path / 'back.pth')]) == 0
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    mine = under('backbone.', ours)
    assert set(back) == set(mine)
    assert all(torch.equal(back[k], mine[k]) for k in mine)


def test_command_options(tmp_path, capsys):
    src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
    torch.save(PlainViT('timm').state_dict(), src)
    assert vit_to_mm.main([src, dst, '--tubelet-size', '4']) == 0
    kernel = torch.load(dst, weights_only=True)['state_dict']['backbone.patch_embed.proj.weight']
    assert kernel.shape == (DIMS, 3, 4, *PATCH)
    assert vit_to_mm.main([src, dst, '--source', 'omnimae']) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'{src}: ') and "source='omnimae'" in err
