# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: the file of the landmark network that S2D uses."""

import re
from typing import Any

from torch import Tensor

from ..files.errors import WeightsError
from .io import StateDict, first_lines, group_keys

WHERE_TO_GET_LANDMARKS = (
    'The file is landmark/mobilefacenet_model_best.pth.tar of https://github.com/MSA-LMC/S2D, the '
    'same as in checkpoint/ of https://github.com/cunjian/pytorch_face_landmark (git blob '
    '3f7d78be085b0dc33ec914bc1d70fc991ba04bfa). It has no licence, so that it is not given here.'
)
KERNEL = 'conv1.conv.weight'
# layers after the one that S2D uses
TAIL = ('conv_45.', 'conv_5.', 'conv_6_sep.', 'output_layer.')


def is_landmark_net(state_dict: StateDict) -> bool:
    """Whether weights are those of a MobileFaceNet."""
    return KERNEL in state_dict and 'conv_4.model.0.project.conv.weight' in state_dict


def landmark_settings(state_dict: StateDict) -> dict[str, Any]:
    """The sizes of a landmark network, from the shapes of its weights.

    Args:
        state_dict (dict): Weights of a MobileFaceNet.

    Returns:
        dict: ``channels``, ``widths`` and ``depths`` of ``LandmarkMobileFaceNet``.
    """

    def rows(key: str) -> int:
        return len(state_dict[f'{key}.conv.weight'])

    def depth(stage: str) -> int:
        pattern = re.compile(rf'{stage}\.model\.(\d+)\.')
        return 1 + max(int(m[1]) for m in map(pattern.match, state_dict) if m)

    return dict(
        channels=(rows('conv1'), rows('conv_23.project'), rows('conv_34.project')),
        widths=(
            rows('conv_23.conv'),
            rows('conv_3.model.0.conv'),
            rows('conv_34.conv'),
            rows('conv_4.model.0.conv'),
        ),
        depths=(depth('conv_3'), depth('conv_4')),
    )


def landmark_weights(state_dict: StateDict, own: StateDict, source: str) -> StateDict:
    """The weights for ``LandmarkMobileFaceNet``, without the layers that S2D does not use.

    Args:
        state_dict (dict): Weights of the file.
        own (dict): State dict of the network.
        source (str): The file, for messages.

    Returns:
        dict: The weights, float32.

    Raises:
        WeightsError: If they are of another network, incomplete, or of other sizes.
    """
    weights = cut_tail(state_dict, source)
    counter = 'num_batches_tracked'
    missing = [k for k in own if k not in weights and not k.endswith(counter)]
    further = [k for k in weights if k not in own]
    shapes = [
        f'{k}: {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}'
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    if missing or further or shapes:
        lines = [
            *shapes,
            *(f'{k}: missing in the file' for k in missing),
            *(f'{k}: only in the file' for k in further),
        ]
        try:
            fits = f' The file has {landmark_settings(weights)}.'
        except (KeyError, ValueError):
            fits = ' The file is incomplete.'
        raise WeightsError(
            f'{source} does not fit LandmarkMobileFaceNet:\n{first_lines(lines, 5)}\nSet its '
            f'channels, widths and depths to those of the file.{fits}'
        )
    return {k: weights.get(k, value) for k, value in own.items()}


def cut_tail(state_dict: StateDict, source: str) -> StateDict:
    """Leave out the layers of a landmark network that S2D does not use.

    Args:
        state_dict (dict): Its weights.
        source (str): The file, for messages.

    Returns:
        dict: The rest, as float32.

    Raises:
        WeightsError: If these are not the weights of a MobileFaceNet.
    """
    if not is_landmark_net(state_dict):
        raise WeightsError(
            f'{source} is not the landmark network of S2D, a MobileFaceNet: it lacks {KERNEL}. '
            f'It has:\n{group_keys(list(state_dict)[:50])}\n{WHERE_TO_GET_LANDMARKS}'
        )
    return {
        k: v.float() if v.is_floating_point() else v
        for k, v in state_dict.items()
        if isinstance(v, Tensor) and not k.startswith(TAIL)
    }
