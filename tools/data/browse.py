# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save pictures of what a pipeline really feeds the model.

The decoded frames are above, the tensor ``inputs`` is below.

    python tools/data/browse.py configs/s4d_finetune_dfew.py --num 8
"""

import argparse
import os
import os.path as osp
import random
import re

from mmengine.config import Config, DictAction


def parse_args(argv: list | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Save pictures of what a pipeline feeds the model.'
    )
    parser.add_argument('config')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--num', type=int, default=8, help='samples of each modality')
    parser.add_argument('--out', help='folder, work_dirs/browse/<config>_<split> if not given')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    if args.num < 1:
        parser.error(f'--num {args.num}: must be 1 or more')
    if args.out is None:
        stem = osp.splitext(osp.basename(args.config))[0]
        args.out = osp.join('work_dirs', 'browse', f'{stem}_{args.split}')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from s4d_mm.engine.launch import load_config
from s4d_mm.media import write_image

MAX_FRAMES = 8  # in a row
GAP, LINE, WIDTH = 4, 18, 560  # pixels


def run_pipeline(dataset: BaseDataset, idx: int) -> tuple[list, dict]:
    """Run the pipeline of a dataset on a sample, step by step.

    Args:
        dataset (BaseDataset): The dataset.
        idx (int): Index of the sample.

    Returns:
        tuple[list[np.ndarray], dict]: The frames as they were decoded, and the
        output of the pipeline.
    """
    dataset.full_init()
    data, frames = dataset.get_data_info(idx), None
    for step in dataset.pipeline.transforms:
        data = step(data)
        if data is None:
            raise ValueError(f'{step} returns None for sample {idx} of {dataset.ann_file}.')
        if frames is None and 'imgs' in data:  # later steps work in place
            frames = [np.array(img) for img in data['imgs']]
    inputs = data.get('inputs')
    if (
        not torch.is_tensor(inputs)
        or inputs.dtype != torch.uint8
        or (inputs.ndim not in (4, 5))
        or frames is None
    ):
        found = (
            f'{inputs.dtype} {tuple(inputs.shape)}'
            if torch.is_tensor(inputs)
            else repr(type(inputs))
        )
        raise ValueError(
            f'The pipeline of {dataset.ann_file} must decode imgs and end in '
            'inputs, uint8 (V, 3, T, H, W) or (V, 3, H, W), but inputs is '
            f'{found}. See FormatShape and PackActionInputs.'
        )
    return frames, data


def pick(frames: list) -> list:
    """At most MAX_FRAMES frames, evenly spread."""
    count = min(MAX_FRAMES, len(frames))
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]


def row_of(frames: list, height: int) -> np.ndarray:
    """Frames side by side, each of this height."""
    parts = []
    for frame in pick(frames):
        h, w = frame.shape[:2]
        if h != height:
            frame = cv2.resize(frame, (max(1, round(w * height / h)), height))
        parts += [frame, np.full((height, GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def draw(frames: list, inputs: torch.Tensor, title: list[str]) -> np.ndarray:
    """One picture of a sample.

    Args:
        frames (list[np.ndarray]): Decoded frames, RGB.
        inputs (torch.Tensor): uint8 (V, 3, T, H, W) or (V, 3, H, W).
        title (list[str]): Lines of text above.

    Returns:
        np.ndarray: RGB. Below the text, rows of frames: one for each temporal
        view as decoded, then one for each view of ``inputs``.
    """
    if inputs.ndim == 4:
        inputs = inputs[:, :, None]
    after = inputs.permute(0, 2, 3, 4, 1).numpy()  # V, T, H, W, 3
    length = after.shape[1]
    before = [frames[i : i + length] for i in range(0, len(frames), length)]
    height = after.shape[2]
    blocks = [text_line(line) for line in title]
    for name, views in (('before', before), ('after', after)):
        blocks.append(text_line(f'{name}:'))
        for view in views:
            blocks.append(row_of(list(view), height))
            blocks.append(np.full((GAP, 1, 3), 255, np.uint8))
    width = max(block.shape[1] for block in blocks)
    return np.concatenate(
        [np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in blocks]
    )


def text_line(text: str) -> np.ndarray:
    """A line of text; OpenCV's font has ASCII only."""
    canvas = np.full((LINE, max(WIDTH, 8 * len(text)), 3), 255, np.uint8)
    cv2.putText(
        canvas, text, (2, LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA
    )
    return canvas


def describe(dataset: BaseDataset, data: dict) -> tuple[str, list[str]]:
    """Sample id, and the text of a picture."""
    sample, shape = data['data_samples'], tuple(data['inputs'].shape)
    name = str(sample.metainfo.get('sample_id', '(without sample_id)'))
    classes = dataset.metainfo.get('classes', ())
    label = 'no label'
    if 'gt_label' in sample and getattr(dataset, 'has_labels', True):
        number = int(sample.gt_label[0])
        label = f'{number} ' + (classes[number] if number < len(classes) else '(no such class)')
    return name, [f'{name}: {label}', f'inputs {shape}']


def browse(cfg: Config, split: str, num: int, out: str, seed: int = 0) -> list[str]:
    """Save the pictures.

    Args:
        cfg (Config): The config.
        split (str): 'train', 'val' or 'test'.
        num (int): Samples of each modality, chosen by the seed.
        out (str): Folder of the pictures.
        seed (int): Of the choice and of the augmentation. Defaults to 0.

    Returns:
        list[str]: Their paths, ``<modality>_<index>_<sample id>.png``.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no {split}_dataloader.')
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    dataset = DATASETS.build(loader['dataset'])
    dataset.full_init()
    os.makedirs(out, exist_ok=True)
    paths = []
    for one in getattr(dataset, 'datasets', [dataset]):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(one))[:num]
        for idx in np.sort(chosen).tolist():
            random.seed(seed + idx)  # a sample looks the same for any num
            np.random.seed((seed + idx) % 2**32)
            torch.manual_seed(seed + idx)
            frames, data = run_pipeline(one, idx)
            name, title = describe(one, data)
            picture = draw(frames, data['inputs'], title)
            modality = getattr(one, 'INPUT_TYPE', 'video')
            stem = re.sub(r'[^\w.-]+', '_', name)[-100:]
            paths.append(osp.join(out, f'{modality}_{idx:06d}_{stem}.png'))
            write_image(paths[-1], picture)
    return paths


def main(argv: list | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    paths = browse(cfg, args.split, args.num, args.out, args.seed)
    print(f'{len(paths)} pictures in {args.out}')


if __name__ == '__main__':
    main()
