# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run a model once over its test data and keep, in one .npz file, what look_inside.py draws.

Of each modality, under ``video_`` and ``image_``: ``classes``, and of N samples ``id``, ``label``,
``scores`` (N, classes), which are probabilities, and ``features`` (N, C), the classifier's input;
``shown``, a sample of each class, and its ``frames`` (classes, T, H, W, 3). Of the B ``blocks``
with experts: ``share`` (N, B, E) of the tokens, and ``experts`` (N, B, t, h, w), that with the
largest weight, in the first view. Of the first view of clips: ``hidden`` (N, T), the true class's
probability where the mean frame is in the place of a frame; ``alone`` (N, T, classes), what the
image classifier says of a frame; ``strength`` (N, T) of the facial actions.
"""

import hashlib
import io
import json
import math
import os.path as osp
from argparse import Namespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

import s4d_mm.guard  # noqa: F401
from s4d_mm.files.atomic_write import atomic_write
from s4d_mm.models import MoAENeck, S4DViT
from s4d_mm.models.tokens import last_stage
from s4d_mm.predict.scorers import TorchScorer


def watch(model: nn.Module) -> dict:
    """What the routers return, by block, and ``input`` of the neck, in the model's last call."""
    neck, found = getattr(model, 'neck', None), {}
    if isinstance(neck, MoAENeck):
        neck.register_forward_pre_hook(lambda _, args: found.update(input=args[0]))
        for block, router in neck.routers().items():
            router.register_forward_hook(lambda _, args, out, at=block: found.update({at: out}))
    return found


def routing(found: dict, model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """``share`` and, of feature maps and the tokens of ``S4DViT``, ``experts`` of a sample."""
    features, blocks = last_stage(found['input']), model.neck.routers()
    count = max(block.moae.num_experts for block in model.neck.blocks)
    ids = torch.stack([found[block].experts.cpu() for block in blocks])  # B S K
    shares = [torch.bincount(part.flatten(), minlength=count) / part.numel() for part in ids]
    kept = dict(share=torch.stack(shares))
    grid = ()
    if isinstance(features, Tensor) and features.ndim > 3:
        grid = (1, *features.shape[2:])[-3:]
    elif isinstance(model.backbone, S4DViT):
        grid = model.backbone.patch_embed.grid(pixels)
    if grid:
        first = torch.stack([found[block].weights.argmax(1, True).cpu() for block in blocks])
        main = ids.gather(2, first)[:, : math.prod(grid), 0]  # the views follow each other
        kept['experts'] = main.unflatten(1, grid).byte()
    return kept


def frame_by_frame(scorer: TorchScorer, data: dict, info: dict) -> dict[str, np.ndarray]:
    """``hidden``, ``alone`` and ``strength`` of a clip."""

    def score(inputs: list[Tensor], kind: str) -> np.ndarray:
        samples = [dict(inputs=x, data_samples=data['data_samples'].clone()) for x in inputs]
        for sample in samples:
            sample['data_samples'].set_metainfo(dict(input_type=kind))
        return scorer.score(samples, kind)[0]

    clip = data['inputs']  # V 3 T H W
    mean, length = clip.float().mean(2, keepdim=True).to(clip.dtype), clip.shape[2]
    at = torch.arange(length)[:, None, None]
    hidden = [torch.where(at == t, mean, clip) for t in range(length)]
    kept = dict(hidden=score(hidden, 'video')[:, info['label']])
    if 'image' in scorer.classes:
        kept['alone'] = score(list(clip[0].transpose(0, 1)[:, None]), 'image')
    frames = data['data_samples'].frame_inds[:length]
    return dict(kept, strength=strength_of(info['filename'], frames))


def strength_of(media: str, frames: np.ndarray) -> np.ndarray:
    """Sum of the facial actions but blinks and gaze, of the ``.json`` beside a clip; NaN if none."""
    path = f'{osp.splitext(media)[0]}.json'
    if not osp.isfile(path):
        return np.full(len(frames), np.nan)
    with open(path, encoding='utf-8') as f:
        actions = json.load(f)['actions']
    gaze = ('eyeBlink', 'eyeLook')
    total = sum(np.array(v) for name, v in actions.items() if not name.startswith(gaze))
    return np.broadcast_to(total, max(np.size(total), frames.max() + 1))[frames]


def collect(args: Namespace, cfg: Config) -> dict[str, np.ndarray]:
    """Run the model on at most ``args.max_samples`` of each modality, drawn at random."""
    scorer = TorchScorer(cfg, args.checkpoint, args.device)
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{args.config} has no test_dataloader: give a config of fine-tuning.')
    found, kept = watch(scorer.model), {}
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for part in getattr(dataset, 'datasets', [dataset]):
        for step in part.pipeline.transforms:
            if hasattr(step, 'meta_keys'):
                step.meta_keys = (*step.meta_keys, 'frame_inds')
        kind, rows, shown = part.INPUT_TYPE, [], {}
        for i in np.random.default_rng(0).permutation(len(part))[: args.max_samples].tolist():
            info, data = part.get_data_info(i), part[i]
            if 'unreadable' in data['data_samples']:
                continue
            pixels, label = data['inputs'], info['label']
            (scores,), (features,) = scorer.score([data], kind, features=True)
            row = dict(id=info['sample_id'], label=label, scores=scores, features=features)
            row |= routing(found, scorer.model, pixels) if found else {}
            row |= frame_by_frame(scorer, data, info) if pixels.ndim == 5 else {}
            picture = pixels[0].movedim(0, -1).reshape(-1, *pixels.shape[-2:], 3).byte()
            shown.setdefault(label, (len(rows), picture))
            rows.append(row)
        kept |= {f'{kind}_{key}': np.stack([row[key] for row in rows]) for key in rows[0]}
        kept[f'{kind}_shown'], kept[f'{kind}_frames'] = map(np.stack, zip(*shown.values()))
        kept[f'{kind}_classes'] = np.array(part.metainfo['classes'])
    return dict(kept, blocks=np.array(list(scorer.model.neck.routers()))) if found else kept


def collected(args: Namespace) -> dict[str, np.ndarray]:
    """What ``collected.npz`` in ``args.out`` holds; made anew if it is of something else."""
    path, cfg = osp.join(args.out, 'collected.npz'), Config.fromfile(args.config)
    time = osp.getmtime(args.checkpoint) if osp.isfile(args.checkpoint) else 0
    made_of = repr((cfg.to_dict(), osp.abspath(args.checkpoint), time, args.max_samples))
    made_of = hashlib.sha256(made_of.encode()).hexdigest()
    if osp.isfile(path):
        with np.load(path) as file:
            if file['made_of'] == made_of:
                print(f'The model has run before: {path}')
                return dict(file)
    found, content = collect(args, cfg), io.BytesIO()
    np.savez_compressed(content, made_of=made_of, **found)
    atomic_write(path, content.getvalue())
    return found
