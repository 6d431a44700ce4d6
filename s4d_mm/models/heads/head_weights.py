# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before testing and prediction: does a checkpoint hold the model's classifier?"""

import re

from mmengine.model import is_model_wrapper
from torch import nn

from ...files.errors import WeightsError


def classification_head(model: nn.Module) -> tuple[str, nn.Module | None]:
    """Find the head that has a number of classes.

    Args:
        model (nn.Module): A recognizer of mmaction2, whose head is ``cls_head``,
            or a classifier of mmpretrain, whose head is ``head``.

    Returns:
        tuple[str, nn.Module | None]: Its name in the model, and itself; ('', None)
        if there is none, as in pre-training.
    """
    for name in ('cls_head', 'head'):
        head = getattr(model, name, None)
        if getattr(head, 'num_classes', None) is not None:
            return name, head
    return '', None


def check_head_weights(model: nn.Module, checkpoint: dict) -> None:
    """Refuse a checkpoint without the weights of the model's classification head.

    mmengine only warns of missing and misshapen parameters; predictions would
    then come from a random classifier.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or not.
        checkpoint (dict): The checkpoint, or its ``state_dict``.

    Raises:
        WeightsError: If a parameter of the head is missing or of another shape, with its key.
    """
    model = model.module if is_model_wrapper(model) else model
    head_name, head = classification_head(model)
    if head is None:
        return
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {re.sub(r'^module\.', '', key): value for key, value in weights.items()}
    for name, param in head.named_parameters():
        key = f'{head_name}.{name}'
        if key not in weights:
            raise WeightsError(
                f'The checkpoint has no {key}, so it cannot predict: it is '
                'from pre-training or of a model with another head. Give one '
                'of the fine-tuned model.'
            )
        if weights[key].shape != param.shape:
            raise WeightsError(
                f'The checkpoint is of another size: {key} is '
                f'{tuple(weights[key].shape)} there, but '
                f'{tuple(param.shape)} in this model. Give the config that '
                'it was trained with, or set the num_classes of the head.'
            )
