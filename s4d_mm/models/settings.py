# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the settings of parts may be. Each message names the part, the key and the value."""

from collections.abc import Sequence


def is_number(value: object) -> bool:
    """Whether a setting is a number; True and False are none.

    Args:
        value (object): The setting.

    Returns:
        bool: Whether it is.
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_positive_ints(owner: str, **values: int) -> None:
    """Refuse arguments that are no positive int.

    Args:
        owner (str): Name of the part.
        **values (int): The arguments.

    Raises:
        ValueError: If one is none.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f'{name} of {owner} must be a positive int, but is {value!r}.')


def check_pixel_statistics(owner: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a mean and a standard deviation that are not those of pixels in 0..255.

    ``mean=[0, 0, 0]`` with ``std=[1, 1, 1]``, which changes nothing, is allowed.

    Args:
        owner (str): Name of the part.
        mean (Sequence[float]): Mean of each channel.
        std (Sequence[float]): Standard deviation of each channel.

    Raises:
        ValueError: If they do not fit each other, or are out of range.
    """
    given = f'got mean={mean!r} and std={std!r}.'
    if len(mean) != len(std) or not all(map(is_number, (*mean, *std))) or min(std) <= 0:
        raise ValueError(
            f'mean and std of {owner} must have one value per channel, and std must be positive, '
            f'but {given}'
        )
    if min(mean) < 0 or max(*mean, *std) > 255:
        raise ValueError(f'mean and std of {owner} must be in 0..255, but {given}')
    if max(std) < 1 or (0 < max(mean) <= 1 and max(std) <= 1):
        in_255 = [[round(255 * v, 3) for v in values] for values in (mean, std)]
        raise ValueError(
            f'mean and std of {owner} must be those of pixels in 0..255, but {given} If those '
            f'are of pixels in 0..1, set mean={in_255[0]} and std={in_255[1]}.'
        )
