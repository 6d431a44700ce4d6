# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""An image with what was found in it."""

from typing import TYPE_CHECKING

import numpy as np

from .overlay import Overlay

if TYPE_CHECKING:
    from ..apis.results import MediaResult


def annotate_image(image: np.ndarray, result: 'MediaResult') -> np.ndarray:
    """Draw the faces of an image, their labels, and the probabilities of all classes.

    Args:
        image (np.ndarray): RGB, uint8, (height, width, 3), upright. It stays as it is.
        result (MediaResult): What was found in it.

    Returns:
        np.ndarray: RGB, uint8: the image, with the probabilities at its right, or below it if
        it is higher than wide; without any record a copy of the image. A small image (a side below
        200 pixels) is enlarged.
    """
    height, width = image.shape[:2]
    return Overlay(result, width, height).draw(image, 0)
