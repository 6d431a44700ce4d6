# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step: how many tensors of a checkpoint find a place in a model.

mmengine lists names that do not match and goes on, also where nothing was loaded.
"""

import contextlib
import logging
from collections.abc import Iterable
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from ..files.checkpoint import unwrap
from ..files.errors import WeightsError
from .io import StateDict, first_lines, group_keys
from .landmarks import is_landmark_net
from .s2d import is_s2d
from .s4d import SIGNATURE, STAGES, stage_of

S2D_MODEL = 'landmark_embed.weight'  # a name that only our S2D has
Logger = str | logging.Logger


class Fit(NamedTuple):
    """Which names of a checkpoint and of a model go together."""

    placed: list[str]
    missing: list[str]  # the model's, which keep their initial values
    left_over: list[str]  # the checkpoint's


def match_names(own: StateDict, weights: StateDict) -> Fit:
    """Compare names and shapes.

    Args:
        own (dict): State dict of the model.
        weights (dict): Weights of the checkpoint, under the model's names as far as it has them.

    Returns:
        Fit: A tensor of another shape counts as left over.
    """
    placed = [k for k, v in weights.items() if k in own and own[k].shape == v.shape]
    found = set(placed)
    return Fit(
        placed,
        # counters of batch norms, which mmengine does not miss either
        [k for k in own if k not in found and not k.endswith('num_batches_tracked')],
        [k for k in weights if k not in found],
    )


def check_fit(
    model: nn.Module,
    checkpoint: dict,
    logger: Logger = 'current',
    source: str | None = None,
) -> Fit:
    """Refuse a checkpoint of which nothing fits a model, and say how much of another one does.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or not. Nothing is loaded.
        checkpoint (dict): The checkpoint, or its state dict.
        logger (str | Logger): As in mmengine's ``print_log``. Defaults to 'current'.
        source (str, optional): Its file, for messages. Defaults to None.

    Returns:
        Fit: What was found.

    Raises:
        WeightsError: If no tensor finds a place, with what the checkpoint looks like and what to
            do; or if one that does is not finite (:func:`check_finite`).
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    weights = unwrap(checkpoint) or {}
    weights = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
    names = dict(weights)
    # what the parts rename or drop when they load
    for name, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            hook(names, f'{name}.' if name else '', {}, True, [], [], [])
    fit = match_names(model.state_dict(), names)
    report_fit(fit, type(model).__name__, weights, logger)
    check_finite(model, {key: names[key] for key in fit.placed}, source)
    return fit


def check_finite(module: nn.Module, weights: StateDict, source: str | None = None) -> None:
    """Refuse weights of which a number is NaN, or a parameter's infinite.

    Args:
        module (nn.Module): What they are for. A buffer of it, such as a mask, may be infinite.
        weights (dict): Weights under its names.
        source (str, optional): Their file, for the message. Defaults to None.

    Raises:
        WeightsError: Naming the file and the first parameter.
    """
    found = first_not_finite(module, weights)
    if found is not None:
        name, bad, total = found
        raise WeightsError(
            f'The weights of {source or "the checkpoint"} are not finite: '
            f'{bad} of the {total} numbers of {name} are NaN or infinite. '
            'Its training went wrong before it was saved: take an earlier checkpoint.'
        )


def first_not_finite(module: nn.Module, weights: StateDict) -> tuple[str, int, int] | None:
    """The first of some weights of which a number is NaN, or a parameter's infinite.

    Args:
        module (nn.Module): What they are for. A buffer of it, such as a mask, may be infinite.
        weights (dict): Weights under its names.

    Returns:
        tuple[str, int, int] | None: Its name, how many of its numbers are bad, and how many there
        are; None if all are finite.
    """
    buffers = {name.removeprefix('module.') for name, _ in module.named_buffers()}
    for name, value in weights.items():
        bad = value.isnan() if name in buffers else ~value.isfinite()
        if bad.any():
            return name, int(bad.sum()), bad.numel()
    return None


