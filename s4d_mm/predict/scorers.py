# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What turns face crops into probabilities: a model in PyTorch, or an exported one."""

import json
import re
from contextlib import nullcontext, suppress
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, init_default_scope
from mmpretrain.models.classifiers.base import BaseClassifier
from torch import nn

from ..datasets.config import config_classes
from ..files.errors import WeightsError
from ..models import DualModalDataPreprocessor, DualModalHead
from ..models.state_dict import classification_head
from .models import class_names, init_model
from .windows import Window

LOADING_STEP = re.compile(r'(Init|Decode)$|^Load|^ImageLoad$')
# For samplers that spread their frames over a clip of any length (UniformSample, or SampleFrames
# with clip_len=1 for Recognizer2D), which says nothing about windows: the recipe's interval.
SPREAD_INTERVAL = 4
# Steps that an exported model's file may name: they need nothing but frames. The list is closed,
# since the file may be a stranger's.
FRAME_STEPS = ('CenterCrop', 'ClipResize', 'FixedCrop', 'Resize')
# what the metadata of other versions' exported files lack
OTHER_FILES = dict(int8=False, loop=False, spread=False, trained_on='unknown data')


class Scorer(Protocol):
    """A model that classifies faces, whatever runs it.

    Attributes:
        name (str): The config or file, for messages.
        classes (dict[str, list[str]]): Class names in label order, by the input types that the
            model takes, 'video' and 'image'.
        window (Window | None): How it samples clips; None if it takes no videos.
        trained_on (str): Its training data, such as 'drawn faces'.
    """

    name: str
    classes: dict[str, list[str]]
    window: Window | None
    trained_on: str

    def prepare(self, images: list[np.ndarray], input_type: str) -> Any:
        """Turn the sampled frames of one window, or one image, into a sample.

        Args:
            images (list[np.ndarray]): RGB, uint8, (height, width, 3), all of one size:
                ``window.clip_len`` of them for 'video', 1 for 'image'.
            input_type (str): 'video' or 'image'.
        """

    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Classify samples of :meth:`prepare` in one batch.

        Returns:
            tuple: Probabilities (samples, classes), float32, and the input of the classifier
            (samples, C), if ``features`` are asked for, or None.
        """


class TorchScorer(Scorer):
    """A recognizer of mmaction2 or classifier of mmpretrain, with its config's test pipelines.

    Args:
        config (str | Config): Config file or object of a fine-tuned model.
        weights (str, optional): Its weights. Defaults to None, ``load_from`` of the config.
        device (str, optional): Defaults to None, a GPU if there is one.
    """

    def __init__(
        self, config: str | Config, weights: str | None = None, device: str | None = None
    ) -> None:
        cfg = config if isinstance(config, Config) else Config.fromfile(config)
        self.cfg, self.name = cfg, cfg.filename or 'the config'
        weights = weights or cfg.get('load_from')
        if weights is None:
            raise WeightsError(f'No weights are given for {self.name}: give a checkpoint of it.')
        self.model = init_model(cfg, weights, device)
        self.trained_on = self.model.trained_on
        self.head = classification_head(self.model)[1]
        self.pipelines = {
            kind: FramePipeline(cfg, place, steps)
            for kind, (place, steps) in find_pipelines(cfg).items()
            if kind in _input_types(self.model, cfg)
        }
        self.classes = {kind: class_names(self.model, kind) for kind in self.pipelines}
        self.window = self.pipelines['video'].window if 'video' in self.pipelines else None
        if hasattr(self.head, 'average_clips'):  # or the scores may be no probabilities
            self.head.average_clips = 'prob'

    def prepare(self, images: list[np.ndarray], input_type: str) -> dict:
        """See :class:`Scorer`."""
        return self.pipelines[input_type](images, input_type)

    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`Scorer`."""
        inputs, hook = [], nullcontext()
        if features:
            linear = [part for part in self.head.modules() if isinstance(part, nn.Linear)]
            own = isinstance(self.head, DualModalHead)
            classifier = self.head.classifiers[input_type] if own else linear[-1]
            hook = classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        with torch.no_grad(), hook:
            results = self.model.test_step(pseudo_collate(samples))
        scores = torch.stack([result.pred_score.flatten() for result in results]).float()
        if not features:
            return scores.cpu().numpy(), None
        seen = inputs[0].float().unflatten(0, (len(samples), -1))  # samples, views, ..., C
        return scores.cpu().numpy(), seen.flatten(1, -2).mean(dim=1).cpu().numpy()


