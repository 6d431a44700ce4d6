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

from .s4d_keys import substitute
from .vit_keys import MMACTION_IN_BLOCK


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
        pattern = re.compile(
            rf'{re.escape(prefix)}backbone\.blocks\.(\d+)\.(.+)')
        for key in list(state_dict):
            match = pattern.fullmatch(key)
            if match and int(match[1]) >= first:
                place = int(match[1]) - first
                name = substitute(match[2], MMACTION_IN_BLOCK)
                state_dict[f'{prefix}{neck_name}.blocks.{place}.'
                           f'{name}'] = state_dict.pop(key)

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
        found = {
            key: re.fullmatch(r'blocks\.(\d+)\.(.+)', key)
            for key in state_dict
        } if not prefix else {}
        found = {key: match for key, match in found.items() if match}
        numbers = {int(match[1]) for match in found.values()}
        first = num_layers - len(module.blocks)
        if first == 0 or numbers != set(range(num_layers)):
            return
        blocks = {match: state_dict.pop(key) for key, match in found.items()}
        for match, value in blocks.items():
            if int(match[1]) >= first:
                state_dict[f'blocks.{int(match[1]) - first}.'
                           f'{match[2]}'] = value

    neck.register_load_state_dict_pre_hook(hook)
