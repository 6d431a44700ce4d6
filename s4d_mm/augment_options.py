# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checks of the options of augmentations."""

from collections.abc import Sequence
from typing import Any

Color = float | Sequence[float]


def require(fits: bool, part: str, option: str, value: Any, needs: str) -> None:
    """Raise a ``ValueError`` about an option that does not fit."""
    if not fits:
        raise ValueError(f'{option} of {part} must be {needs}, but got {value!r}.')


def per_channel(value: Color, part: str, option: str) -> list[float]:
    """A grey level, or one for each of 3 channels, as a list of 3."""
    values = list(value) if isinstance(value, Sequence) else [value] * 3
    fits = len(values) == 3 and all(isinstance(v, (int, float)) and 0 <= v <= 255 for v in values)
    require(fits, part, option, value, 'a number from 0 to 255, or one for each of 3 channels')
    return [float(v) for v in values]
