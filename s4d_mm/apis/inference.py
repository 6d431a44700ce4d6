# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A trained model and the names of its classes."""

import mmengine
import torch
from mmaction.apis import init_recognizer
from mmengine.runner import load_state_dict
from torch import Tensor, nn

from ..converters.authors import as_own_checkpoint
from ..converters.fit import Fit, check_fit
from ..datasets.config_classes import config_classes, trained_on
from ..engine.saved_config import saved_config
from ..files.checkpoint import read_checkpoint
from ..files.errors import WeightsError
from ..models.backbones.landmark_net import LandmarkMobileFaceNet
from ..models.heads import check_head_weights, classification_head


def init_model(
    config: str | mmengine.Config,
    checkpoint: str | None = None,
    device: str | None = None,
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
        nn.Module: In evaluation mode, with ``cfg``, ``dataset_meta`` (None
        without a checkpoint, or if no names are known) and ``trained_on``, what the weights have
        seen, by the checkpoint or else the config.

    Raises:
        WeightsError: If the checkpoint lacks a parameter of the model, has it in
            another size, or holds a number that is not finite.
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
    model.dataset_meta, model.trained_on = None, 'unknown data'
    if checkpoint is not None:
        loaded = as_own_checkpoint(read_checkpoint(checkpoint))
        load_state_dict(model, loaded.get('state_dict', loaded), logger='silent')
        fit = check_fit(model, loaded, 'silent', source=checkpoint)
        check_head_weights(model, loaded)
        check_complete(model, fit, loaded.get('state_dict', loaded))
        meta = loaded.get('meta', {})
        model.dataset_meta = meta.get('dataset_meta')
        said = map(trained_on, (meta, saved_config(loaded), model.cfg))
        model.trained_on = next(filter(None, said), model.trained_on)
        if not (model.dataset_meta or {}).get('classes'):
            classes = config_classes(model.cfg)
            model.dataset_meta = dict(classes=classes) if classes else None
    return model


def check_complete(model: nn.Module, fit: Fit, weights: dict[str, Tensor]) -> None:
    """Refuse weights that leave a part of the model as it was initialised.

    Args:
        model (nn.Module): The model.
        fit (Fit): What of the weights fits it.
        weights (dict[str, Tensor]): The weights.

    Raises:
        WeightsError: With the first key that is missing or of another shape.
    """
    missing = list(fit.missing)
    for name, module in model.named_modules():
        if isinstance(module, LandmarkMobileFaceNet):  # may have a file of its own
            module.require_weights()
            missing = [key for key in missing if not key.startswith(f'{name}.')]
    if not missing:
        return
    key = missing[0]
    if key in weights:
        raise WeightsError(
            f'The checkpoint is of another size: {key} is {tuple(weights[key].shape)} there, but '
            f'{tuple(model.state_dict()[key].shape)} in this model. Give the config that it was '
            'trained with.'
        )
    raise WeightsError(
        f'The checkpoint has no {key} (and lacks {len(missing)} tensors in all), so it is of '
        'another model. Give the config that it was trained with.'
    )


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
