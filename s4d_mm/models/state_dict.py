# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step: what models and their parts do when weights are loaded into them.

The hooks are for ``register_load_state_dict_pre_hook``. mmengine only lists the names that do not
match, also where nothing was loaded: here that is an error.
"""

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from ..files.checkpoint import StateDict, unwrap
from ..files.errors import WeightsError

Logger = str | logging.Logger
# parameters of a block in mmaction2's VisionTransformer, and here
MMACTION_IN_BLOCK = (('mlp.layers.0.0.', 'mlp.fc1.'), ('mlp.layers.1.', 'mlp.fc2.'))
S2D_MODEL = 'landmark_embed.weight'  # a name that only our S2D has


class OtherCode(NamedTuple):
    """Weights that are recognised by their names.

    ``rename``, if given, returns them under our names for a whole model, and the keys that have no
    place there.
    """

    fits: Callable[[StateDict], bool]
    name: str
    remedy: str  # what to do where nothing of them fits
    rename: Callable[[StateDict], tuple[StateDict, list[str]]] | None = None


# The first that fits is taken. The converters add theirs when they are imported.
OTHER_CODES: list[OtherCode] = []


class Fit(NamedTuple):
    """Which names of a checkpoint and of a model go together."""

    placed: list[str]
    missing: list[str]  # the model's, which keep their initial values
    left_over: list[str]  # the checkpoint's


def in_own_names(weights: StateDict) -> StateDict | None:
    """Weights of another code under our names; None if it is not known, or has our names.

    What has no place keeps its name, so that loading lists it.
    """
    for code in OTHER_CODES:
        if code.rename is not None and code.fits(weights):
            renamed, unplaced = code.rename(weights)
            return {**renamed, **{key: weights[key] for key in unplaced}}
    return None


def as_own_checkpoint(checkpoint: Any) -> Any:
    """What a file of any code holds, as a checkpoint of mmengine.

    Unchanged if it holds no weights, or is one of mmengine already.
    """
    weights = unwrap(checkpoint)
    if weights is None:
        return checkpoint
    renamed = in_own_names(weights)
    if 'state_dict' in checkpoint and renamed is None:
        return checkpoint
    rest = {} if weights.keys() & checkpoint.keys() else checkpoint
    return {**rest, 'state_dict': weights if renamed is None else renamed}


def take_authors_names(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Load weights of another code as they are (a hook of models, and of parts loaded alone)."""
    weights = None if prefix else unwrap(state_dict)
    if weights is None:
        return
    renamed = in_own_names(weights)
    if renamed is not None and not hasattr(module, 'backbone'):
        own = module.state_dict().keys()
        neck, backbone = (
            {k.removeprefix(part): v for k, v in renamed.items() if k.startswith(part)}
            for part in ('neck.', 'backbone.')
        )
        # MoAENeck takes its blocks from fine-tuned weights, else the last ones of the encoder
        renamed = neck if neck and neck.keys() <= own else backbone
    if renamed is not None or not weights.keys() & state_dict.keys():
        state_dict.clear()
        state_dict.update(weights if renamed is None else renamed)


def match_names(own: StateDict, weights: StateDict) -> Fit:
    """Compare the names and shapes of a model and of weights; another shape is left over."""
    placed = [k for k, v in weights.items() if k in own and own[k].shape == v.shape]
    found = set(placed)
    return Fit(
        placed,
        # counters of batch norms, which mmengine does not miss either
        [k for k in own if k not in found and not k.endswith('num_batches_tracked')],
        [k for k in weights if k not in found],
    )


def check_fit(
    model: nn.Module, checkpoint: dict, logger: Logger = 'current', source: str | None = None
) -> Fit:
    """Refuse a checkpoint if nothing in it fits the model; else log how much fits.

    Args:
        model (nn.Module): The model, wrapped for distributed runs or not. Nothing is loaded.
        checkpoint (dict): The checkpoint, or its state dict.
        logger (str | Logger): As in mmengine's ``print_log``. Defaults to 'current'.
        source (str, optional): Its file, for messages. Defaults to None.

    Raises:
        WeightsError: If nothing fits, or a number that does is not finite.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    weights = {k: v for k, v in (unwrap(checkpoint) or {}).items() if isinstance(v, Tensor)}
    names = dict(weights)
    # what the parts rename or drop when they load
    for name, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            hook(names, f'{name}.' if name else '', {}, True, [], [], [])
    return _check_fit(model, names, weights, logger, source)


def check_part(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Check the weights of a part that is loaded alone, as :func:`check_fit` does (a hook)."""
    if prefix:
        return
    cfg = getattr(module, 'init_cfg', None)
    source = cfg.get('checkpoint') if isinstance(cfg, dict) else None
    _check_fit(module, state_dict, state_dict, 'current', source)


