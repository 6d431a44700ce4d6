# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The labels of faces: a plate with a text, and a place for it in the picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colors import Color, text_color
from .text import shorten, text_font, text_width

Rect = tuple[int, int, int, int]  # x, y, width, height


def draw_plate(text: str, size: int, color: Color, widest: int) -> np.ndarray:
    """Draw a text on a plate.

    Args:
        text (str): One line.
        size (int): Height of the font in pixels.
        color (Color): Of the plate; the text is black or white.
        widest (int): Pixels; a longer text is cut.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).
    """
    pad = max(2, size // 3)
    text = shorten(text, size, max(1, widest - 2 * pad))
    width = min(widest, text_width(text, size) + 2 * pad)
    height = round(1.5 * size)
    image = Image.new('RGB', (width, height), color)
    ImageDraw.Draw(image).text(
        (pad, height / 2), text, text_color(color), text_font(text, size), anchor='lm'
    )
    return np.array(image)


def place_plate(
    size: tuple[int, int], box: Rect, taken: Sequence[Rect], picture: tuple[int, int]
) -> tuple[int, int]:
    """Find a place for the plate of a face: above its box if it can be.

    Args:
        size (tuple[int, int]): Width and height of the plate.
        box (Rect): Of the face.
        taken (Sequence[Rect]): The plates that are placed already.
        picture (tuple[int, int]): Width and height. The plate is inside of it.

    Returns:
        tuple[int, int]: x, y of its upper left corner, where it hides least of the other plates.
    """
    width, height = size
    x, y, box_width, box_height = box
    right, below = x + box_width - width, y + box_height
    wished = [(x, y - height), (x, below), (right, y - height), (right, below), (x, y)]
    for _, other_y, _, other_height in taken:
        wished += [(x, other_y - height), (x, other_y + other_height)]
    places = []
    for wish in wished:
        place = tuple(
            max(0, min(int(v), room - side))
            for v, side, room in zip(wish, (width, height), picture)
        )
        hidden = sum(common_area((*place, width, height), other) for other in taken)
        moved = abs(place[1] - wish[1])  # into the box: it would hide the face
        places.append((hidden, moved, place))
    return min(places, key=lambda p: p[:2])[2]


def common_area(a: Rect, b: Rect) -> int:
    """Pixels that two rectangles share."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
