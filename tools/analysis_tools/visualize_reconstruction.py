# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save a picture of what a pre-trained masked auto-encoder reconstructs.

Its rows are original, masked and reconstructed frames.

    python tools/analysis_tools/visualize_reconstruction.py CONFIG CHECKPOINT
"""

import argparse
from typing import Optional

from mmengine.config import DictAction


def parse_args(argv: Optional[list] = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Save a grid of original, masked and reconstructed frames.'
    )
    parser.add_argument('config', help='pre-training config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='reconstruction.png')
    parser.add_argument('--num', type=int, default=3, help='samples of each modality')
    parser.add_argument('--frames', type=int, default=4, help='frames shown of a clip')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(argv)


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import mmcv
import numpy as np
import torch
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from s4d_mm.converters.errors import weights_errors_as_messages
from s4d_mm.converters.fit import check_fit
from s4d_mm.engine.launch import load_config


@torch.no_grad()
def rows_of(model: torch.nn.Module, sample: dict, frames: int) -> np.ndarray:
    """Three rows of frames of one sample, (3 * H, frames * W, 3) RGB."""
    data = dict(inputs=[sample['inputs'][:1]], data_samples=[sample['data_samples']])
    inputs = model.data_preprocessor(data)['inputs']
    latent, mask, ids_restore = model.backbone(inputs)
    pred = model.neck(latent, ids_restore)
    head = model.head
    rebuilt = head.reconstruct(pred, inputs, mask)
    original = head.reconstruct(pred, inputs, torch.zeros_like(mask))
    hidden = head.to_video(mask[..., None].expand_as(pred), inputs)
    masked = torch.where(hidden.bool(), torch.full_like(original, 0.5), original)
    picks = np.linspace(0, original.shape[2] - 1, frames).round().astype(int)
    rows = [
        torch.cat([video[0, :, t] for t in picks], dim=2) for video in (original, masked, rebuilt)
    ]
    return (torch.cat(rows, dim=1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)


def main(argv: Optional[list] = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)

    model = MODELS.build(cfg.model)
    with weights_errors_as_messages():
        loaded = load_checkpoint(model, args.checkpoint, map_location='cpu')
        check_fit(model, loaded, source=args.checkpoint)
    model.eval()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    blocks = []
    if hasattr(dataset, 'modality_range'):
        parts = [dataset.modality_range(name) for name in ('video', 'image')]
    else:
        parts = [range(len(dataset))]
    for indices in parts:
        picks = np.linspace(0, len(indices) - 1, args.num).round().astype(int)
        blocks += [rows_of(model, dataset[indices[int(i)]], args.frames) for i in picks]
    mmcv.imwrite(np.concatenate(blocks)[..., ::-1].copy(), args.out)
    print(f'{args.out}: {len(blocks)} samples; rows are original, masked, reconstructed.')


if __name__ == '__main__':
    main()