def _check_fit(
    module: nn.Module, names: StateDict, weights: StateDict, logger: Logger, source: str | None
) -> Fit:
    # names has the weights as they are loaded, weights as they were read
    fit = match_names(module.state_dict(), names)
    name, total = type(module).__name__, len(fit.placed) + len(fit.left_over)
    if not fit.placed:
        raise WeightsError(
            f'Of the {total} tensors of the checkpoint none finds a place in {name}: it would '
            f'start from scratch. {looks_like(weights, fit.missing)}'
        )
    lines = [
        f'{len(fit.placed)} of {total} tensors of the checkpoint found a place in {name}, which '
        f'lacks {len(fit.missing)} more.'
    ]
    if fit.missing:
        lines += ['Missing in the checkpoint, so that they keep their initial values:']
        lines += [group_keys(fit.missing)]
    if fit.left_over:
        lines += ['Left over of the checkpoint:', group_keys(fit.left_over)]
    print_log('\n'.join(lines), logger, logging.INFO if len(lines) == 1 else logging.WARNING)
    found = first_not_finite(module, {key: names[key] for key in fit.placed})
    if found is not None:
        key, bad, total = found
        raise WeightsError(
            f'The weights of {source or "the checkpoint"} are not finite: {bad} of the {total} '
            f'numbers of {key} are NaN or infinite. Its training went wrong before it was saved: '
            'take an earlier checkpoint.'
        )
    return fit


def first_not_finite(module: nn.Module, weights: StateDict) -> tuple[str, int, int] | None:
    """Name, count of bad numbers and count of all of the first weights that are not finite.

    A buffer, such as a mask, may be infinite.
    """
    buffers = {name.removeprefix('module.') for name, _ in module.named_buffers()}
    for name, value in weights.items():
        bad = value.isnan() if name in buffers else ~value.isfinite()
        if bad.any():
            return name, int(bad.sum()), bad.numel()
    return None


def looks_like(weights: StateDict, own: list[str]) -> str:
    """What to do with a checkpoint if nothing in it fits a model with the names ``own``."""
    if not weights:
        return 'It has no tensors at all. Is it the right file?'
    known = known_code(weights, any(key.endswith(S2D_MODEL) for key in own))
    outer = next((key.partition('.')[0] for key in weights if key.partition('.')[2] in own), None)
    part = next((key.partition('.')[0] for key in own if key.partition('.')[2] in weights), None)
    if known is not None:
        return known
    if outer is not None:
        return (
            f'Its names begin with {outer!r}, as those of a whole model: give '
            f"init_cfg=dict(type='Pretrained', checkpoint=..., prefix='{outer}.')."
        )
    if part is not None:
        return (
            f'It looks like the weights of a {part} alone: give them to it by model.{part}.'
            "init_cfg=dict(type='Pretrained', checkpoint=...) in place of load_from."
        )
    return (
        f'Its tensors are:\n{group_keys(weights)}\nand the model has:\n{first_lines(own, 5)}\n'
        'Give a checkpoint of this model, of its pre-training, or one that tools/model_converters '
        'made (docs/weights.md).'
    )


def known_code(weights: StateDict, for_s2d: bool) -> str | None:
    """What to do with weights of a known code; None if it is not known."""
    for code in OTHER_CODES:
        if code.fits(weights):
            if for_s2d and 'S2D' not in code.name:
                return (
                    f'It looks like {code.name}, which S2D cannot use: S2D starts from its '
                    "authors' image model, or from a fine-tuned file (docs/s2d.md)."
                )
            return f'It looks like {code.name}: {code.remedy}'
    return None


