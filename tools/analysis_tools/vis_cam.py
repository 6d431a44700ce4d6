# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw where a fine-tuned model sees an expression: Grad-CAM heat maps.

    python tools/analysis_tools/vis_cam.py CONFIG CHECKPOINT MEDIA [--target-category anger]

MEDIA is a video, a folder of frames or an image. Each pair of rows is a view of the clip: a frame
of each tubelet, and the same with its heat map.
"""

import argparse
import os.path as osp
import sys

import cv2
import matplotlib
import mmcv
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import s4d_mm.guard  # noqa: F401
from s4d_mm.apis import init_model
from s4d_mm.media import is_picture
from s4d_mm.models import DualModalHead, MoAENeck, S4DViT
from s4d_mm.predict.models import class_names


def read_media(model: nn.Module, path: str) -> dict:
    if not osp.exists(path):
        raise ValueError(f'There is no file or folder {path}.')
    kind = 'image' if is_picture(path) else 'video'
    name = 'image_test_pipeline' if kind == 'image' else 'test_pipeline'
    if name not in model.cfg:
        raise ValueError(f'{path}: the config {model.cfg.filename} has no `{name}`.')
    init_default_scope(model.cfg.get('default_scope', 'mmaction'))
    info = dict(filename=path, label=-1, start_index=0, modality='RGB')
    data = Compose(model.cfg[name])(dict(info, input_type=kind, sample_id=path))
    data['data_samples'].set_metainfo(dict(input_type=kind))
    return pseudo_collate([data])


def heat_maps(model: nn.Module, path: str, target: str | None = None) -> tuple[Tensor, Tensor, str]:
    """Frames (V views, T, H, W, 3), RGB in 0..1, their heat maps (V, T, H, W), and the class.

    ``target`` is the name of a class, by default the predicted one.
    """
    last = model.neck if model.with_neck else model.backbone
    if not (isinstance(model.backbone, S4DViT) and isinstance(last, (S4DViT, MoAENeck))):
        name = type(model.backbone).__name__
        raise ValueError(f'vis_cam.py draws models of S4DViT, with MoAENeck or not, not of {name}')
    batch = read_media(model, path)
    input_type = batch['data_samples'][0].metainfo['input_type']
    names = class_names(model, input_type)
    if target not in (None, *names):
        raise ValueError(f'--target-category {target} is not a class of {", ".join(names)}')
    inputs, outputs = model.data_preprocessor(batch)['inputs'], []
    hook = last.blocks[-1].register_forward_hook(lambda *call: outputs.append(call[-1]))
    features, kwargs = model.extract_feat(inputs)
    hook.remove()
    if isinstance(model.cls_head, DualModalHead):
        kwargs['input_types'] = input_type
    scores = model.cls_head(features, **kwargs)  # of each view
    label = names.index(target) if target else int(scores.softmax(1).mean(0).argmax())
    # blocks with experts also give their loss
    tokens = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    (gradient,) = torch.autograd.grad(scores[:, label].sum(), tokens)
    grid = model.backbone.patch_embed.grid(inputs.flatten(0, 1))  # (t, h, w)
    tokens, gradient = (x.detach().transpose(1, 2).unflatten(2, grid) for x in (tokens, gradient))
    maps = (gradient.mean((3, 4), keepdim=True) * tokens).sum(1, keepdim=True).relu()
    frames = torch.stack(batch['inputs']).flatten(0, 1) / 255  # V C [T] H W
    frames = frames if frames.ndim == 5 else frames.unsqueeze(2)
    maps = F.interpolate(maps, frames.shape[2:], mode='trilinear')[:, 0].cpu()
    maps = maps - maps.amin((1, 2, 3), keepdim=True)
    maps = maps / (maps.amax((1, 2, 3), keepdim=True) + 1e-20)
    return frames.permute(0, 2, 3, 4, 1).cpu(), maps, names[label]


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('config', help='fine-tuning config')
    add('checkpoint')
    add('media', help='video, folder of frames, or image')
    add('--out', default='cam.png')
    add('--target-category', help='name of a class; the predicted one if not given')
    add('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    try:
        model = init_model(args.config, args.checkpoint, args.device)
        frames, maps, name = heat_maps(model, args.media, args.target_category)
    except (ImportError, KeyError, OSError, SyntaxError, TypeError, ValueError) as e:
        sys.exit(f'{args.config}: {e}' if isinstance(e, (KeyError, TypeError)) else str(e))
    colours = torch.from_numpy(matplotlib.colormaps['viridis'](maps.numpy())[..., :3])
    step = model.backbone.patch_embed.tubelet_size if frames.shape[1] > 1 else 1
    pairs = torch.stack((frames, (frames + colours) / 2), dim=1)[:, :, ::step]  # V 2 t H W 3
    picture = pairs.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)
    try:
        mmcv.imwrite((picture.flip(-1) * 255).round().byte().numpy(), args.out)
    except (OSError, cv2.error) as e:
        sys.exit(f'{args.out} cannot be written: {e}')
    print(f'{args.out}: where {args.media} looks like {name}')


if __name__ == '__main__':
    main()
