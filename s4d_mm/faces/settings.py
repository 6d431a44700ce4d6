# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How faces are found, followed and cut: the one place of the defaults."""

from typing import NamedTuple


class FaceSettings(NamedTuple):
    """How faces are found, followed and cut.

    Attributes:
        size (int): Side of the cut face in pixels, 16..4096. Defaults to 224.
        margin (float): Part of the face's box that is added to it, 0..5. Defaults to 0.3.
        align (bool): Whether the square is turned so that the eyes are level.
            Defaults to False.
        stretch (bool): Whether the box itself is cut out and stretched to a square, not a square
            of its longer side. Defaults to False.
        smooth (int): Frames over which the square is averaged, 1..99; 1 for not at all.
            Defaults to 9.
        max_jump (float): How far an edge of the box may move from one sighting to the next,
            relative to its size, 0.01..100; a face that is farther away is another one.
            Defaults to 0.5.
        detect_every (int): Distance of the frames that the detector sees, 1..12; on those
            between, the faces are moved by optical flow. Defaults to 5.
        detect_side (int): Longer side of a frame for the detector in pixels, 32..4096.
            Defaults to 480.
        threshold (float): Least score of a face, 0.01..1. Defaults to 0.5.
        min_sightings (int): Frames in which a face must be seen before it counts, 1..12: of its
            first 13 frames, or of all frames of a shorter clip. Defaults to 3.
    """

    size: int = 224
    margin: float = 0.3
    align: bool = False
    stretch: bool = False
    smooth: int = 9
    max_jump: float = 0.5
    detect_every: int = 5
    detect_side: int = 480
    threshold: float = 0.5
    min_sightings: int = 3


RANGES = dict(
    size=(16, 4096),
    margin=(0, 5),
    smooth=(1, 99),
    max_jump=(0.01, 100),
    detect_every=(1, 12),
    detect_side=(32, 4096),
    threshold=(0.01, 1),
    min_sightings=(1, 12),
)


def check_settings(settings: FaceSettings) -> None:
    """Check the ranges of all settings.

    Args:
        settings (FaceSettings): The settings.

    Raises:
        ValueError: If one is out of range; the message names it, its value and the range.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f'{name}={value}: must be {low} to {high}')
