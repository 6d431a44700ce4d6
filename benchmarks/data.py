# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips and images a second out of training pipelines, against raw decoding.

In one process with one thread, as a worker of a data loader runs. Raw decoding is that of the
same frames by PyAV, or of the image by Pillow: what no pipeline can do without.
"""

import os.path as osp
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import s4d_mm  # noqa: F401  (registers the transforms)
from s4d_mm.media import NumberedFrames

from . import media, timing


def measure(configs: Sequence[str], clips: int = 8, repeats: int = 5) -> list[dict]:
    """Measure the training pipelines of some configs; a round is a pass over all samples.

    Args:
        configs (Sequence[str]): Paths of config files.
        clips (int): Clips of 150 frames of 224 x 224 pixels, and four times as many images
            of 400 x 400. Defaults to 8.
        repeats (int): Rounds. Defaults to 5.

    Returns:
        list[dict]: A row for each.
    """
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        videos = [media.write_clip(f'{folder}/{i}.mp4', 150, seed=i) for i in range(clips)]
        pictures = [media.write_image(f'{folder}/{i}.jpg', seed=i) for i in range(4 * clips)]
        for modality, paths in dict(video=videos, image=pictures).items():
            pipelines = {osp.basename(c): training_pipeline(c, modality) for c in configs}
            if modality == 'image':
                raw = partial(call_each, raw_image, paths)
            else:
                first = next(iter(pipelines.values()))
                frames = [chosen_frames(first, path, i) for i, path in enumerate(paths)]
                raw = partial(call_each, raw_clip, paths, frames)
            cases = {'raw decoding': raw}
            for name, pipeline in pipelines.items():
                cases[name] = partial(run_pipeline, pipeline, paths, modality)
            seconds = timing.interleave(cases, repeats)
            for name in cases:
                found = timing.summary(seconds[name], seconds['raw decoding'])
                rows.append(
                    dict(
                        modality=modality,
                        pipeline=name,
                        min_ms=found['min_s'] / len(paths) * 1e3,
                        median_ms=found['median_s'] / len(paths) * 1e3,
                        per_second=len(paths) / found['median_s'],
                        share_of_raw=found['ratio'],
                    )
                )
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
    return rows


def training_pipeline(config: str, modality: str) -> Compose:
    """Build the training pipeline of a config for 'video' or 'image'."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    return Compose(cfg.train_dataloader.dataset[modality].pipeline)


def sample(path: str, modality: str) -> dict:
    """Make what a dataset hands to the pipeline."""
    return dict(
        filename=path,
        sample_id=osp.basename(path),
        input_type=modality,
        modality='RGB',
        start_index=0,
    )


def run_pipeline(pipeline: Compose, paths: Sequence[str], modality: str) -> None:
    """Run the pipeline on each file, with the same random numbers in each round."""
    for i, path in enumerate(paths):
        np.random.seed(i)
        torch.manual_seed(i)
        pipeline(sample(path, modality))


def call_each(function: Callable, *columns: Sequence) -> None:
    """Call a function with the first of each column, then with the second, ..."""
    for arguments in zip(*columns):
        function(*arguments)


def chosen_frames(pipeline: Compose, path: str, seed: int) -> np.ndarray:
    """Find the frames that the pipeline takes of a clip with this seed."""
    results = sample(path, 'video')
    np.random.seed(seed)
    for transform in pipeline.transforms:
        results = transform(results)
        if 'frame_inds' in results:
            return np.asarray(results['frame_inds'])
    raise ValueError(f'The pipeline chooses no frames of {path}: {pipeline}')


def raw_clip(path: str, frames: np.ndarray) -> np.ndarray:
    """Decode some frames, (T, H, W, 3) uint8."""
    inds, where = np.unique(frames, return_inverse=True)
    return np.stack(list(NumberedFrames(path).read(inds.tolist())))[where]


def raw_image(path: str) -> np.ndarray:
    """Decode an image, (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))
