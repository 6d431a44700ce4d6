# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
r"""Draw where a fine-tuned model sees an expression: Grad-CAM heat maps.

They lie over a video, a folder of frames or an image.

    python tools/analysis_tools/vis_cam.py CONFIG CHECKPOINT MEDIA \
        [--target-category anger]

The method is mmaction2's ``GradCAM``. Each pair of rows is a view of the clip: a frame of each
tubelet, and the same with its heat map.
"""

import argparse
import os.path as osp
import sys

import mmcv
import torch
from mmaction.utils import GradCAM
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import s4d_mm.guard  # noqa: F401
from s4d_mm.apis import init_model
from s4d_mm.files.errors import weights_errors_as_messages
from s4d_mm.media import is_picture
from s4d_mm.models import MoAENeck, S4DViT
from s4d_mm.predict.models import class_names


class TokenGradCAM(GradCAM):
    """mmaction2's Grad-CAM for a ViT, whose layers give tokens (B, N, C), not maps."""

    def _register_hooks(self, layer_name: str) -> None:
        def keep_grid(embed, args):
            self.grid = embed.grid(args[0])  # (t, h, w)

        def keep_tokens(layer, args, output):
            # blocks with experts also give their loss
            tokens = output[0] if isinstance(output, tuple) else output
            self.target_activations = self._to_map(tokens)
            tokens.register_hook(keep_gradients)

        def keep_gradients(gradients):
            self.target_gradients = self._to_map(gradients)

        layer = self.model.get_submodule(layer_name.replace('/', '.'))
        embed = self.model.backbone.patch_embed
        self.hooks = [
            embed.register_forward_pre_hook(keep_grid),
            layer.register_forward_hook(keep_tokens),
        ]

    def __call__(self, *args, **kwargs) -> tuple[Tensor, Tensor]:
        average_clips = self.model.cls_head.average_clips
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self.model.zero_grad()
            self.model.cls_head.average_clips = average_clips
            for hook in self.hooks:
                hook.remove()

    def _to_map(self, tokens: Tensor) -> Tensor:
        return tokens.detach().transpose(1, 2).unflatten(2, self.grid)


def read_media(model: nn.Module, path: str) -> dict:
    if not osp.exists(path):
        raise ValueError(f'There is no file or folder {path}.')
    input_type, name = 'video', 'test_pipeline'
    if is_picture(path):
        input_type, name = 'image', 'image_test_pipeline'
    if name not in model.cfg:
        raise ValueError(f'{path}: the config {model.cfg.filename} has no `{name}`.')
    init_default_scope(model.cfg.get('default_scope', 'mmaction'))
    info = dict(filename=path, label=-1, start_index=0, modality='RGB')
    data = Compose(model.cfg[name])(dict(info, input_type=input_type, sample_id=path))
    data['data_samples'].set_metainfo(dict(input_type=input_type))
    return pseudo_collate([data])


def heat_maps(model: nn.Module, path: str, target: str | None = None) -> tuple[Tensor, Tensor, str]:
    """Frames, and frames under heat maps, (V views, T, H, W, 3), RGB in 0..1; name of the class.

    ``target`` is the name of a class, by default the predicted one.
    """
    part = 'neck' if model.with_neck else 'backbone'
    kinds = isinstance(model.backbone, S4DViT), isinstance(getattr(model, part), (S4DViT, MoAENeck))
    if not all(kinds):
        name = type(model.backbone).__name__
        raise ValueError(f'vis_cam.py draws models of S4DViT, with MoAENeck or not, not of {name}')
    data = read_media(model, path)
    (sample,) = data['data_samples']
    input_type = sample.metainfo['input_type']
    names = class_names(model, input_type)
    if target is not None:
        if target not in names:
            raise ValueError(f'--target-category {target} is not a class of {", ".join(names)}')
        sample.set_gt_label(names.index(target))
    if input_type == 'image':  # V C H W -> V C 1 H W, a clip of one frame
        data['inputs'] = [x.unsqueeze(2) for x in data['inputs']]
    layer = f'{part}/blocks/{len(getattr(model, part).blocks) - 1}'
    drawn, scores = TokenGradCAM(model, layer)(data, use_labels=target is not None)
    frames = torch.stack(data['inputs']).flatten(0, 1) / 255  # V C T H W
    label = int(sample.gt_label if target is not None else scores.argmax())
    return frames.permute(0, 2, 3, 4, 1), drawn, names[label]


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw Grad-CAM heat maps.')
    add = parser.add_argument
    add('config', help='fine-tuning config')
    add('checkpoint')
    add('media', help='video, folder of frames, or image')
    add('--out', default='cam.png')
    add('--target-category', help='name of a class; the predicted one if not given')
    add('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    with weights_errors_as_messages():
        model = init_model(args.config, args.checkpoint, args.device)
    try:
        frames, drawn, name = heat_maps(model, args.media, args.target_category)
    except ValueError as e:
        sys.exit(str(e))
    step = model.backbone.patch_embed.tubelet_size if frames.shape[1] > 1 else 1
    pairs = torch.stack((frames, drawn), dim=1)[
        :, :, ::step
    ]  # V 2 t H W 3, a frame of each tubelet
    picture = pairs.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)
    mmcv.imwrite((picture.flip(-1) * 255).round().byte().numpy(), args.out)
    print(f'{args.out}: where {args.media} looks like {name}')


if __name__ == '__main__':
    main()
