# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction, its middle: a model of a config, computed by PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmpretrain.models.classifiers.base import BaseClassifier
from torch import Tensor, nn

from ..datasets.config_classes import config_classes
from ..files.download import local_file
from ..files.errors import WeightsError
from ..models.data_preprocessors import DualModalDataPreprocessor
from ..models.heads import DualModalHead, classification_head
from .inference import class_names, init_model
from .pipelines import find_pipelines, read_pipeline
from .scorer import Scorer


class TorchScorer(Scorer):
    """A recognizer of mmaction2 or classifier of mmpretrain, with its config's test pipelines.

    Args:
        config (str | Config): Config file or object of a fine-tuned model.
        weights (str, optional): Its weights. Defaults to None, which means ``load_from`` of the
            config or the ``Pretrained`` ``init_cfg`` of its model.
        device (str, optional): Defaults to None, which means a GPU if there is one.

    Attributes:
        model (nn.Module): The model.
        cfg (Config): Its config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config is of pre-training or has no test pipeline.
        WeightsError: A ValueError; if the weights are not given, do not fit, or are not finite.
    """

    def __init__(
        self,
        config: str | Config,
        weights: str | None = None,
        device: str | None = None,
    ) -> None:
        cfg = Config.fromfile(config) if isinstance(config, str) else config
        self.name = cfg.filename or 'the config'
        require_classifier(cfg, self.name)
        weights = weights or default_weights(cfg)
        if weights is None:
            raise WeightsError(
                f'No weights are given for {self.name}, and without them the prediction would be '
                'random. Give a checkpoint of the fine-tuned model, or set load_from in the config.'
            )
        path = local_file(weights)
        try:
            self.model = init_model(cfg, path, device or get_device())
        except ValueError as e:
            raise WeightsError(f'{weights} cannot be used with {self.name}. {e}') from e
        self.cfg, self.trained_on = cfg, self.model.trained_on
        _, self.head = classification_head(self.model)
        self.pipelines = {
            kind: read_pipeline(cfg, place, pipeline)
            for kind, (place, pipeline) in find_pipelines(cfg).items()
            if kind in input_types(self.model, cfg)
        }
        if not self.pipelines:
            kinds = ' or '.join(f'{kind}s' for kind in sorted(input_types(self.model, cfg)))
            raise ValueError(
                f'{self.name} has no test pipeline for {kinds}: set test_pipeline '
                '(image_test_pipeline for images) or test_dataloader.dataset.pipeline.'
            )
        self.classes = {
            kind: class_names(self.model, kind, self._count(kind)) for kind in self.pipelines
        }
        video = self.pipelines.get('video')
        self.window = None if video is None else video.window
        # scores that are no probabilities yet become them
        self.softmax = getattr(self.head, 'average_clips', 'prob') == 'score'
        if getattr(self.head, 'average_clips', 'prob') is None:
            self.head.average_clips = 'prob'

    def _count(self, input_type: str) -> int:
        count = self.head.num_classes
        return count[input_type] if isinstance(count, dict) else count

    def prepare(self, images: list[np.ndarray], input_type: str) -> Any:
        """See :class:`Scorer`."""
        return self.pipelines[input_type](images, input_type)

    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`Scorer`."""
        if len({sample['inputs'].shape for sample in samples}) > 1:  # a recipe that keeps ratios
            parts = [self.score([sample], input_type, features) for sample in samples]
            scores, seen = zip(*parts)
            return np.concatenate(scores), np.concatenate(seen) if features else None
        inputs = []
        with torch.no_grad(), self._classifier_input(input_type, inputs if features else None):
            results = self.model.test_step(pseudo_collate(samples))
        scores = torch.stack([result.pred_score.flatten() for result in results]).float()
        if self.softmax:
            scores = scores.softmax(dim=1)
        if not features:
            return scores.cpu().numpy(), None
        seen = inputs[0].float().unflatten(0, (len(samples), -1))  # samples, views, ..., C
        return scores.cpu().numpy(), seen.flatten(1, -2).mean(dim=1).cpu().numpy()

    @contextmanager
    def _classifier_input(self, input_type: str, kept: list[Tensor] | None) -> Iterator[None]:
        """Keep what the classifier gets, unless ``kept`` is None."""
        if kept is None:
            yield
            return
        hook = self._classifier(input_type).register_forward_pre_hook(
            lambda module, args: kept.append(args[0])
        )
        try:
            yield
        finally:
            hook.remove()

    def _classifier(self, input_type: str) -> nn.Module:
        if isinstance(self.head, DualModalHead):
            return self.head.classifiers[input_type]
        linear = [part for part in self.head.modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise ValueError(
                f'{type(self.head).__name__} of {self.name} has no linear classifier, so there are '
                'no features to give. Leave out features=True.'
            )
        return linear[-1]


def require_classifier(cfg: Config, name: str) -> None:
    """Raise a ``ValueError`` if a config has no model that classifies."""
    model = cfg.get('model')
    if model is None:
        raise ValueError(f'{name} has no `model`, so it is no config of a model.')
    head = model.get('cls_head') or model.get('head') or {}
    if 'num_classes' not in head:
        raise ValueError(
            f'{name} has no classifier (num_classes in model.cls_head or model.head): its '
            f'{model.get("type")} is a model of pre-training. Give a config of fine-tuning and '
            'weights of that.'
        )


def default_weights(cfg: Config) -> str | None:
    """The weights that a config names for its whole model, or None."""
    init_cfg = cfg.model.get('init_cfg') or {}
    if cfg.get('load_from'):
        return cfg.load_from
    if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
        return init_cfg['checkpoint']
    return None


def input_types(model: nn.Module, cfg: Config) -> tuple[str, ...]:
    """What a model was made for: 'video', 'image' or both."""
    _, head = classification_head(model)
    if isinstance(head.num_classes, dict):
        return tuple(head.num_classes)
    if isinstance(model, BaseClassifier):
        return ('image',)
    both = isinstance(model.data_preprocessor, DualModalDataPreprocessor)
    return ('video', 'image') if both and 'image' in config_classes(cfg) else ('video',)
