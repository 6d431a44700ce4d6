# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(c) Clips and images a second out of the pre-training pipeline, in one
process as one worker of a data loader runs it: ours from the config, raw
decoding by decord of the same frames, and the plain float32 pipeline.

With ``device_config``, the pipeline of a config that leaves the crops to the
device is measured too.
"""

import os.path as osp
import tempfile
from typing import Optional

import cv2
import decord
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import s4d_mm  # noqa: F401

from . import media, plain_pipeline, timing
from .steps import CONFIGS

CONFIG = osp.join(CONFIGS, 's4d_pretrain.py')


def pipelines(config: str) -> dict:
    """The training pipelines of a config, by modality."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    dataset = cfg.train_dataloader.dataset
    return {name: Compose(dataset[name].pipeline) for name in ('video', 'image')}


def sample(path: str, modality: str) -> dict:
    """What a dataset hands to the pipeline."""
    return dict(
        filename=path,
        sample_id=osp.basename(path),
        input_type=modality,
        modality='RGB',
        start_index=0,
    )


def chosen_frames(pipeline: Compose, path: str, seed: int) -> np.ndarray:
    """The frames that the pipeline takes of a clip with this seed."""
    results = sample(path, 'video')
    np.random.seed(seed)
    for transform in pipeline.transforms:
        results = transform(results)
        if 'frame_inds' in results:
            return np.asarray(results['frame_inds'])
    raise ValueError('The pipeline chooses no frames.')


def raw_decode(path: str, inds: np.ndarray) -> np.ndarray:
    """What no pipeline can do without."""
    return decord.VideoReader(path, num_threads=1).get_batch(inds).asnumpy()


def raw_image(path: str) -> np.ndarray:
    """The same for an image."""
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def measure(
    clips: int = 8,
    images: int = 32,
    num_frames: int = 150,
    gop: int = 25,
    image_size: int = 400,
    repeats: int = 5,
    warmup: int = 1,
    config: str = CONFIG,
    device_config: Optional[str] = None,
) -> list[dict]:
    """Samples a second of each pipeline; a repetition is a pass over all.

    Args:
        clips (int): Clips of 224 x 224 pixels. Defaults to 8.
        images (int): Defaults to 32.
        num_frames (int): Frames of a clip. Defaults to 150.
        gop (int): From a key frame to the next. Defaults to 25.
        image_size (int): Height and width. Defaults to 400.
        repeats (int): Defaults to 5.
        warmup (int): Defaults to 1.
        config (str): Our config. Defaults to configs/s4d_pretrain.py.
        device_config (str, optional): One that crops on the device. Defaults
            to None.

    Returns:
        list[dict]: A row for each.
    """
    # as in the workers: mp_cfg of the config, and PyTorch's own rule
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    ours = pipelines(config)
    on_device = pipelines(device_config) if device_config else None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        videos = [
            media.write_clip(osp.join(folder, f'{i}.mp4'), num_frames, gop=gop, seed=i)
            for i in range(clips)
        ]
        inds = [chosen_frames(ours['video'], p, i) for i, p in enumerate(videos)]
        pictures = [
            media.write_image(osp.join(folder, f'{i}.jpg'), image_size, seed=i)
            for i in range(images)
        ]

        def run(pipeline, paths, modality):

            def case():
                for i, path in enumerate(paths):
                    np.random.seed(i)
                    pipeline(sample(path, modality))

            return case

        def each(function, *columns):

            def case():
                for arguments in zip(*columns):
                    function(*arguments)

            return case

        cases = dict(
            video=dict(
                raw=each(raw_decode, videos, inds),
                plain=each(plain_pipeline.pretrain_clip, videos, inds),
                ours=run(ours['video'], videos, 'video'),
            ),
            image=dict(
                raw=each(raw_image, pictures),
                plain=each(plain_pipeline.pretrain_image, pictures),
                ours=run(ours['image'], pictures, 'image'),
            ),
        )
        if on_device:
            cases['video']['ours_device_crops'] = run(on_device['video'], videos, 'video')
            cases['image']['ours_device_crops'] = run(on_device['image'], pictures, 'image')
        for modality, of_modality in cases.items():
            times = timing.interleave(of_modality, repeats, warmup)
            count = clips if modality == 'video' else images
            for impl, t in times.items():
                rows.append(
                    dict(
                        modality=modality,
                        impl=impl,
                        ms_each=t.median / count * 1e3,
                        per_second=count / t.median,
                        spread=t.spread,
                        share_of_raw=timing.median_ratio(times['raw'], t),
                        ratio_to_plain=timing.median_ratio(times['plain'], t),
                    )
                )
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
    return rows