def check_shapes(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Refuse a checkpoint of another size (a hook); mmengine would train from scratch."""
    for name, param in module.named_parameters():
        other = state_dict.get(prefix + name)
        if other is not None and other.shape != param.shape:
            raise WeightsError(
                f'The checkpoint is of another size: {prefix}{name} is {tuple(other.shape)} there, '
                f'but {tuple(param.shape)} in this {type(module).__name__}. Give the config of its '
                'training, or set `arch`, `patch_size`, `tubelet_size` and `num_classes` as there.'
            )


def hand_over_blocks(model: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Give ``MoAENeck`` the blocks that the backbone leaves to it (a hook of models).

    ``backbone.blocks.{i}`` of a whole encoder becomes ``neck.blocks.{i - depth}`` where the
    backbone has ``depth`` blocks. It may be mmaction2's ``VisionTransformer``.
    """
    depth = len(getattr(model.backbone, 'blocks', ()))
    if not depth or not hasattr(getattr(model, 'neck', None), 'routers'):
        return
    if any(key.startswith(f'{prefix}neck.blocks.') for key in state_dict):
        refuse_further_blocks(model.backbone, state_dict, f'{prefix}backbone.')
        return
    _move_blocks(state_dict, f'{prefix}backbone.', f'{prefix}neck.', depth)


def _move_blocks(state_dict: dict, old: str, new: str, first: int) -> None:
    # block ``first`` of ``old`` becomes block 0 of ``new``, and so on
    found = map(re.compile(rf'{re.escape(old)}blocks\.(\d+)\.(.+)').fullmatch, list(state_dict))
    for match in sorted(filter(None, found), key=lambda m: int(m[1])):
        place, name = int(match[1]) - first, match[2]
        if place < 0:
            continue
        if name in ('gamma_1', 'gamma_2'):
            raise ValueError(
                f'The blocks of the checkpoint have a LayerScale ({name}), which those of MoAENeck '
                'cannot compute. Use S4DViT as backbone and convert the checkpoint with '
                'tools/model_converters/vit_to_mm.py, which folds it into the layer before.'
            )
        for theirs, ours in MMACTION_IN_BLOCK:
            name = name.replace(theirs, ours)
        state_dict[f'{new}blocks.{place}.{name}'] = state_dict.pop(match[0])


def refuse_further_blocks(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Refuse blocks that nothing in the model runs (a hook of backbone and neck)."""
    if not prefix:
        return  # a backbone alone may take a part of an encoder, as by its init_cfg
    depth = len(module.blocks)
    pattern = re.compile(rf'{re.escape(prefix)}blocks\.(\d+)\.')
    last = max((int(m[1]) for m in map(pattern.match, state_dict) if m), default=-1)
    if last >= depth:
        raise WeightsError(
            f'The checkpoint has weights for {prefix}blocks.{depth} to {last}, but this '
            f'{type(module).__name__} has {depth} blocks. Set model.backbone.depth and '
            'model.neck.num_layers as in fine-tuning, or so that they add up to the encoder, and '
            "model.type='DualModalRecognizer' for S4DViT with MoAENeck. To leave blocks out, load "
            "the backbone by init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')."
        )


def keep_last_blocks(neck: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Take the last blocks of a whole encoder (a hook of ``MoAENeck`` loaded alone).

    Weights of the neck itself have fewer blocks and stay as they are.
    """
    numbers = {int(key.split('.')[1]) for key in state_dict if re.match(r'blocks\.\d+\.', key)}
    if prefix or len(numbers) <= len(neck.blocks):
        return
    num_layers = neck.arch['num_layers']
    if numbers != set(range(num_layers)):
        raise ValueError(
            f'The checkpoint has the blocks {sorted(numbers)}, but this MoAENeck expects an '
            f'encoder of {num_layers} to take the last ones of. Set num_layers in its `arch` to '
            'those of the encoder.'
        )
    first = num_layers - len(neck.blocks)
    for key in [k for k in state_dict if re.match(r'blocks\.\d+\.', k)]:
        if int(key.split('.')[1]) < first:
            del state_dict[key]
    _move_blocks(state_dict, '', '', first)


def classification_head(model: nn.Module) -> tuple[str, nn.Module | None]:
    """Name and module of the head that has a number of classes; ('', None) in pre-training."""
    for name in ('cls_head', 'head'):  # of mmaction2's recognizers, mmpretrain's classifiers
        head = getattr(model, name, None)
        if getattr(head, 'num_classes', None) is not None:
            return name, head
    return '', None


def check_head_weights(model: nn.Module, checkpoint: dict) -> None:
    """Refuse a checkpoint without the classifier: predictions would come from a random one.

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
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    for name, _ in head.named_parameters():
        key = f'{head_name}.{name}'
        if key not in weights:
            raise WeightsError(
                f'The checkpoint has no {key}, so it cannot predict: it is from pre-training or of '
                'a model with another head. Give one of the fine-tuned model.'
            )
    check_shapes(head, weights, f'{head_name}.')


def group_keys(keys: Iterable[str]) -> str:
    """Keys for a message; those that differ in numbers are one line, as ``blocks.*.norm (12)``."""
    groups = {}
    for key in keys:
        groups.setdefault(re.sub(r'(?<=\.)\d+(?=\.|$)', '*', key), []).append(key)
    return first_lines(
        group[0] if len(group) == 1 else f'{name} ({len(group)})' for name, group in groups.items()
    )


def first_lines(lines: Iterable[str], most: int = 20) -> str:
    """Indented lines for a message; those after the first ``most`` are only counted."""
    lines = [f'  {line}' for line in lines]
    if len(lines) > most:
        lines[most:] = [f'  and {len(lines) - most} more']
    return '\n'.join(lines)
