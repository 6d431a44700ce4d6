# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Load pre-trained weights of other code into its own models, and print what arrived, as JSON.

python foreign_weights.py FOLDER [MODULE ...]

The files are made in FOLDER where they are not there. The modules are imported first.
"""

import hashlib
import importlib
import json
import sys
import types
import warnings
from pathlib import Path

import torch

warnings.simplefilter('ignore')


def provide_drn():
    """What the wheel of mmaction2 1.2.0 lacks, without which mmaction.models does not import."""
    package = types.ModuleType('mmaction.models.localizers.drn')
    child = types.ModuleType(f'{package.__name__}.drn')
    package.__path__, child.DRN = [], type('DRN', (), {})
    sys.modules.update({package.__name__: package, child.__name__: child})


def random_like(state, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=generator) if v.is_floating_point() else v.clone()
        for k, v in state.items()
    }


def first_slice(state, *keys):
    """As of a model for images: kernels without their temporal dimension."""
    return {k: v[:, :, 0] if k in keys else v for k, v in state.items()}


def saved(folder, name, make):
    path = folder / f'{name}.pth'
    if not path.is_file():
        torch.save(make(), path)
    return str(path)


def uniformer(folder):
    from mmaction.models.backbones import uniformer as module

    def build(pretrained):
        sizes = dict(depth=[1] * 4, img_size=32, embed_dim=[16, 32, 48, 64], head_dim=16)
        return module.UniFormer(**sizes, pretrained=pretrained)

    def make():
        return first_slice(random_like(build(None).state_dict()), 'patch_embed1.proj.weight')

    module._MODELS['tiny'] = saved(folder, 'uniformer', make)
    model = build('tiny')
    model.init_weights()
    return model


def uniformerv2(folder):
    """From CLIP."""
    from mmaction.models.backbones import uniformerv2 as module

    def build():
        return module.UniFormerV2(
            input_resolution=32,
            width=64,
            layers=2,
            heads=2,
            t_size=2,
            return_list=[0, 1],
            n_layers=2,
            n_dim=64,
            n_head=2,
            mlp_dropout=[0.5, 0.5],
            pretrained='tiny',
        )

    def make():
        return first_slice(random_like(build().state_dict()), 'conv1.weight')

    module._MODELS['tiny'] = saved(folder, 'uniformerv2', make)
    model = build()
    model.init_weights()
    return model


def video_swin(folder):
    """From Swin for images (``pretrained2d``)."""
    from mmaction.models import SwinTransformer3D

    def build(pretrained=None):
        arch = dict(embed_dims=16, depths=[1] * 4, num_heads=[1, 1, 2, 2])
        return SwinTransformer3D(arch=arch, window_size=(2, 2, 2), pretrained=pretrained)

    def make():
        state = first_slice(random_like(build().state_dict()), 'patch_embed.proj.weight')
        for key in list(state):
            if 'relative_position_bias_table' in key:
                state[key] = state[key][:9]
        state['norm.weight'], state['norm.bias'] = (
            state.pop('norm3.weight'),
            state.pop('norm3.bias'),
        )
        return dict(model=state)

    model = build(saved(folder, 'video_swin', make))
    model.init_weights()
    return model


def tsn_resnet(folder):
    """From torchvision."""
    import torchvision
    from mmaction.models import ResNet

    def make():
        return random_like(torchvision.models.resnet18().state_dict())

    model = ResNet(depth=18, pretrained=saved(folder, 'resnet18', make))
    model.init_weights()
    return model


def mvit(folder):
    from mmaction.models import MViT

    def build(**options):
        arch = dict(embed_dims=16, num_layers=2, num_heads=1, downscale_indices=[1])
        return MViT(arch=arch, spatial_size=32, temporal_size=4, **options)

    path = saved(folder, 'mvit', lambda: dict(state_dict=random_like(build().state_dict())))
    model = build(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    return model


def videomae(folder):
    from mmaction.models import VisionTransformer

    def build(**options):
        return VisionTransformer(img_size=32, embed_dims=32, depth=2, num_heads=2, **options)

    def make():
        return dict(
            state_dict={f'backbone.{k}': v for k, v in random_like(build().state_dict()).items()}
        )

    init_cfg = dict(
        type='Pretrained', checkpoint=saved(folder, 'videomae', make), prefix='backbone.'
    )
    model = build(init_cfg=init_cfg)
    model.init_weights()
    return model


def mae(folder):
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint

    def build():
        arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
        sizes = dict(num_patches=4, patch_size=16)
        decoder = dict(embed_dim=32, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
        return MODELS.build(
            dict(
                type='mmpretrain.MAE',
                backbone=dict(type='mmpretrain.MAEViT', arch=arch, img_size=32, patch_size=16),
                neck=dict(type='mmpretrain.MAEPretrainDecoder', **sizes, **decoder),
                head=dict(
                    type='mmpretrain.MAEPretrainHead',
                    patch_size=16,
                    loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
                ),
            )
        )

    path = saved(folder, 'mae', lambda: dict(state_dict=random_like(build().state_dict()), meta={}))
    model = build()
    load_checkpoint(model, path, map_location='cpu')
    return model


def milan(folder):
    """From CLIP."""
    from mmpretrain.models.selfsup import CLIPGenerator
    from mmpretrain.models.utils.clip_generator_helper import CLIP

    def make():
        return random_like(CLIP(16, 32, 1, 64, 16, 8, 20, 64, 1, 1, False, 1).state_dict())

    return CLIPGenerator(saved(folder, 'milan', make)).tokenizer


MODELS = (uniformer, uniformerv2, video_swin, tsn_resnet, mvit, videomae, mae, milan)


def main(folder, *modules):
    for module in modules or ():
        importlib.import_module(module)
    if not modules:
        provide_drn()
        importlib.import_module('mmpretrain.models')
        importlib.import_module('mmaction.models')
    found = {}
    for build in MODELS:
        torch.manual_seed(0)
        try:
            state = build(Path(folder)).state_dict()
        except Exception as e:
            found[build.__name__] = repr(e)
            continue
        digest = hashlib.sha256()
        for key, value in state.items():
            digest.update(key.encode() + value.float().numpy().tobytes())
        (file,) = Path(folder).glob(
            f'{dict(tsn_resnet="resnet18").get(build.__name__, build.__name__)}.pth'
        )
        weights = torch.load(file)
        for key in ('model', 'state_dict'):
            weights = weights.get(key, weights)
        values = {v.float().sum().item() for v in weights.values()}
        arrived = sum(v.float().sum().item() in values for v in state.values())
        found[build.__name__] = [arrived, len(state), digest.hexdigest()[:12]]
    print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
