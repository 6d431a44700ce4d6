# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save pictures of what a model gets, the tensor ``inputs``: a row for each view.

python tools/data/browse.py configs/s4d_finetune_dfew.py --num 8
"""

import argparse
import os
import os.path as osp
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, init_default_scope

from s4d_mm.datasets.joint import seed_generators
from s4d_mm.engine.options import load_config
from s4d_mm.media import write_image

MAX_FRAMES = 8  # in a row
GAP = 4  # pixels between frames
PADDING = ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0))


def draw(inputs: torch.Tensor) -> np.ndarray:
    """A row of frames for each view of ``inputs``, (V, 3, [T,] H, W) uint8."""
    if inputs.ndim == 4:
        inputs = inputs[:, :, None]
    count = min(MAX_FRAMES, inputs.shape[2])
    shown = np.linspace(0, inputs.shape[2] - 1, count).round().astype(int)
    views = inputs[:, :, shown].permute(0, 2, 3, 4, 1).numpy()  # V, T, H, W, 3
    views = np.pad(views, PADDING, constant_values=255)
    return np.concatenate([np.concatenate(list(view), axis=1) for view in views])


def browse(cfg: Config, split: str, num: int, out: str, seed: int = 0) -> list[str]:
    """Save pictures of ``num`` samples of each modality, chosen and augmented by the seed."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no {split}_dataloader.')
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    dataset = DATASETS.build(loader['dataset'])
    dataset.full_init()
    os.makedirs(out, exist_ok=True)
    paths = []
    for one in getattr(dataset, 'datasets', [dataset]):
        chosen = np.random.default_rng(seed).permutation(len(one))[:num]
        for idx in np.sort(chosen).tolist():
            seed_generators(seed + idx)  # a sample looks the same for any num
            data = one[idx]
            inputs, sample, label = data['inputs'], data['data_samples'], 'no label'
            if inputs.ndim not in (4, 5) or inputs.shape[1] != 3 or inputs.dtype != torch.uint8:
                said = 'must be uint8, (V, 3, T, H, W) or (V, 3, H, W): see FormatShape'
                raise ValueError(f'inputs of {one.ann_file}: {tuple(inputs.shape)} {said}')
            name = str(sample.metainfo.get('sample_id', '(without sample_id)'))
            if 'gt_label' in sample and getattr(one, 'has_labels', True):
                classes = dict(enumerate(one.metainfo.get('classes', ())))
                label = f'{int(sample.gt_label[0])} {classes.get(int(sample.gt_label[0]))}'
            modality = getattr(one, 'INPUT_TYPE', 'video')
            stem = re.sub(r'[^\w.-]+', '_', name)[-100:]
            paths.append(osp.join(out, f'{modality}_{idx:06d}_{stem}.png'))
            write_image(paths[-1], draw(inputs))
            print(f'{paths[-1]}: {label}, inputs {tuple(inputs.shape)}')
    return paths


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('config')
    add('--split', choices=('train', 'val', 'test'), default='train')
    add('--num', type=int, default=8, help='samples of each modality')
    add('--out', help='folder, work_dirs/browse/<config>_<split> if not given')
    add('--seed', type=int, default=0)
    add('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(argv)
    out = args.out or osp.join('work_dirs', 'browse', f'{Path(args.config).stem}_{args.split}')
    cfg = load_config(args.config, args.cfg_options)
    paths = browse(cfg, args.split, args.num, out, args.seed)
    print(f'{len(paths)} pictures in {out}')


if __name__ == '__main__':
    main()
