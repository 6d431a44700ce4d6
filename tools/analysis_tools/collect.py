# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run a model once over its test data and keep what look_inside.py draws, in one .npz file.

    python tools/analysis_tools/collect.py CONFIG CHECKPOINT [--out collected.npz]

It has ``blocks`` and, under ``video_`` and ``image_``, of N samples: ``id``, ``label``, ``scores``
(N, classes), probabilities; ``features`` (N, C), the classifier's input; ``share`` (N, B, E) of the
tokens that the experts of B blocks get; ``experts`` (N, B, t, h, w) of the largest weight. Of clips
``hidden`` (N, T), the true class's probability with the mean frame in the place of a frame;
``alone`` (N, T, classes), the image classifier on a frame; ``strength`` (N, T) of facial actions.
Of several views these are of the first. ``classes``; ``shown``, one sample of each; its ``frames``.
"""

import argparse
import io
import json
import math
import os.path as osp

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

import s4d_mm.guard  # noqa: F401
from s4d_mm.datasets import BaseExpressionDataset
from s4d_mm.engine.launch import errors_as_messages
from s4d_mm.files.atomic_write import atomic_write
from s4d_mm.models import MoAENeck, S4DViT
from s4d_mm.models.tokens import last_stage
from s4d_mm.predict.scorers import TorchScorer


def watch(model: nn.Module) -> dict:
    """What the routers return, by block, and the neck's ``input``, in the model's last call."""
    neck, found = getattr(model, 'neck', None), {}
    if isinstance(neck, MoAENeck):
        neck.register_forward_pre_hook(lambda _, args: found.update(input=args[0]))
        for block, router in neck.routers().items():
            router.register_forward_hook(lambda _, args, out, at=block: found.update({at: out}))
    return found


def routing(found: dict, model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """``share`` and, of ``S4DViT`` and of feature maps, ``experts`` of the model's last sample."""
    features, shares, main = last_stage(found['input']), [], []
    count = max(block.moae.num_experts for block in model.neck.blocks)
    for block in model.neck.routers():
        ids, weights = found[block].experts.cpu(), found[block].weights.cpu()
        shares.append(ids.flatten().bincount(minlength=count) / ids.numel())
        main.append(ids.gather(1, weights.argmax(1, keepdim=True))[:, 0])
    kept = dict(share=torch.stack(shares))
    if isinstance(model.backbone, S4DViT):
        grid = model.backbone.patch_embed.grid(pixels)
    elif isinstance(features, Tensor) and features.ndim > 3:
        grid = (1, *features.shape[2:])[-3:]
    else:
        return kept
    first = torch.stack(main)[:, : math.prod(grid)]  # the tokens of a view follow each other
    return dict(kept, experts=first.unflatten(1, grid).byte())


def frame_by_frame(scorer: TorchScorer, data: dict, info: dict) -> dict[str, np.ndarray]:
    """``hidden``, ``alone`` and ``strength`` of a clip."""

    def score(inputs: list[Tensor], kind: str) -> np.ndarray:
        samples = [dict(inputs=x, data_samples=data['data_samples'].clone()) for x in inputs]
        for sample in samples:
            sample['data_samples'].set_metainfo(dict(input_type=kind))
        return scorer.score(samples, kind)[0]

    clip = data['inputs']  # V 3 T H W
    mean, times = clip.float().mean(2, keepdim=True).to(clip.dtype), torch.arange(clip.shape[2])
    hidden = [torch.where((times == t)[:, None, None], mean, clip) for t in times]
    kept = dict(hidden=score(hidden, 'video')[:, info['label']])
    if 'image' in scorer.classes:
        kept['alone'] = score(list(clip[0].transpose(0, 1)[:, None]), 'image')
    frames = data['data_samples'].frame_inds[: len(times)]
    return dict(kept, strength=strength_of(info['filename'], frames))


def strength_of(media: str, frames: np.ndarray) -> np.ndarray:
    """Sum of the actions in the ``.json`` beside a clip, but blinks and gaze; NaN without one."""
    path = f'{osp.splitext(media)[0]}.json'
    if not osp.isfile(path):
        return np.full(len(frames), np.nan)
    with open(path, encoding='utf-8') as f:
        actions = json.load(f)['actions']
    other = ('eyeBlink', 'eyeLook')
    own = [values for name, values in actions.items() if not name.startswith(other)]
    return np.sum(own or np.zeros((1, max(frames) + 1)), axis=0)[frames]


def collect(cfg: Config, checkpoint: str, most: int, device: str | None) -> dict[str, np.ndarray]:
    """The arrays, of at most so many samples of each modality, drawn at random."""
    scorer = TorchScorer(cfg, checkpoint, device)
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{cfg.filename} has no test_dataloader. Give a config of fine-tuning.')
    found, kept = watch(scorer.model), {}
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for part in getattr(dataset, 'datasets', [dataset]):
        if not isinstance(part, BaseExpressionDataset):
            raise ValueError(f'{cfg.filename} tests {type(part).__name__}, no data of s4d_mm.')
        for step in part.pipeline.transforms:
            if hasattr(step, 'meta_keys'):
                step.meta_keys = (*step.meta_keys, 'frame_inds')
        kind, rows, shown = part.INPUT_TYPE, [], {}
        for i in np.random.default_rng(0).permutation(len(part))[: max(most, 1)].tolist():
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
    return dict(kept, blocks=list(scorer.model.neck.routers())) if found else kept


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='fine-tuning config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='collected.npz')
    parser.add_argument('--max-samples', type=int, default=500, help='of each modality, at random')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    content = io.BytesIO()
    with errors_as_messages(config=True):
        cfg = Config.fromfile(args.config)
        found = collect(cfg, args.checkpoint, args.max_samples, args.device)
        np.savez_compressed(content, **found)
        atomic_write(args.out, content.getvalue())
    print(f'{args.out}: {", ".join(key for key in found if key.endswith("scores"))}')


if __name__ == '__main__':
    main()
