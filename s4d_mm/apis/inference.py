# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From a file to class probabilities, with a trained model."""

import os.path as osp
from typing import Optional, Union

import mmengine
import torch
from mmaction.apis import init_recognizer
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from ..converters.fit import check_fit
from ..datasets.config_classes import config_classes
from ..media import is_picture
from ..models.heads import check_head_weights, classification_head


def init_model(
    config: Union[str, mmengine.Config],
    checkpoint: Optional[str] = None,
    device: Optional[str] = None,
) -> nn.Module:
    """Build a recognizer, load its weights and find out the names of its classes.

    They are those of the checkpoint, or else of the config's datasets, as for a
    checkpoint of the authors' code. mmaction2's ``init_recognizer`` does the
    building. It would only warn of weights that the checkpoint lacks, and
    predict with random ones.

    Args:
        config (str | Config): Config file or object.
        checkpoint (str, optional): Checkpoint to load. Defaults to None.
        device (str, optional): Defaults to None, which means the first GPU
            if there is one, else the CPU.

    Returns:
        nn.Module: In evaluation mode, with ``cfg`` and ``dataset_meta`` (None
        without a checkpoint, or if no names are known).

    Raises:
        ValueError: If the model has no classes, nothing of the checkpoint fits it, or it has
            no head of this size.
    """
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    model = init_recognizer(config, device=device)
    if classification_head(model)[1] is None:
        raise ValueError(
            f'{getattr(config, "filename", config)} is no config for prediction: its model '
            f'{type(model).__name__} has no head with classes, as in pre-training. Give one of '
            'fine-tuning.'
        )
    model.dataset_meta = None
    if checkpoint is not None:
        loaded = load_checkpoint(model, checkpoint, map_location='cpu')
        check_fit(model, loaded, source=checkpoint)
        check_head_weights(model, loaded)
        model.dataset_meta = loaded.get('meta', {}).get('dataset_meta')
        if not (model.dataset_meta or {}).get('classes'):
            classes = config_classes(model.cfg)
            model.dataset_meta = dict(classes=classes) if classes else None
    return model


def read_media(model: nn.Module, path: str) -> dict:
    """A batch of one video, folder of frames, or image, for ``test_step``.

    Args:
        model (nn.Module): From :func:`init_model`; its config has
            ``test_pipeline`` (video) and, for images, ``image_test_pipeline``.
        path (str): The file or folder.

    Returns:
        dict: ``inputs`` and ``data_samples``, with ``input_type`` in their
        meta information.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the config has no pipeline for this kind of file.
    """
    if not osp.exists(path):
        raise FileNotFoundError(f'There is no file or folder {path}.')
    is_image = is_picture(path)
    input_type = 'image' if is_image else 'video'
    name = 'image_test_pipeline' if is_image else 'test_pipeline'
    if name not in model.cfg:
        raise ValueError(
            f'{path} is of type {input_type}, but the config {model.cfg.filename} has no `{name}`.'
        )
    init_default_scope(model.cfg.get('default_scope', 'mmaction'))
    data = Compose(model.cfg[name])(
        dict(
            filename=path,
            label=-1,
            start_index=0,
            modality='RGB',
            input_type=input_type,
            sample_id=path,
        )
    )
    data['data_samples'].set_metainfo(dict(input_type=input_type))
    return pseudo_collate([data])


def class_names(model: nn.Module, input_type: str, count: int) -> list:
    """Names of the classes of a modality, or their numbers if there are not as many names.

    Args:
        model (nn.Module): From :func:`init_model`.
        input_type (str): 'video' or 'image'.
        count (int): Number of classes.

    Returns:
        list[str]: In label order.
    """
    classes = (model.dataset_meta or {}).get('classes')
    if isinstance(classes, dict):
        classes = classes.get(input_type)
    return list(classes if classes and len(classes) == count else map(str, range(count)))


def predict_expression(model: nn.Module, path: str) -> dict[str, float]:
    """Probabilities of the expressions in a video, a folder of frames, or an image.

    Args:
        model (nn.Module): From :func:`init_model`.
        path (str): See :func:`read_media`, which may raise.

    Returns:
        dict[str, float]: Probability of each class, in label order.
    """
    data = read_media(model, path)
    with torch.no_grad():
        (result,) = model.test_step(data)
    scores = result.pred_score.tolist()
    names = class_names(model, result.metainfo['input_type'], len(scores))
    return dict(zip(names, scores))
