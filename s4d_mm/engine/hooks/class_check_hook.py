# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the head has as many classes as the data."""

import re
from collections.abc import Iterator
from typing import Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import MAE
from torch import nn

from ...models import (
    DualModalHead,
    DualModalRecognizer,
    MoAENeck,
    S4DMAEDecoder,
    S4DMAEHead,
    S4DMAEViT,
)
from ..launch import check_fold


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compare the classes of the datasets with ``num_classes`` of the head
    and of the blending before the first iteration.

    Training also checks the validation data, so that a wrong setting shows
    before the first epoch and not after it, and whether the model takes the
    batches of its data preprocessor. Testing also checks that the checkpoint
    has a head with these classes.

    Raises:
        ValueError: If they differ, with the key to change.
    """

    def before_run(self, runner: Runner) -> None:
        """Check that the annotation files are those of the config's fold."""
        check_fold(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Check the training data, and the validation data if there are."""
        check_mixed_batches(self._model(runner))
        self._check(runner, runner.train_dataloader, 'train_dataloader')
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader, 'val_dataloader')

    def before_val(self, runner: Runner) -> None:
        """Check the validation data."""
        self._check(runner, runner.val_dataloader, 'val_dataloader')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """In testing, check that the checkpoint has the head's weights. (A
        training may start from a checkpoint with another head or none.)
        """
        evaluates = isinstance(runner._test_loop, BaseLoop) or (
            isinstance(runner._val_loop, BaseLoop) and not isinstance(runner._train_loop, BaseLoop)
        )
        if evaluates:
            check_head_weights(runner.model, checkpoint)

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        self._check(runner, runner.test_dataloader, 'test_dataloader')

    @classmethod
    def _check(cls, runner: Runner, dataloader, name: str) -> None:
        model = cls._model(runner)
        check_packed_views(model)
        dataset = getattr(dataloader, 'dataset', None)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if classes is None:
            return
        if not isinstance(classes, dict):
            classes = {getattr(dataset, 'INPUT_TYPE', None): classes}
        for key, expected in cls._expectations(model):
            for input_type, names in classes.items():
                cls._compare(name, input_type, names, key, expected)

    @staticmethod
    def _model(runner: Runner) -> nn.Module:
        model = runner.model
        return model.module if is_model_wrapper(model) else model

    @staticmethod
    def _expectations(model) -> Iterator[tuple[str, object]]:
        """Keys of the config that hold a number of classes, and the numbers
        (int, or dict of int for each modality).
        """
        name, head = classification_head(model)
        if head is not None:
            yield f'model.{name}.num_classes', head.num_classes
        blending = getattr(getattr(model, 'data_preprocessor', None), 'blending', None)
        if not isinstance(blending, dict):
            return
        for modality, blend in blending.items():
            # RandomBatchAugment holds a list of the others
            for part in getattr(blend, 'augments', [blend]):
                count = getattr(part, 'num_classes', None)
                if count is not None:
                    yield (
                        f'model.data_preprocessor.blending.{modality}: '
                        f'{type(part).__name__}.num_classes',
                        {modality: count},
                    )

    @staticmethod
    def _compare(name: str, input_type, names, key: str, expected) -> None:
        count = expected
        if isinstance(expected, dict):
            if input_type not in expected:
                if '.data_preprocessor.' in key:
                    return  # this modality is not blended
                raise ValueError(
                    f'{name} has {input_type} data, but the head has '
                    f'num_classes={expected}. Add {input_type!r} to {key}.'
                )
            count = expected[input_type]
        if len(names) != count:
            raise ValueError(
                f'{name} has {len(names)} {input_type or ""} classes '
                f'{tuple(names)}, but {key} is {expected}. Make them agree.'
            )


def check_packed_views(model: nn.Module) -> None:
    """Refuse packed views with a head that would average them over the wrong
    samples.

    Args:
        model (nn.Module): The model.

    Raises:
        ValueError: If the data preprocessor has ``pack_views`` and the head is
            no :class:`DualModalHead`.
    """
    packs = getattr(getattr(model, 'data_preprocessor', None), 'pack_views', False)
    head = getattr(model, 'cls_head', None)
    if packs and not isinstance(head, DualModalHead):
        raise ValueError(
            'model.data_preprocessor.pack_views=True needs DualModalHead, '
            f'but the head is {type(head).__name__}, which expects the same '
            'number of views of every clip. Set pack_views=False there and '
            'merge_equal=False of SampleClipViews.'
        )


def check_mixed_batches(model: nn.Module) -> None:
    """Refuse training batches of both modalities with a model that cannot
    take them.

    Args:
        model (nn.Module): The model.

    Raises:
        ValueError: If the data preprocessor has ``mixed``, and the model is
            neither a :class:`DualModalRecognizer` nor a masked auto-encoder,
            or has other parts than these need.
    """
    if not getattr(getattr(model, 'data_preprocessor', None), 'mixed', False):
        return
    advice = (
        "Change it, or set mixed=False there and batching='alternate' of DualModalBatchSampler."
    )
    if isinstance(model, MAE):
        parts = dict(backbone=S4DMAEViT, neck=S4DMAEDecoder, head=S4DMAEHead)
    elif isinstance(model, DualModalRecognizer):
        parts = dict(neck=MoAENeck, cls_head=DualModalHead)
    else:
        raise ValueError(
            'model.data_preprocessor.mixed=True needs '
            "model.type='DualModalRecognizer' (in pre-training MAE), but it "
            f'is {type(model).__name__}. {advice}'
        )
    for name, kind in parts.items():
        part = getattr(model, name, None)
        if part is not None and not isinstance(part, kind):
            raise ValueError(
                'model.data_preprocessor.mixed=True needs '
                f'model.{name}.type={kind.__name__!r}, but it is '
                f'{type(part).__name__}. {advice}'
            )


def classification_head(model: nn.Module) -> tuple[str, Optional[nn.Module]]:
    """The head with a number of classes: mmaction2's ``cls_head`` or
    mmpretrain's ``head``.

    Returns:
        tuple: Its name in the model, and itself; ('', None) if there is none.
    """
    for name in ('cls_head', 'head'):
        head = getattr(model, name, None)
        if getattr(head, 'num_classes', None) is not None:
            return name, head
    return '', None


def check_head_weights(model: nn.Module, checkpoint: dict) -> None:
    """Refuse a checkpoint without the weights of the model's classification
    head.

    mmengine only warns of missing and misshapen parameters; predictions would
    then come from a random classifier.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or not.
        checkpoint (dict): The checkpoint, or its ``state_dict``.

    Raises:
        ValueError: With the first such key.
    """
    model = model.module if is_model_wrapper(model) else model
    head_name, head = classification_head(model)
    if head is None:
        return
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {re.sub(r'^module\.', '', k): v for k, v in weights.items()}
    for name, param in head.named_parameters():
        key = f'{head_name}.{name}'
        if key not in weights:
            raise ValueError(
                f'The checkpoint has no {key}, so it cannot predict: it is '
                'from pre-training or of a model with another head. Give one '
                'of the fine-tuned model.'
            )
        if weights[key].shape != param.shape:
            raise ValueError(
                f'The checkpoint is of another size: {key} is '
                f'{tuple(weights[key].shape)} there, but '
                f'{tuple(param.shape)} in this model. Give the config that '
                'it was trained with, or set the num_classes of the head.'
            )
