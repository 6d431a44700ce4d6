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
    theirs = mmaction_vit(return_feat_map=True)
    own = {k.removeprefix('backbone.'): v for k, v in result.weights.items()}
    missing, unexpected = theirs.load_state_dict(own, strict=False)
    assert (set(missing), unexpected) == ({'fc_norm.weight', 'fc_norm.bias'}, [])
    ours.norm = torch.nn.Identity()
    # without a norm the features are in the tens
    torch.testing.assert_close(theirs(clip()), ours(clip(), mask=None), atol=1e-4, rtol=1e-4)


def test_to_mmaction_refuses():
    moae = build(type='MoAENeck', arch=ARCH, num_layers=1, num_experts=2)
    ours = under('backbone.', build(type='S4DViT', arch=ARCH, **SIZE))
    with pytest.raises(ValueError, match='last blocks .* MoAENeck'):
        to_mmaction_vit({**ours, **under('neck.', moae)})
    with pytest.raises(ValueError, match='multiple of the patch size 16'):
        to_mmaction_vit(ours, img_size=40)


# --- plain models with the names of families that are not installed
class PlainBlock(nn.Module):
    """As ``Block`` of timm's vision_transformer.py or of VideoMAE's modeling_finetune.py."""

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
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
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
        if style == 'timm':
            self.norm = nn.LayerNorm(DIMS, eps=1e-6)
        else:  # fine-tuned
            self.fc_norm = nn.LayerNorm(DIMS, eps=1e-6)
            self.head = nn.Linear(DIMS, 7)

    def forward(self, x, positions):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + positions
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(1)) if hasattr(self, 'fc_norm') else self.norm(x)


# of each family: weights, what has no place, a note and the features of a video or an image
def of_mmaction():
    theirs, head = mmaction_vit(init_values=0.1), keys('cls_head.fc_cls.weight')
    state = {**under('backbone.', theirs), **head}
    return state, head, 'LayerScale', lambda x, positions: theirs(x)


def of_timm():
    # the prefix tokens of DeiT, the head of `global_pool='avg'`, the decoder of MAE
    tokens = ('cls_token', 'dist_token', 'pos_embed', 'mask_token', 'decoder_pos_embed')
    extra = {name: torch.randn(1, 6, DIMS) for name in tokens}
    extra |= keys('decoder_embed.weight', 'decoder_blocks.0.attn.qkv.weight', 'head_dist.weight')
    theirs = randomise(PlainViT('timm'))
    return {**extra, **theirs.state_dict()}, extra, 'LayerScale', theirs


def of_timm_without_biases():
    theirs = randomise(PlainViT('timm'))
    for block in theirs.blocks:  # qkv_bias=False, proj_bias=False
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.bias = None
    theirs.patch_embed.proj.bias = None
    return theirs.state_dict(), (), f'{5 * DEPTH + 1} missing biases', theirs


def of_videomae():
    theirs = randomise(PlainViT('videomae'))
    left_out = ('model.head.weight', 'model.head.bias')
    return under('model.', theirs), left_out, '', theirs


@pytest.mark.parametrize(
    'make, family',
    [
        (of_mmaction, 'mmaction_vit'),
        (of_timm, 'timm_vit'),
        (of_timm_without_biases, 'timm_vit'),
        (of_videomae, 'videomae'),
    ],
)
def test_features_are_those_of_the_family(make, family):
    state, left_out, note, theirs = make()
    before = {k: v.clone() for k, v in state.items()}
    result = from_vit(state)
    assert (result.family, result.left_out) == (family, list(left_out))
    assert note in ' '.join(result.notes)
    assert all(torch.equal(before[k], v) for k, v in state.items())
    images = family == 'timm_vit'
    options = dict(final_norm=True) if images else dict(out_type='avg')
    ours = s4d_vit(result.weights, **options)
    for size in (IMG, 48):  # other sizes interpolate
        x = clip(size)[:, :, 0] if images else clip(size)
        found = ours(x) if images else fc_norm(ours(x), result.weights)
        grid = (1 if images else 2, size // 16, size // 16)
        assert_equal(found, theirs(x, ours.positions(grid)))


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
def swin():
    arch = dict(embed_dims=24, depths=[1, 1], num_heads=[1, 2])
    return build(type='mmpretrain.SwinTransformer', arch=arch, out_indices=(1,)).state_dict()


def authors():
    return torch.load(osp.join(DATA, 'finetune_a.pt'), weights_only=True)['state_dict']


def timm(**change):
    return {**PlainViT('timm').state_dict(), **change}


@pytest.mark.parametrize(
    'make, message',
    [
        (swin, 'not the keys of a family that is known .videomae, timm'),
        (authors, r'moe_layer\.experts(.|\n)*s4d_to_mm.py'),
        (lambda: timm(reg_token=torch.zeros(1)), r'S4DViT does not have(.|\n)*\n  reg_token\n'),
        (
            lambda: timm(**{'blocks.0.mlp.fc2.weight': torch.zeros(DIMS, 2 * DIMS)}),  # gated
            r'the blocks(.|\n)*  backbone.blocks.0.mlp.fc2.weight: .*96. instead of .*192.',
        ),
    ],
)
def test_what_is_no_start(make, message):
    with pytest.raises(ValueError, match=message):
        from_vit(make())


# --- the commands
@pytest.mark.parametrize('tubelet_size', [None, 1, 4])
def test_command(tubelet_size, tmp_path, capsys):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    theirs = randomise(PlainViT('timm'))
    torch.save(dict(model={**theirs.state_dict(), **keys('head.weight')}), src)
    options = [] if tubelet_size is None else ['--tubelet-size', str(tubelet_size)]
    assert vit_to_mm.main([str(src), str(dst), *options]) == 0
    out, size = capsys.readouterr().out, tubelet_size or 2
    weights = torch.load(dst, weights_only=True)['state_dict']
    assert f'wrote {len(weights)} parameters' in out
    assert '  head.weight' in out and f'tubelets of {size} frames' in out
    # the tokens of the image, and of a still clip, frame by frame
    ours = s4d_vit(weights, tubelet_size=size, final_norm=True)
    image = clip()[:, :, 0]
    tokens = theirs.patch_embed.proj(image).flatten(2).transpose(1, 2)
    assert_equal(ours.patch_embed(image), tokens)
    still = image[:, :, None].expand(-1, -1, FRAMES, -1, -1)
    assert_equal(ours.patch_embed(still), tokens.repeat(1, FRAMES // size, 1))


def test_command_to_mmaction(tmp_path, capsys):
    src, dst = (str(tmp_path / f'{name}.pth') for name in ('src', 'dst'))
    mine = under('backbone.', build(type='S4DMAEViT', arch=ARCH, img_size=IMG))
    torch.save(dict(state_dict=mine, meta={}), src)
    sizes = ['--img-size', str(IMG), '--num-frames', str(FRAMES)]
    assert s4d_to_mmaction.main([src, dst, *sizes]) == 0
    assert 'use_mean_pooling=False' in capsys.readouterr().out
