# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save pictures of what a model gets: the decoded frames, and the tensor ``inputs`` below.

python tools/data/browse.py configs/s4d_finetune_dfew.py --num 8
"""

import argparse
import os
import os.path as osp
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from s4d_mm.datasets.joint import seed_generators
from s4d_mm.engine.options import load_config
from s4d_mm.media import write_image

MAX_FRAMES = 8  # in a row
GAP = 4  # pixels between frames
PADDING = ((0, GAP), (0, GAP), (0, 0))


def run_pipeline(dataset: BaseDataset, idx: int) -> tuple[list, dict]:
    data, frames = dataset.get_data_info(idx), None
    for step in dataset.pipeline.transforms:
        data = step(data)
        if frames is None and 'imgs' in data:  # later steps work in place
            frames = [np.array(img) for img in data['imgs']]
    inputs = data.get('inputs')
    shape = tuple(inputs.shape) if torch.is_tensor(inputs) else ()
    if frames is None or len(shape) not in (4, 5) or inputs.dtype != torch.uint8:
        raise ValueError(
            f'The pipeline of {dataset.ann_file} must decode imgs and end in inputs, uint8 '
            '(V, 3, T, H, W) or (V, 3, H, W): see FormatShape and PackActionInputs.'
        )
    return frames, data


def row_of(frames: Sequence, height: int) -> np.ndarray:
    parts = []
    for i in np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).round().astype(int):
        h, w = frames[i].shape[:2]
        frame = cv2.resize(frames[i], (max(1, round(w * height / h)), height))
        parts.append(np.pad(frame, PADDING, constant_values=255))
    return np.concatenate(parts, axis=1)


def draw(frames: list, inputs: torch.Tensor) -> np.ndarray:
    """A row for each view as decoded, then one for each of ``inputs``, (V, 3, [T,] H, W)."""
    if inputs.ndim == 4:
        inputs = inputs[:, :, None]
    after = inputs.permute(0, 2, 3, 4, 1).numpy()  # V, T, H, W, 3
    length, height = after.shape[1:3]
    before = [frames[i : i + length] for i in range(0, len(frames), length)]
    rows = [row_of(view, height) for view in (*before, *after)]
    pads = [((0, 0), (0, max(r.shape[1] for r in rows) - row.shape[1]), (0, 0)) for row in rows]
    return np.concatenate([np.pad(r, p, constant_values=255) for r, p in zip(rows, pads)])


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
            frames, data = run_pipeline(one, idx)
            sample, label = data['data_samples'], 'no label'
            name = str(sample.metainfo.get('sample_id', '(without sample_id)'))
            if 'gt_label' in sample and getattr(one, 'has_labels', True):
                classes = dict(enumerate(one.metainfo.get('classes', ())))
                label = f'{int(sample.gt_label[0])} {classes.get(int(sample.gt_label[0]))}'
            modality = getattr(one, 'INPUT_TYPE', 'video')
            stem = re.sub(r'[^\w.-]+', '_', name)[-100:]
            paths.append(osp.join(out, f'{modality}_{idx:06d}_{stem}.png'))
            write_image(paths[-1], draw(frames, data['inputs']))
            print(f'{paths[-1]}: {label}, inputs {tuple(data["inputs"].shape)}')
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
