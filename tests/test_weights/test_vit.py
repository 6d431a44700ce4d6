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
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from s4d_mm.weights.s4d import from_authors
from s4d_mm.weights.vit import from_vit, to_mmaction_vit

DIMS, HEADS, DEPTH, IMG, FRAMES = 48, 3, 2, 32, 4
ARCH = dict(embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS)
SIZE = dict(img_size=IMG, num_frames=FRAMES)
PATCH = (16, 16)
DATA = osp.join(ROOT, 'tests', 'data')


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
    model = build(type='S4DViT', arch=ARCH, **SIZE, **kwargs)
    load_part(model, weights)
    return model


def load_part(module: nn.Module, weights: dict) -> None:
    own = {k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')}
    module.load_state_dict(own, strict=True)


def fc_norm(x, weights):
    weight, bias = (weights[f'cls_head.fc_norm.{name}'] for name in ('weight', 'bias'))
    return F.layer_norm(x, (DIMS,), weight, bias, 1e-6)


def assert_equal(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def clip(size=IMG):
    torch.manual_seed(1)
    return torch.randn(2, 3, FRAMES, size, size)


def under(prefix, module):
    return {f'{prefix}{k}': v for k, v in module.state_dict().items()}


def keys(*names):
    return {name: torch.zeros(1) for name in names}


# --- mmaction2, both ways, against the model itself
def mmaction_vit(**kwargs):
    sizes = dict(embed_dims=DIMS, depth=DEPTH, num_heads=HEADS, **SIZE)
    return build(type='mmaction.VisionTransformer', **sizes, **kwargs)


@pytest.mark.parametrize('prefix, init_values', [('', 0.0), ('backbone.', 0.1)])
def test_from_mmaction(prefix, init_values):
    theirs = mmaction_vit(init_values=init_values)
    head = {'cls_head.fc_cls.weight': torch.zeros(7, DIMS)}
    result = from_vit({**under(prefix, theirs), **head})
    assert (result.family, result.left_out) == ('mmaction_vit', list(head))
    assert any('sin-cos' in n for n in result.notes)
    assert any('LayerScale' in n for n in result.notes) == (init_values > 0)
    ours = s4d_vit(result.weights, out_type='avg')
    for size in (IMG, 48):  # other sizes interpolate
        x = clip(size)
        assert_equal(fc_norm(ours(x), result.weights), theirs(x))


def test_to_mmaction_finetuned():
    ours = build(
        type='Recognizer3D',
        backbone=dict(type='S4DViT', arch=ARCH, **SIZE),
        cls_head=dict(type='DualModalHead', in_channels=DIMS, num_classes=dict(video=7)),
    )
    result = to_mmaction_vit(ours.state_dict(), IMG, FRAMES)
    theirs = mmaction_vit()
    load_part(theirs, result.weights)
    left = {f'cls_head.classifiers.video.{name}' for name in ('weight', 'bias')}
    assert set(result.left_out) == left and 'use_mean_pooling=True' in result.notes[0]
    for size in (IMG, 48):
        x = clip(size)
        assert_equal(theirs(x), ours.cls_head.features(ours.backbone(x)))
    # and back: nothing is lost
    back = from_vit(result.weights)
    mine = {k: v for k, v in ours.state_dict().items() if 'classifiers' not in k}
    assert back.left_out == [] and set(back.weights) == set(mine)
    assert all(torch.equal(back.weights[k], v) for k, v in mine.items())


def test_to_mmaction_pretrained():
    """As VideoMAE: without the norm after the last block."""
    ours = build(type='S4DMAEViT', arch=ARCH, out_type='featmap', **SIZE)
    arch = dict(embed_dims=24, num_layers=1, num_heads=2)
    decoder = build(type='S4DMAEDecoder', in_channels=DIMS, arch=arch, **SIZE)
    weights = {**under('backbone.', ours), **under('neck.', decoder)}
    result = to_mmaction_vit(weights, IMG, FRAMES)
    assert set(result.left_out) == set(under('neck.', decoder))
    assert 'use_mean_pooling=True' in result.notes[0]
    assert 'norm after the last block is left out' in result.notes[1]
    theirs = mmaction_vit(return_feat_map=True)
    own = {k.removeprefix('backbone.'): v for k, v in result.weights.items()}
    missing, unexpected = theirs.load_state_dict(own, strict=False)
    assert (set(missing), unexpected) == ({'fc_norm.weight', 'fc_norm.bias'}, [])
    ours.norm = torch.nn.Identity()
    # without a norm the features are in the tens
    torch.testing.assert_close(theirs(clip()), ours(clip(), mask=None), atol=1e-4, rtol=1e-4)


def test_to_mmaction_refuses():
    moae = build(type='MoAENeck', arch=ARCH, num_layers=1, num_experts=2)
    ours = under('backbone.', s4d_vit(from_vit(mmaction_vit().state_dict()).weights))
    norm = torch.ones(DIMS)
    for weights, match in (
        ({**ours, **under('neck.', moae)}, 'last blocks .* MoAENeck'),
        (mmaction_vit().state_dict(), 'no checkpoint of s4d_mm'),
        (
            {**ours, 'backbone.norm.weight': norm, 'cls_head.fc_norm.weight': norm},
            'before and after the average',
        ),
    ):
        with pytest.raises(ValueError, match=match):
            to_mmaction_vit(weights)
    with pytest.raises(ValueError, match='multiple of the patch size 16'):
        to_mmaction_vit(ours, img_size=40)
    assert 'starts anew' in to_mmaction_vit(ours).notes[1]


# --- plain models with the names of families that are not installed
class PlainBlock(nn.Module):
    """Parameters and computation of timm (``class Block`` of timm/models/vision_transformer.py) or
    VideoMAE (modeling_finetune.py)."""

    def __init__(self, style):
        super().__init__()
        self.norm1 = nn.LayerNorm(DIMS, eps=1e-6)
        self.norm2 = nn.LayerNorm(DIMS, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv = nn.Linear(DIMS, 3 * DIMS, bias=style == 'timm')
        self.attn.proj = nn.Linear(DIMS, DIMS)
        self.mlp.fc1 = nn.Linear(DIMS, 4 * DIMS)
        self.mlp.fc2 = nn.Linear(4 * DIMS, DIMS)
        scales = [nn.Parameter(torch.zeros(DIMS)) for _ in range(4)]
        if style == 'timm':
            self.ls1, self.ls2 = nn.Module(), nn.Module()
            self.ls1.gamma, self.ls2.gamma = scales[:2]
        else:
            self.gamma_1, self.gamma_2, self.attn.q_bias, self.attn.v_bias = scales

    def forward(self, x):
        scale1, scale2 = (p for name, p in self.named_parameters() if 'gamma' in name)
        qkv = self.attn.qkv(self.norm1(x))
        if hasattr(self.attn, 'q_bias'):
            qkv = qkv + torch.cat((self.attn.q_bias, 0 * self.attn.q_bias, self.attn.v_bias))
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
        conv, kernel = (nn.Conv2d, PATCH) if style == 'timm' else (nn.Conv3d, (2, *PATCH))
        self.patch_embed.proj = conv(3, DIMS, kernel, kernel)
        self.blocks = nn.ModuleList(PlainBlock(style) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIMS, eps=1e-6)

    def forward(self, x, positions):
        """Tokens before and after the final norm."""
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + positions
        for block in self.blocks:
            x = block(x)
        return x, self.norm(x)


@pytest.fixture
def timm():
    return randomise(PlainViT('timm'))


def assert_same_features(weights, theirs):
    ours, image = s4d_vit(weights, final_norm=True), clip()[:, :, 0]
    assert_equal(ours(image), theirs(image, ours.positions((1, 2, 2)))[1])


def test_from_timm(timm):
    # the prefix tokens of DeiT, the head of `global_pool='avg'`, the decoder of MAE
    tokens = ('cls_token', 'dist_token', 'pos_embed', 'mask_token', 'decoder_pos_embed')
    extra = {name: torch.randn(1, 6, DIMS) for name in tokens}
    extra |= keys('decoder_embed.weight', 'decoder_blocks.0.attn.qkv.weight', 'head_dist.weight')
    state = {**extra, **timm.state_dict()}
    assert state['blocks.0.attn.qkv.bias'][DIMS : 2 * DIMS].abs().min() > 0
    before = {k: v.clone() for k, v in state.items()}
    result = from_vit(state)
    assert result.family == 'timm_vit' and result.left_out == list(extra)
    assert all(torch.equal(before[k], v) for k, v in state.items())
    assert_same_features(result.weights, timm)


def test_from_timm_without_biases(timm):
    for block in timm.blocks:  # qkv_bias=False, proj_bias=False
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.bias = None
    timm.patch_embed.proj.bias = None
    result = from_vit(timm.state_dict())
    assert f'{5 * DEPTH + 1} missing biases' in ' '.join(result.notes)
    assert_same_features(result.weights, timm)


@pytest.mark.parametrize('wrapper', ['', 'model.'])
def test_from_videomae_finetuned(wrapper):
    theirs = randomise(PlainViT('videomae'))
    theirs.norm = nn.Identity()  # fine-tuned: fc_norm after the average
    theirs.fc_norm = randomise(nn.LayerNorm(DIMS, eps=1e-6))
    theirs.head = nn.Linear(DIMS, 7)
    state = under(wrapper, theirs)
    result = from_vit(state)
    assert result.family == 'videomae'
    assert result.left_out == [f'{wrapper}head.weight', f'{wrapper}head.bias']
    ours = s4d_vit(result.weights, out_type='avg')
    tokens = theirs(clip(), ours.positions((2, 2, 2)))[0]
    assert_equal(fc_norm(ours(clip()), result.weights), theirs.fc_norm(tokens.mean(1)))


def test_from_videomae_pretrained():
    """S4D's pre-training model is VideoMAE's: numbers of the authors' code."""
    ref = torch.load(osp.join(DATA, 'pretrain_a.pt'), weights_only=True)
    theirs, arch = ref['state_dict'], ref['arch']
    result = from_vit(theirs)
    assert (result.family, result.left_out, result.notes) == ('videomae', [], [])
    expected, _ = from_authors(theirs, 'pretrain')
    assert set(result.weights) == set(expected)
    assert all(torch.equal(result.weights[k], expected[k]) for k in expected)
    sizes = dict(embed_dims=arch['dim'], num_layers=arch['depth'], num_heads=arch['heads'])
    model = build(type='S4DMAEViT', img_size=arch['img'], arch=sizes)
    load_part(model, result.weights)
    with torch.no_grad():
        latent = model(ref['video'], ref['video_mask'])[0]
    assert_equal(latent, ref['video_encoded'])


# --- what does not fit
def test_what_is_no_start(timm):
    swin = dict(arch=dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2]), out_indices=(1,))
    swin = build(type='mmpretrain.SwinTransformer', **swin).state_dict()
    for weights, size, message in (
        (swin, None, 'not the keys of a family that is known .videomae, timm'),
        (PlainViT('videomae').state_dict(), 4, 'tubelets of 2 frames'),
        (under('backbone.', build(type='S4DViT', arch=ARCH, img_size=IMG)), None, 'to convert'),
    ):
        with pytest.raises(ValueError, match=message):
            from_vit(weights, tubelet_size=size)


@pytest.mark.parametrize(
    'name, shape, expected',
    [
        ('blocks.1.norm2.bias', None, (DIMS,)),
        ('blocks.0.mlp.fc2.weight', (DIMS, 2 * DIMS), (DIMS, 4 * DIMS)),  # gated
        ('blocks.1.attn.qkv.weight', (72, DIMS), (3 * DIMS, DIMS)),  # narrow
    ],
)
def test_other_blocks_are_refused(name, shape, expected, timm):
    weights = dict(timm.state_dict())
    weights.pop(name)
    if shape is not None:
        weights[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match='incomplete, or the blocks') as e:
        from_vit(weights)
    assert f'  backbone.{name}: {shape or "missing"} instead of {expected}' in str(e.value)


@pytest.mark.parametrize(
    'name',
    [
        'reg_token',
        'patch_embed.norm.weight',
        'temporal_pos_embed',
        'blocks.0.attn.q_norm.weight',
        'blocks.0.head.weight',
    ],
)
def test_a_parameter_without_a_place_is_refused(name, timm):
    with pytest.raises(ValueError, match=f'S4DViT does not have(.|\n)*\n  {name}\n'):
        from_vit({**timm.state_dict(), **keys(name)})


def test_other_weights_of_the_authors_are_refused():
    state = torch.load(osp.join(DATA, 'finetune_a.pt'), weights_only=True)['state_dict']
    with pytest.raises(ValueError, match=r'moe_layer\.experts(.|\n)*s4d_to_mm.py'):
        from_vit(state)


# --- the commands
@pytest.mark.parametrize('tubelet_size', [None, 1, 4])
def test_command(tubelet_size, timm, tmp_path, capsys):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(dict(model={**timm.state_dict(), **keys('head.weight')}), src)
    options = [] if tubelet_size is None else ['--tubelet-size', str(tubelet_size)]
    assert vit_to_mm.main([str(src), str(dst), *options]) == 0
    out, size = capsys.readouterr().out, tubelet_size or 2
    weights = torch.load(dst, weights_only=True)['state_dict']
    assert f'wrote {len(weights)} parameters' in out
    said = ('timm_vit', '1 keys', '  head.weight', '4 LayerScales', '2 biases of keys')
    assert all(text in out for text in (*said, f'tubelets of {size} frames'))
    assert {p.name for p in tmp_path.iterdir()} == {'dst.pth', 'src.pth'}
    # the tokens of the image, and of a still clip, frame by frame
    ours = s4d_vit(weights, tubelet_size=size, final_norm=True)
    image = clip()[:, :, 0]
    tokens = timm.patch_embed.proj(image).flatten(2).transpose(1, 2)
    assert_equal(ours.patch_embed(image), tokens)
    still = image[:, :, None].expand(-1, -1, FRAMES, -1, -1)
    assert_equal(ours.patch_embed(still), tokens.repeat(1, FRAMES // size, 1))
    # as `load_from` into a model whose last block is in the neck
    model = build(
        type='DualModalRecognizer',
        backbone=dict(type='S4DViT', arch=ARCH, img_size=IMG, depth=1, tubelet_size=size),
        neck=dict(type='MoAENeck', arch=ARCH, num_layers=1, num_experts=2),
        cls_head=dict(type='DualModalHead', in_channels=DIMS, num_classes=dict(video=7)),
    )
    load_checkpoint(model, str(dst), map_location='cpu', strict=False)
    for block, part in ((0, model.backbone), (1, model.neck)):
        found = part.blocks[0].attn.qkv.weight
        assert torch.equal(found, weights[f'backbone.blocks.{block}.attn.qkv.weight'])


def test_command_to_mmaction(tmp_path, capsys):
    src, dst, back = (str(tmp_path / f'{name}.pth') for name in ('src', 'dst', 'back'))
    mine = under('backbone.', build(type='S4DMAEViT', arch=ARCH, img_size=IMG))
    torch.save(dict(state_dict=mine, meta={}), src)
    sizes = ['--img-size', str(IMG), '--num-frames', str(FRAMES)]
    assert s4d_to_mmaction.main([src, dst, *sizes]) == 0
    out = capsys.readouterr().out
    assert 'mmaction_vit' in out and 'use_mean_pooling=False' in out
    # and the other command brings it back
    assert vit_to_mm.main([dst, back]) == 0
    found = torch.load(back, weights_only=True)['state_dict']
    assert set(found) == set(mine)
    assert all(torch.equal(found[k], mine[k]) for k in mine)
