# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction: what the test pipelines of a config do with frames that are decoded already."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, init_default_scope

from .scorer import Window

TOP_LEVEL = ('test_pipeline', 'image_test_pipeline')
LOADERS = ('test_dataloader', 'val_dataloader')
LOADING_STEP = re.compile(r'(Init|Decode)$|^Load|^ImageLoad$')
# For samplers that spread their frames over a clip of any length (UniformSample, or SampleFrames
# with clip_len=1 for Recognizer2D), which says nothing about windows: the recipe's interval.
SPREAD_INTERVAL = 4


class PipelineSteps(NamedTuple):
    """The part of a test pipeline that comes after decoding.

    Attributes:
        steps (Compose): Its steps.
        window (Window | None): How the pipeline samples a clip; None for images.
        clips (int): Number of clips that these frames are to the steps.
        key (str): 'imgs', a list of RGB frames, or 'img', one BGR image as of mmcv's
            ``LoadImageFromFile``.
        dtype (type): Of the pixels.
    """

    steps: Compose
    window: Window | None
    clips: int
    key: str
    dtype: type

    def __call__(self, images: list[np.ndarray], input_type: str) -> dict:
        """Run the steps.

        Args:
            images (list[np.ndarray]): RGB, uint8, (height, width, 3), of one size. They are copied,
                since some steps work in place.
            input_type (str): 'video' or 'image'.

        Returns:
            dict: ``inputs`` and ``data_samples``.
        """
        shape = images[0].shape[:2]
        data = dict(
            filename='',
            label=-1,
            modality='RGB',
            input_type=input_type,
            sample_id='',
            start_index=0,
            total_frames=len(images),
            frame_inds=np.arange(len(images)),
            frame_interval=1,
            clip_len=len(images) // self.clips,
            num_clips=self.clips,
            original_shape=shape,
            ori_shape=shape,
            img_shape=shape,
        )
        if self.key == 'img':
            data['img'] = np.ascontiguousarray(images[0][..., ::-1]).astype(self.dtype)
        else:
            data['imgs'] = [image.astype(self.dtype) for image in images]  # astype copies
        packed = self.steps(data)
        packed['data_samples'].set_metainfo(dict(input_type=input_type))
        return packed


def step_name(step: dict) -> str:
    """Name of a pipeline step without its scope, such as 'SampleFrames'."""
    kind = step['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def find_pipelines(cfg: Config) -> dict[str, tuple[str, list]]:
    """The test pipelines of a config.

    They are at the top level (``test_pipeline``, ``image_test_pipeline``), or in the dataset of
    ``test_dataloader`` or ``val_dataloader``, also in those that it joins.

    Args:
        cfg (Config): The config.

    Returns:
        dict[str, tuple[str, list]]: Key in the config and the pipeline, by input type: 'video' if
        the pipeline samples frames, else 'image'.
    """
    found = {}
    places = [(name, cfg.get(name)) for name in TOP_LEVEL]
    for loader in LOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        places += dataset_pipelines(dataset, f'{loader}.dataset')
    for place, pipeline in places:
        if pipeline:
            samples = any('Sample' in step_name(step) for step in pipeline)
            found.setdefault('video' if samples else 'image', (place, pipeline))
    return found


def dataset_pipelines(dataset: dict, place: str) -> Iterator[tuple[str, list]]:
    """Yield key and pipeline of a dataset's config, and of the datasets in it."""
    for key, value in dataset.items():
        if key == 'pipeline':
            yield f'{place}.{key}', value
            continue
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, dict):
                yield from dataset_pipelines(inner, f'{place}.{key}')


def read_pipeline(cfg: Config, place: str, pipeline: list) -> PipelineSteps:
    """Leave out what opens, samples and decodes files, and build the rest.

    Args:
        cfg (Config): The config.
        place (str): Key of the pipeline in it, for messages.
        pipeline (list[dict]): The pipeline.

    Returns:
        PipelineSteps: The rest, and how it samples.

    Raises:
        ValueError: If it has no step that loads, or one that cannot be done on frames.
    """
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    names = [step_name(step) for step in pipeline]
    loading = [i for i, name in enumerate(names) if LOADING_STEP.search(name)]
    if not loading:
        raise ValueError(
            f'{place} of {cfg.filename} has no step that loads a file (such as ClipDecode, '
            f'ImageLoad or LoadImageFromFile), but only {", ".join(names)}.'
        )
    window, clips = None, 1
    for step in pipeline:
        if 'Sample' in step_name(step):
            window, clips = read_window(cfg, place, step)
            break
    loader = pipeline[loading[-1]]
    if loader.get('color_type', 'color') != 'color':
        raise ValueError(
            f'{place} of {cfg.filename} loads images with color_type={loader["color_type"]!r}; '
            "prediction gives colour images only. Use a model of color_type='color'."
        )
    rest = [s for s in pipeline[loading[-1] + 1 :] if 'Sample' not in step_name(s)]
    return PipelineSteps(
        steps=Compose(rest),
        window=window,
        clips=clips,
        key='img' if names[loading[-1]] == 'LoadImageFromFile' else 'imgs',
        dtype=np.float32 if loader.get('to_float32') else np.uint8,
    )


def read_window(cfg: Config, place: str, step: dict) -> tuple[Window, int]:
    """What a sampling step takes of a clip.

    Args:
        cfg (Config): The config.
        place (str): Key of the pipeline in it, for messages.
        step (dict): Config of the step.

    Returns:
        tuple[Window, int]: How it samples one view, and into how many clips the later steps
        divide its frames.

    Raises:
        ValueError: If it changes the frame rate.
    """
    sampler = TRANSFORMS.build(dict(step))
    if getattr(sampler, 'target_fps', None) is not None:
        raise ValueError(
            f'{place} of {cfg.filename} samples with target_fps={sampler.target_fps}, which '
            'prediction does not do. Leave it out and set frame_interval for your frame rate.'
        )
    loop = getattr(sampler, 'out_of_bound_opt', '') == 'loop'
    clip_len, clips = sampler.clip_len, getattr(sampler, 'num_clips', 1)
    if clip_len == 1 and clips > 1:
        return Window(clips, SPREAD_INTERVAL, loop), clips
    return Window.of_sampler(sampler, SPREAD_INTERVAL, loop), 1
