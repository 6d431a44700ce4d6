# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A checkpoint must hold the classifier of the model that predicts with it."""

import copy

import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.models.heads import check_head_weights, classification_head


@pytest.fixture(scope='module')
def model():
    return build(FINETUNE)


def test_the_head_has_classes(model):
    assert classification_head(model) == ('cls_head', model.cls_head)
    # the head of pre-training has none
    assert classification_head(build(PRETRAIN)) == ('', None)
    classifier = torch.nn.Module()
    classifier.head = model.cls_head  # as in mmpretrain
    assert classification_head(classifier) == ('head', classifier.head)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(state_dict=weights)])
def test_own_weights_fit(model, prefix, wrap):
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    check_head_weights(model, wrap(weights))


def test_wrapped_model_is_looked_into(model):
    class Wrapper(torch.nn.Module):
        """As DistributedDataParallel holds its model."""

        def __init__(self):
            super().__init__()
            self.module = model

    MODEL_WRAPPERS.register_module(module=Wrapper, force=True)
    try:
        with pytest.raises(ValueError, match='cannot predict'):
            check_head_weights(Wrapper(), {})
    finally:
        del MODEL_WRAPPERS.module_dict['Wrapper']


def test_missing_head(model):
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith('cls_head.')}
    with pytest.raises(ValueError, match=r'has no cls_head\..* from pre-training'):
        check_head_weights(model, weights)


def test_head_of_other_classes(model):
    cfg = copy.deepcopy(FINETUNE)
    cfg['cls_head']['num_classes']['image'] = 7
    with pytest.raises(ValueError, match=r'classifiers.image.weight is \(7, 32\) .* \(8, 32\)'):
        check_head_weights(model, build(cfg).state_dict())


def test_pre_training_takes_any_checkpoint():
    check_head_weights(build(PRETRAIN), {})