def _input_types(model: nn.Module, cfg: Config) -> tuple[str, ...]:
    head = classification_head(model)[1]
    if isinstance(head.num_classes, dict):
        return tuple(head.num_classes)
    if isinstance(model, BaseClassifier):
        return ('image',)
    both = isinstance(model.data_preprocessor, DualModalDataPreprocessor)
    return ('video', 'image') if both and 'image' in config_classes(cfg) else ('video',)


def step_name(step: dict) -> str:
    """Name of a pipeline step without its scope, such as 'SampleFrames'."""
    kind = step['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def find_pipelines(cfg: Config) -> dict[str, tuple[str, list]]:
    """Key and steps of a config's test pipelines, by input type: 'video' if they sample frames.

    They are ``test_pipeline`` and ``image_test_pipeline`` of the config.
    """
    found = {}
    for name in ('test_pipeline', 'image_test_pipeline'):
        if pipeline := cfg.get(name):
            samples = any('Sample' in step_name(step) for step in pipeline)
            found.setdefault('video' if samples else 'image', (name, pipeline))
    return found


class FramePipeline:
    """The part of a test pipeline that comes after opening, sampling and decoding files.

    Args:
        cfg (Config): The config.
        place (str): Key of the pipeline in it, for messages.
        pipeline (list[dict]): The pipeline.

    Attributes:
        steps (list[dict]): The steps after decoding.
        window (Window | None): How it samples one view; None for images.
        clips (int): Number of clips into which the steps divide the frames of a view.
    """

    def __init__(self, cfg: Config, place: str, pipeline: list) -> None:
        init_default_scope(cfg.get('default_scope') or 'mmaction')
        self.place = f'{place} of {cfg.filename}'
        names = [step_name(step) for step in pipeline]
        loading = [i for i, name in enumerate(names) if LOADING_STEP.search(name)]
        if not loading:
            raise ValueError(f'{self.place} has no step that loads a file, but only {names}.')
        loader, rest = pipeline[loading[-1]], pipeline[loading[-1] + 1 :]
        self.is_bgr = names[loading[-1]] == 'LoadImageFromFile'  # mmcv's, one image
        self.dtype = np.float32 if loader.get('to_float32') else np.uint8
        samplers = [step for step in pipeline if 'Sample' in step_name(step)]
        self.window, self.clips = self._sampling(samplers[0]) if samplers else (None, 1)
        self.steps = [step for step in rest if step not in samplers]
        self.run = Compose(self.steps)

    def _sampling(self, step: dict) -> tuple[Window, int]:
        sampler = TRANSFORMS.build(dict(step))
        if getattr(sampler, 'target_fps', None) is not None:
            raise ValueError(
                f'{self.place}: target_fps={sampler.target_fps} is not for prediction. Set '
                'frame_interval for your frame rate instead.'
            )
        loop = getattr(sampler, 'out_of_bound_opt', '') == 'loop'
        clip_len, clips = sampler.clip_len, getattr(sampler, 'num_clips', 1)
        if clip_len == 1 and clips > 1:
            return Window(clips, SPREAD_INTERVAL, loop), clips
        span = getattr(sampler, 'predict_span', None)
        interval = getattr(sampler, 'frame_interval', None) or SPREAD_INTERVAL
        if span:
            interval = span // clip_len
        return Window(clip_len, interval, loop, bool(span)), 1

    def __call__(self, images: list[np.ndarray], input_type: str) -> dict:
        """``inputs`` and ``data_samples`` of images, which are copied: steps work in place."""
        data = decoded(images, input_type, self.clips)
        if self.is_bgr:
            data['img'] = np.ascontiguousarray(images[0][..., ::-1]).astype(self.dtype)
        else:
            data['imgs'] = [image.astype(self.dtype) for image in images]  # astype copies
        packed = self.run(data)
        packed['data_samples'].set_metainfo(dict(input_type=input_type))
        return packed


def decoded(images: list[np.ndarray], input_type: str, clips: int = 1) -> dict:
    """What the steps after decoding find beside the images, which are RGB and of one size."""
    shape = images[0].shape[:2]
    return dict(
        modality='RGB',
        input_type=input_type,
        sample_id='',
        total_frames=len(images),
        frame_inds=np.arange(len(images)),
        frame_interval=1,
        clip_len=len(images) // clips,
        num_clips=clips,
        original_shape=shape,
        ori_shape=shape,
        img_shape=shape,
    )


def build_frame_steps(steps: list[dict]) -> Compose:
    """Steps that resize and crop frames; lists in their configs stand for tuples, as after JSON."""
    unknown = [step_name(step) for step in steps if step_name(step) not in FRAME_STEPS]
    if unknown:
        raise ValueError(f'The steps {unknown} are not among {", ".join(FRAME_STEPS)}.')
    tuples = [{k: tuple(v) if isinstance(v, list) else v for k, v in s.items()} for s in steps]
    # mmpretrain has a Resize of its own
    return Compose([dict(s, type=step_name(s), _scope_='mmaction') for s in tuples])


def run_frame_steps(steps: Compose, images: list[np.ndarray]) -> np.ndarray:
    """Frames (T, H, W, 3), uint8, of RGB images of one size."""
    return np.stack(steps(dict(decoded(images, 'video'), imgs=list(images)))['imgs'])


class OnnxScorer(Scorer):
    """A model of ``tools/deployment/export.py``, run by onnxruntime.

    It takes one input type. A file with 8-bit integers, of 0.2, runs its samples one by one, since
    in a batch each would change the rounding of the others.

    Args:
        path (str): The ``.onnx`` file.
        device (str, optional): 'cpu', 'cuda' or 'cuda:N'. Defaults to None, the first GPU if this
            onnxruntime can use one.

    Attributes:
        info (dict): The metadata of the file, see docs/export.md.
    """

    def __init__(self, path: str, device: str | None = None) -> None:
        self.name = path
        self.session = open_session(path, device)
        self.info = info = read_info(self.session.get_modelmeta().custom_metadata_map, path)
        self.input_type, self.trained_on = info['input_type'], info['trained_on']
        self.classes = {self.input_type: info['classes']}
        self.window = None
        if self.input_type == 'video':
            self.window = Window(*(info[field] for field in Window._fields))
        self.frame_steps = build_frame_steps(info['steps'])

    def prepare(self, images: list[np.ndarray], input_type: str) -> np.ndarray:
        """See :class:`Scorer`. The sample is (3, T, H, W) or (3, H, W), uint8."""
        sample = run_frame_steps(self.frame_steps, images).transpose(3, 0, 1, 2)
        return sample if input_type == 'video' else sample[:, 0]

    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`Scorer`."""
        if features and 'features' not in [out.name for out in self.session.get_outputs()]:
            raise ValueError(f'{self.name} gives no features: only a DualModalHead has them.')
        names = ['probabilities', 'features'] if features else ['probabilities']
        size = 1 if self.info['int8'] else len(samples)
        batches = [np.stack(samples[i : i + size]) for i in range(0, len(samples), size)]
        try:
            parts = [self.session.run(names, {'pixels': batch}) for batch in batches]
        except Exception as e:  # it raises a type of its own for each fault
            raise ValueError(f'onnxruntime cannot run {self.name}: {e}') from e
        outputs = [np.concatenate(part) for part in zip(*parts)]
        return outputs[0], outputs[1] if features else None


def read_info(metadata: dict[str, str], path: str) -> dict:
    """The metadata of an exported file."""
    info = {}
    with suppress(json.JSONDecodeError):
        info = {key: json.loads(value) for key, value in metadata.items()}
    if 's4d_mm_version' not in info:
        raise ValueError(
            f'{path} was not written by tools/deployment/export.py, or is broken: it has not the '
            'metadata of that tool. Export the model again.'
        )
    return dict(OTHER_FILES, **info)


def open_session(path: str, device: str | None) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file, see :class:`OnnxScorer`."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    kind, _, number = str(device or 'cuda').partition(':')
    providers = ['CPUExecutionProvider']
    if kind == 'cuda' and 'CUDAExecutionProvider' in available:
        providers.insert(0, ('CUDAExecutionProvider', dict(device_id=int(number or 0))))
    elif device not in (None, 'cpu'):
        raise ValueError(
            f'device={device!r}: this onnxruntime has {available}. For cuda take onnxruntime-gpu.'
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as e:  # it raises a type of its own for each fault
        raise ValueError(f'onnxruntime cannot run {path}: {e}') from e
