# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step: gives a neck the blocks that its backbone leaves to it.

A pre-training checkpoint has all blocks in its backbone; a fine-tuning model
runs the first ones in its backbone and the rest in a neck. Only their common
parent sees both, so the parent gets a ``load_state_dict`` pre-hook when the
neck is attached to it: :func:`hand_over_blocks`. That serves ``load_from`` and
``load_checkpoint``. A neck with an ``init_cfg`` of its own gets the encoder's
weights itself: :func:`keep_last_blocks`.
"""

import re

from torch import nn

from ...converters.s4d import substitute
from ...converters.vit import MMACTION_IN_BLOCK


def hand_over_blocks(model: nn.Module, neck_name: str) -> None:
    """Let ``model`` move ``backbone.blocks.{i}`` of a checkpoint to
    ``{neck_name}.blocks.{i - first}`` where its backbone has only ``first``
    blocks.

    Does nothing for a checkpoint that has no blocks beyond the backbone's
    (one of the model itself, or of another kind of backbone).

    Args:
        model (nn.Module): Model with a ``backbone`` and a neck that both keep
            their blocks in ``blocks``. The backbone may be mmaction2's
            ``VisionTransformer``, whose names the neck's blocks then take
            over.
        neck_name (str): Name of the neck in the model.
    """

    def hook(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
        backbone = getattr(module, 'backbone', None)
        first = len(getattr(backbone, 'blocks', ()))
        if not first or getattr(module, neck_name, None) is None:
            return
        pattern = re.compile(rf'{re.escape(prefix)}backbone\.blocks\.(\d+)\.(.+)')
        for key in list(state_dict):
            match = pattern.fullmatch(key)
            if match and int(match[1]) >= first:
                place = int(match[1]) - first
                state_dict[f'{prefix}{neck_name}.blocks.{place}.{name_in_block(match[2])}'] = (
                    state_dict.pop(key)
                )

    if not getattr(model, '_hands_over_blocks', False):
        model._hands_over_blocks = True
        model.register_load_state_dict_pre_hook(hook)


def keep_last_blocks(neck: nn.Module, num_layers: int) -> None:
    """Let ``neck`` take its blocks from the weights of a whole encoder.

    Of an encoder of ``num_layers`` blocks, the last ones become
    ``blocks.0 ..``; the others are dropped. Weights of the neck itself have
    fewer blocks and stay as they are.

    Args:
        neck (nn.Module): Module that keeps its blocks in ``blocks``.
        num_layers (int): Blocks of the whole encoder.
    """

    def hook(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
        found = (
            {key: re.fullmatch(r'blocks\.(\d+)\.(.+)', key) for key in state_dict}
            if not prefix
            else {}
        )
        found = {key: match for key, match in found.items() if match}
        numbers = {int(match[1]) for match in found.values()}
        if len(numbers) <= len(module.blocks):
            return
        if numbers != set(range(num_layers)):
            raise ValueError(
                f'The checkpoint has the blocks {sorted(numbers)}, but this '
                f'{type(module).__name__} expects an encoder of {num_layers} '
                'to take the last ones of. Set num_layers in its `arch` to '
                'those of the encoder.'
            )
        first = num_layers - len(module.blocks)
        blocks = {match: state_dict.pop(key) for key, match in found.items()}
        for match, value in blocks.items():
            if int(match[1]) >= first:
                state_dict[f'blocks.{int(match[1]) - first}.{name_in_block(match[2])}'] = value

    neck.register_load_state_dict_pre_hook(hook)


def name_in_block(name: str) -> str:
    """A parameter's name inside our blocks.

    Args:
        name (str): Its name there, or in those of mmaction2's
            ``VisionTransformer``.

    Raises:
        ValueError: If it is a LayerScale, which our blocks do not have.
    """
    if name in ('gamma_1', 'gamma_2'):
        raise ValueError(
            f'The blocks of the checkpoint have a LayerScale ({name}), which '
            'those of MoAENeck cannot compute. Use S4DViT as backbone and '
            'convert the checkpoint with tools/model_converters/vit_to_mm.py, '
            'which folds it into the layer before.'
        )
    return substitute(name, MMACTION_IN_BLOCK)
