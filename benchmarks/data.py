# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips and images a second out of training pipelines, from files and packed.

In one process with one thread, as a worker of a data loader runs. Raw decoding is that of the
same frames of the mp4 by PyAV, or of the image by Pillow. The plain pre-training data are written
as the authors' are: decord, Pillow, torchvision on float tensors.
"""

import os
import os.path as osp
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import pack
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torchvision.transforms import v2

import s4d_mm  # noqa: F401  (registers the transforms)
from s4d_mm.media import NumberedFrames, read_video, write_image

from . import media, timing
from .plain_s4d import MEAN, STD

NORMALIZE = v2.Normalize(MEAN, STD)
CLIP_CROP = v2.RandomResizedCrop(160, (0.08, 1.0), antialias=False)
TO_FLOAT = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), NORMALIZE]
IMAGE_STEPS = v2.Compose(
    [
        v2.RandomResizedCrop(160, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        *TO_FLOAT,
    ]
)


def measure(configs: Sequence[str], clips: int = 8, repeats: int = 5) -> list[dict]:
    """Measure the training pipelines of some configs; a round is a pass over all samples.

    Args:
        configs (Sequence[str]): Paths of config files.
        clips (int): Clips of 150 frames of 224 x 224 pixels, and four times as many images
            of 400 x 400. Defaults to 8.
        repeats (int): Rounds. Defaults to 5.

    Returns:
        list[dict]: A row for each pipeline and form of the data.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for modality in ('video', 'image'):
            files = write_files(folder, modality, clips)
            cases = {}
            for config in configs:
                cases.update(cases_of(config, modality, files, folder))
            plain = plain_clip if modality == 'video' else plain_image
            cases['plain pre-training'] = partial(call_each, plain, next(iter(files.values())))
            if modality == 'image':
                cases['raw decoding'] = partial(call_each, raw_image, files['jpg'])
            else:
                first = training_pipeline(configs[0], modality)
                frames = [chosen_frames(first, path, i) for i, path in enumerate(files['mp4'])]
                cases['raw decoding'] = partial(call_each, raw_clip, files['mp4'], frames)
            seconds = timing.interleave(cases, repeats)
            count = len(next(iter(files.values())))
            for name in cases:
                to_plain = timing.summary(seconds[name], seconds['plain pre-training'])
                to_raw = timing.summary(seconds[name], seconds['raw decoding'])
                rows.append(
                    dict(
                        modality=modality,
                        pipeline=name,
                        min_ms=to_plain['min_s'] / count * 1e3,
                        median_ms=to_plain['median_s'] / count * 1e3,
                        per_second=count / to_plain['median_s'],
                        times_plain=to_plain['ratio'],
                        share_of_raw=to_raw['ratio'],
                    )
                )
    return rows


def write_files(folder: str, modality: str, clips: int) -> dict[str, list[str]]:
    """Write clips as mp4 and as JPEG frames, or images; the paths of each kind."""
    for kind in ('jpg', 'mp4'):
        os.makedirs(f'{folder}/{kind}', exist_ok=True)
    if modality == 'image':
        images = [media.write_image(f'{folder}/jpg/{i}.jpg', seed=i) for i in range(4 * clips)]
        return dict(jpg=images)
    videos = [media.write_clip(f'{folder}/mp4/{i}.mp4', 150, seed=i) for i in range(clips)]
    frames = [f'{folder}/frames/{i}' for i in range(clips)]
    for video, path in zip(videos, frames):
        os.makedirs(path)
        for number, frame in enumerate(read_video(video)):
            write_image(f'{path}/{number:03d}.jpg', frame)
    return dict(mp4=videos, frames=frames)


def cases_of(config: str, modality: str, files: dict, folder: str) -> dict[str, Callable]:
    """Functions that run the pipeline of a config on each kind of files, and on packed data."""
    dataset = Config.fromfile(config).train_dataloader.dataset[modality].type
    kind = 'mp4' if dataset == 'VoxCeleb2' else list(files)[-1]
    packed = f'{folder}/{dataset}_{modality}'
    pack.pack(dataset, f'{folder}/{kind}', packed, workers=1)
    kinds = dict(files, packed=[f'{packed}/{osp.basename(path)}' for path in files[kind]])
    run = partial(run_pipeline, training_pipeline(config, modality), modality)
    name = osp.basename(config)
    return {f'{name}, {kind}': partial(run, paths) for kind, paths in kinds.items()}


def training_pipeline(config: str, modality: str) -> Compose:
    """Build the training pipeline of a config for 'video' or 'image'."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    return Compose(cfg.train_dataloader.dataset[modality].pipeline)


def sample(path: str, modality: str) -> dict:
    """Make what a dataset hands to the pipeline."""
    return dict(filename=path, sample_id=path, input_type=modality, modality='RGB', start_index=0)


def run_pipeline(pipeline: Compose, modality: str, paths: Sequence[str]) -> None:
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


def raw_image(path: str) -> Image.Image:
    """Decode an image."""
    with Image.open(path) as image:
        return image.convert('RGB')


def plain_clip(path: str) -> torch.Tensor:
    """Four crops of 16 frames, every fourth of a video, (4, 16, 3, 160, 160) float32."""
    import decord  # not above: its copies of FFmpeg's libraries stand in the way of PyAV's

    reader = decord.VideoReader(path, num_threads=1)
    start = np.random.randint(len(reader) - 63)
    frames = reader.get_batch(range(start, start + 64, 4)).asnumpy()[:, :160, 32:192]
    frames = [Image.fromarray(f).resize((192, 192), Image.Resampling.BILINEAR) for f in frames]
    clip = torch.stack([v2.functional.pil_to_tensor(frame) for frame in frames]).float() / 255
    return torch.stack([NORMALIZE(CLIP_CROP(clip)) for _ in range(4)])


def plain_image(path: str) -> torch.Tensor:
    """A crop of an image, (3, 160, 160) float32."""
    return IMAGE_STEPS(raw_image(path))
