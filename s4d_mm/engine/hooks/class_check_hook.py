# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the model fits the data.

Its classes in number, as its head says, and by name and order, as its checkpoint says; the frames
of a clip; and what its head may be set to.
"""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...models.heads import (
    DualModalHead,
    ViewsI3DHead,
    check_head_weights,
    classification_head,
)
from ...models.settings import is_number
from ..launch import check_fold
from .data_check_hook import parts_of

# names in label order, those of each modality where there are two
ClassNames = Sequence[str] | dict[str, Sequence[str]] | None
# of the one head, or of each modality's classifier
NumClasses = int | dict[str, int]


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compare classes and frames of the datasets with those of the model.

    Training also checks the validation data before the first iteration, so
    that a wrong setting shows before the first epoch and not after it. Testing
    also checks that the checkpoint has a head with these classes, in this order.

    Raises:
        ValueError: If they differ, with the key to change.
    """

    def before_run(self, runner: Runner) -> None:
        """Check that the annotation files are those of the config's fold."""
        check_fold(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Check the training data, and the validation data if there are any."""
        check_total_batch(runner)
        check_data(runner.model, runner.train_dataloader, 'train_dataloader')
        if runner.val_loop is not None:
            check_data(runner.model, runner.val_dataloader, 'val_dataloader')
            check_class_names(
                data_classes(runner.train_dataloader),
                'train_dataloader',
                data_classes(runner.val_dataloader),
                'val_dataloader',
            )

    def before_val(self, runner: Runner) -> None:
        """Check the validation data."""
        check_data(runner.model, runner.val_dataloader, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        check_data(runner.model, runner.test_dataloader, 'test_dataloader')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint: its head's weights, and the classes that it was trained on.

        A training may start from a checkpoint with another head or none, and other
        classes; one that is resumed may not.
        """
        # a loop is a config until the run begins it
        stages = dict(test=runner._test_loop, train=runner._train_loop, val=runner._val_loop)
        begun = [name for name, loop in stages.items() if isinstance(loop, BaseLoop)]
        stage = begun[0] if begun else 'train'  # validation may be part of a training
        if stage != 'train':
            check_head_weights(runner.model, checkpoint)
        elif not (begun and runner._resume):
            return
        meta = checkpoint.get('meta') or {}
        check_class_names(
            (meta.get('dataset_meta') or {}).get('classes'),
            'the checkpoint',
            data_classes(getattr(stages[stage], 'dataloader', None)),
            f'{stage}_dataloader',
        )


def check_total_batch(runner: Runner) -> None:
    """Check that an optimizer step has the total batch size, with the learning rate for it.

    Args:
        runner (Runner): Runner of a training.

    Raises:
        ValueError: If the batch sampler has a ``total_batch_size`` and counts other parts of it
            than the optimizer wrapper, or mmengine has scaled the learning rate.
    """
    sampler = getattr(runner.train_dataloader, 'batch_sampler', None)
    if getattr(sampler, 'total_batch_size', None) is None:
        return
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if counts != sampler.accumulative_counts:
        raise ValueError(
            f'optim_wrapper.accumulative_counts is {counts}, but '
            'train_dataloader.batch_sampler.accumulative_counts is '
            f'{sampler.accumulative_counts}, so that a step would not have the '
            f'total_batch_size={sampler.total_batch_size}. Use tools/train.py of s4d_mm, which '
            'copies the one to the other, or set both.'
        )
    if (runner.cfg.get('auto_scale_lr') or {}).get('enable'):
        raise ValueError(
            'auto_scale_lr.enable=True would scale the learning rate by the number of processes, '
            f'but a step has total_batch_size={sampler.total_batch_size} on any number. Use '
            '--auto-scale-lr of tools/train.py of s4d_mm, or leave it off.'
        )


def check_data(model: nn.Module, dataloader: DataLoader, name: str) -> None:
    """Check that a model fits the data that it will be given.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or not.
        dataloader (DataLoader): Its dataset may have ``classes`` in its
            ``metainfo``: names, or names of each modality.
        name (str): Key of the data loader in the config, for messages.

    Raises:
        ValueError: If it does not, with the key to change.
    """
    model = model.module if is_model_wrapper(model) else model
    check_packed_views(model)
    check_head(model)
    check_clip_length(model, getattr(dataloader, 'dataset', None), name)
    for input_type, names in data_classes(dataloader).items():
        for key, expected in expected_classes(model, input_type):
            check_class_count(name, input_type, names, key, expected)


def data_classes(dataloader: DataLoader | None) -> dict[str | None, Sequence[str]]:
    """The classes of the data, as the metainfo of their dataset says.

    Args:
        dataloader (DataLoader, optional): The data loader.

    Returns:
        dict[str | None, Sequence[str]]: Names in label order by modality, which is None
        if the dataset does not say it; {} if it has no classes.
    """
    dataset = getattr(dataloader, 'dataset', None)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if classes is None:
        return {}
    if isinstance(classes, dict):
        return classes
    return {getattr(dataset, 'INPUT_TYPE', None): classes}


def check_class_names(expected: ClassNames, source: str, found: dict, name: str) -> None:
    """Compare the classes that a model was trained on with those of data, with their order.

    With the same names in another order a model would be right where it counts as wrong.

    Args:
        expected (Sequence[str] | dict, optional): Names in label order, or those of
            each modality. Nothing is compared where there are none.
        source (str): What they are those of, for messages.
        found (dict[str | None, Sequence[str]]): Those of the data, by modality.
        name (str): Key of the data loader in the config, for messages.

    Raises:
        ValueError: If they differ; the message shows both.
    """
    for input_type, names in found.items():
        theirs = expected
        if isinstance(expected, dict):
            theirs = expected.get(input_type, expected.get(None))
        if not theirs or not names or list(theirs) == list(names):
            continue
        same = sorted(theirs) == sorted(names)
        raise ValueError(
            f'{name} has other {input_type or ""} classes than {source}'
            f'{", the same names in another order" if same else ""}:\n'
            f'  {source}: {", ".join(map(str, theirs))}\n'
            f'  {name}: {", ".join(map(str, names))}\n'
            'A label id must mean the same in both. To test on another data set, give its '
            'dataset metainfo=dict(classes=(...)) with the first of these and label_map=dict(...) '
            'with its own names that differ from them.'
        )


def expected_classes(model: nn.Module, input_type: str | None) -> Iterator[tuple[str, NumClasses]]:
    """The numbers of classes in the config that data of a modality must agree with.

    Args:
        model (nn.Module): The model, not wrapped.
        input_type (str, optional): 'video' or 'image', None if the dataset does not say.

    Yields:
        tuple[str, int | dict[str, int]]: Key in the config, and its value.
    """
    head_name, head = classification_head(model)
    if head is not None:
        yield f'model.{head_name}.num_classes', head.num_classes
    blending = getattr(getattr(model, 'data_preprocessor', None), 'blending', None)
    if not isinstance(blending, dict) or input_type not in blending:
        return
    blend = blending[input_type]
    # RandomBatchAugment holds a list of the others
    for part in getattr(blend, 'augments', [blend]):
        count = getattr(part, 'num_classes', None)
        if count is not None:
            key = f'model.data_preprocessor.blending.{input_type}'
            yield f'{key}: {type(part).__name__}.num_classes', count


def check_class_count(
    name: str, input_type: str | None, classes: Sequence[str], key: str, expected: NumClasses
) -> None:
    """Compare the classes of data with a number of the config.

    Args:
        name (str): Key of the data loader in the config.
        input_type (str, optional): Modality of the data.
        classes (Sequence[str]): Names of the classes of the data.
        key (str): Key of the number in the config.
        expected (int | dict[str, int]): The number, or that of each modality.

    Raises:
        ValueError: If they differ.
    """
    count = expected
    if isinstance(expected, dict):
        if input_type not in expected:
            raise ValueError(
                f'{name} has {input_type} data, but the head has '
                f'num_classes={expected}. Add {input_type!r} to {key}.'
            )
        count = expected[input_type]
    if len(classes) != count:
        raise ValueError(
            f'{name} has {len(classes)} {input_type or ""} classes '
            f'{tuple(classes)}, but {key} is {expected}. Make them agree.'
        )


def check_packed_views(model: nn.Module) -> None:
    """Refuse packed views with a head that would average them over the wrong samples.

    Args:
        model (nn.Module): The model, not wrapped.

    Raises:
        ValueError: If the data preprocessor has ``pack_views`` and the head is
            neither :class:`DualModalHead` nor :class:`ViewsI3DHead`.
    """
    packs = getattr(getattr(model, 'data_preprocessor', None), 'pack_views', False)
    head = getattr(model, 'cls_head', None)
    if packs and not isinstance(head, (DualModalHead, ViewsI3DHead)):
        raise ValueError(
            'model.data_preprocessor.pack_views=True needs DualModalHead or ViewsI3DHead, '
            f'but the head is {type(head).__name__}, which expects the same '
            'number of views of every clip. Set pack_views=False there and '
            'merge_equal=False of SampleClipViews.'
        )


def check_head(model: nn.Module) -> None:
    """Refuse settings of a head that mmaction2 takes, or refuses only in the first validation.

    Args:
        model (nn.Module): The model, not wrapped.

    Raises:
        ValueError: If ``label_smooth_eps`` or ``average_clips`` cannot be.
    """
    name, head = classification_head(model)
    smoothing = getattr(head, 'label_smooth_eps', 0)
    if not (is_number(smoothing) and 0 <= smoothing <= 1):
        raise ValueError(f'model.{name}.label_smooth_eps must be in 0..1, but is {smoothing!r}.')
    average = getattr(head, 'average_clips', None)
    if average not in ('prob', 'score', None):
        raise ValueError(
            f"model.{name}.average_clips must be 'prob', 'score' or None, but is {average!r}."
        )


def check_clip_length(model: nn.Module, dataset: Dataset | None, name: str) -> None:
    """Refuse clips of another length than the model is built for.

    Args:
        model (nn.Module): The model, not wrapped.
        dataset (Dataset, optional): The data, with their pipelines.
        name (str): Key of the data loader in the config.

    Raises:
        ValueError: If ``clip_len`` of a step is not ``num_frames`` of backbone or neck.
    """
    steps = [
        step
        for part in parts_of(dataset)
        for step in getattr(getattr(part, 'pipeline', None), 'transforms', ())
        if hasattr(step, 'clip_len')
    ]
    for key in ('backbone', 'neck'):
        frames = getattr(getattr(model, key, None), 'num_frames', None)
        for step in steps if frames is not None else ():
            if step.clip_len not in (1, frames):  # one frame is an image
                raise ValueError(
                    f'{name}: {type(step).__name__}.clip_len is {step.clip_len}, but '
                    f'model.{key}.num_frames is {frames}. Set both to the same number.'
                )
