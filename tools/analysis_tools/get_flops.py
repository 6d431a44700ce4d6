# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Count operations and parameters of each part of a model.

    python tools/analysis_tools/get_flops.py CONFIG [--shape 1 3 16 160 160]

Matrix products are counted, see docs/tools.md. 1 MAC is 2 FLOPs.
"""

import argparse
import sys
from collections import namedtuple

from mmengine.config import DictAction

# s4d_mm first: the published mmaction2 does not start without its repair
import s4d_mm.guard  # noqa: F401

# isort: split
import torch
from mmaction.models import Recognizer2D
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.models import MAE, ImageClassifier
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s4d_mm.engine.options import load_config
from s4d_mm.models import DualModalHead, LandmarkMobileFaceNet, S2DViT, S4DViT

Cost = namedtuple('Cost', 'flops params')  # of one part of a model, or of all


def run(model: nn.Module, x: torch.Tensor) -> object:
    """Forward pass of a recognizer, classifier or masked auto-encoder on (B, 3, [T,] H, W)."""
    if isinstance(model, MAE):
        latent, _, ids_restore = model.backbone(x)
        return model.neck(latent, ids_restore)
    if isinstance(model, ImageClassifier):
        return model.head(model.extract_feat(x))
    frames = getattr(model.data_preprocessor, 'image_frames', None)
    kind = 'image' if x.ndim == 4 else 'video'
    if kind == 'image' and frames is not None:
        x = x[:, :, None].expand(-1, -1, frames, -1, -1)
    x = x[:, None]  # one view
    if isinstance(model, Recognizer2D) and x.ndim == 6:  # its frames are samples
        x = x.squeeze(1).transpose(1, 2)  # B T C H W
    x, kwargs = model.extract_feat(x)
    if isinstance(model.cls_head, DualModalHead):
        kwargs['input_types'] = kind
    return model.cls_head(x, **kwargs)


def count(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Cost]:
    model.eval()
    for module in model.modules():
        if isinstance(module, LandmarkMobileFaceNet):
            module.has_weights = True  # any will do for counting
    # attention as plain matrix products, because its CPU kernel is not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(model, torch.zeros(shape))
    flops, costs = counter.get_flop_counts(), {}
    for name in ('backbone', 'neck', 'cls_head', 'head'):
        part = getattr(model, name, None)
        total = sum(flops.get(type(part).__name__, {}).values())
        if total:
            costs[name] = Cost(total, sum(p.numel() for p in part.parameters()))
    return costs


def input_shapes(model: nn.Module, shape: list) -> tuple[tuple, ...]:
    if len(shape) in (4, 5):
        return (tuple(shape),)
    vit = model.backbone
    if shape or not isinstance(vit, (S2DViT, S4DViT)):
        said = f'{type(vit).__name__} with --shape {shape}: give N C H W or N C T H W'
        sys.exit(f'{said}, e.g. --shape 1 3 16 224 224')
    is_s2d = isinstance(vit, S2DViT)
    size = vit.img_size if is_s2d else [n * vit.patch_embed.patch_size for n in vit.pos_grid]
    clip, image = (1, 3, vit.num_frames, *size), (1, 3, *size)
    if isinstance(model, ImageClassifier):
        return (image,)
    both = isinstance(model, MAE) or isinstance(model.cls_head, DualModalHead)
    return (clip, image) if both else (clip,)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description='Get FLOPs and parameters of a model.')
    parser.add_argument('config')
    parser.add_argument('--shape', type=int, nargs='+', default=[], help='not that of the config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    model = MODELS.build(cfg.model)
    for shape in input_shapes(model, args.shape):
        costs = count(model, shape)
        costs['total'] = Cost(*(sum(column) for column in zip(*costs.values())))
        print(f'\nInput shape: {shape}\n{"":10}{"GMACs":>10}{"GFLOPs":>10}{"M params":>10}')
        for name, (flops, params) in costs.items():
            print(f'{name:10}{flops / 2e9:10.3f}{flops / 1e9:10.3f}{params / 1e6:10.3f}')


if __name__ == '__main__':
    main()