def check_part(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Check the weights of a part that is loaded alone, as by ``init_cfg`` (a load pre-hook).

    Args:
        module (nn.Module): The part.
        state_dict (dict): Weights.
        prefix (str): What precedes its names; not '' if it is loaded in a model.
        *args: What torch hands to such hooks; not used.

    Raises:
        WeightsError: As :func:`check_fit`.
    """
    if not prefix:
        fit = match_names(module.state_dict(), state_dict)
        report_fit(fit, type(module).__name__, state_dict, 'current')
        cfg = getattr(module, 'init_cfg', None) or {}
        files = [c.get('checkpoint') for c in (cfg if isinstance(cfg, list) else [cfg])]
        source = next(filter(None, files), None)
        check_finite(module, {key: state_dict[key] for key in fit.placed}, source)


def report_fit(fit: Fit, name: str, weights: StateDict, logger: Logger) -> None:
    """Log how much of a checkpoint fits, in one line and in groups of names.

    Args:
        fit (Fit): What fits.
        name (str): Class of the model, for messages.
        weights (dict): What the checkpoint has, under its own names.
        logger (str | Logger): As in mmengine's ``print_log``.

    Raises:
        WeightsError: If nothing does.
    """
    total = len(fit.placed) + len(fit.left_over)
    if not fit.placed:
        raise WeightsError(
            f'Of the {total} tensors of the checkpoint none finds a place in {name}: it would '
            f'start from scratch. {looks_like(weights, fit.missing)}'
        )
    lines = [
        f'{len(fit.placed)} of {total} tensors of the checkpoint found a place in {name}, which '
        f'lacks {len(fit.missing)} more.'
    ]
    for title, keys in (
        ('Missing in the checkpoint, so that they keep their initial values:', fit.missing),
        ('Left over of the checkpoint:', fit.left_over),
    ):
        if keys:
            lines.append(f'{title}\n{group_keys(keys)}')
    complete = not (fit.missing or fit.left_over)
    print_log('\n'.join(lines), logger, logging.INFO if complete else logging.WARNING)


def looks_like(weights: StateDict, own: Iterable[str]) -> str:
    """Say what a checkpoint looks like of which nothing fits, and what to do.

    Args:
        weights (dict): What it has.
        own (Iterable[str]): Names of the model.

    Returns:
        str: For a message.
    """
    own = list(own)
    known = known_family(weights, any(key.endswith(S2D_MODEL) for key in own))
    if known is not None:
        return known
    split = [key.partition('.') for key in weights]
    outer = next((part for part, _, rest in split if rest in own), None)
    if outer is not None:
        return (
            f'Its names begin with {outer!r}, as those of a whole model: give '
            f"init_cfg=dict(type='Pretrained', checkpoint=..., prefix='{outer}.')."
        )
    part = next((name.partition('.')[0] for name in own if name.partition('.')[2] in weights), None)
    if part is not None:
        return (
            f'It looks like the weights of a {part} alone: give them to it by model.{part}.'
            "init_cfg=dict(type='Pretrained', checkpoint=...) in place of load_from."
        )
    return (
        f'Its tensors are:\n{group_keys(weights)}\nand the model has:\n'
        f'{first_lines(own, 5)}\nGive a checkpoint of this model, of its pre-training, or one that '
        'tools/model_converters made (docs/weights.md).'
    )


def known_family(weights: StateDict, for_s2d: bool) -> str | None:
    """Say of which known model weights are, and what to do with them.

    Args:
        weights (dict): The weights.
        for_s2d (bool): Whether they were to be loaded into S2D.

    Returns:
        str | None: For a message; None if their names are of none.
    """
    from .vit import find_layout  # which imports the models, whose parts import this module

    if not weights:
        return 'It has no tensors at all. Is it the right file?'
    stage = stage_of(weights)
    if stage is not None:
        return (
            f"It looks like a {stage} checkpoint of the S4D authors' code: convert it with "
            f'tools/model_converters/s4d_to_mm.py SRC DST --stage {stage}.'
            + (' S2D cannot use it.' if for_s2d else '')
        )
    if is_s2d(weights):
        return (
            "It looks like a checkpoint of the S2D authors' code: convert it with "
            'tools/model_converters/s2d_to_mm.py SRC DST --landmarks FILE.'
        )
    if any(key.endswith(S2D_MODEL) for key in weights):
        return "It looks like s4d_mm's checkpoint of S2D: give it to an S2D model (docs/s2d.md)."
    if is_landmark_net(weights):
        return (
            'It looks like the landmark network of S2D: give it by --landmarks to '
            'tools/model_converters/s2d_to_mm.py, or by model.backbone.landmark.checkpoint.'
        )
    if for_s2d and any(all(k in weights for k in SIGNATURE['s4d_mm', s]) for s in STAGES):
        return "It looks like s4d_mm's checkpoint of S4D, which S2D cannot use."
    with contextlib.suppress(ValueError):
        family = find_layout(weights)[0].family
        if for_s2d:
            return (
                f'It looks like weights of {family}, which has no landmark prompts. S2D starts '
                "from its authors' image model, or from a fine-tuned file (docs/s2d.md)."
            )
        return (
            f'It looks like weights of {family}: convert them with '
            'tools/model_converters/vit_to_mm.py SRC DST (docs/weights.md).'
        )
    return None
