# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The labels of faces: a plate with a text, and a place for it in the picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colors import Color, text_color
from .text import shorten, text_font, text_width

Rect = tuple[int, int, int, int]  # x, y, width, height
COVERED = 0.05  # share of a face that a plate may cover


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
    sizes: Sequence[tuple[int, int]],
    box: Rect,
    taken: Sequence[Rect],
    faces: Sequence[Rect],
    picture: tuple[int, int],
    last: int = 0,
) -> tuple[int, int, int, int]:
    """Choose a plate for a face, and a place at its box, where no face or plate is covered.

    Args:
        sizes (Sequence[tuple[int, int]]): Width and height of the plates to choose from, the
            wished one first.
        box (Rect): Of the face.
        taken (Sequence[Rect]): The plates that are placed already.
        faces (Sequence[Rect]): All faces of the picture, this one too.
        picture (tuple[int, int]): Width and height. The plate is inside of it.
        last (int): The choice in the frame before, which is kept if it can be. Defaults to 0.

    Returns:
        tuple[int, int, int, int]: The choice, the number of the plate, and x, y of its corner.
            Where all places cover something, it is the one that covers least.
    """
    choices = []
    for plate, (width, height) in enumerate(sizes):
        for place in places_at(box, width, height):
            x, y = (
                max(0, min(int(v), r)) for v, r in zip(place, np.subtract(picture, (width, height)))
            )
            rect = x, y, width, height
            hidden = sum(common_area(rect, face) / (face[2] * face[3]) for face in faces)
            hidden = hidden if hidden > COVERED else 0
            hidden += sum(common_area(rect, other) > 0 for other in taken)
            choices.append((hidden, len(choices) != last, len(choices), plate, x, y))
    return min(choices)[2:]


def places_at(box: Rect, width: int, height: int) -> list[tuple[int, int]]:
    """Places round a box, the best first: above and below, at its sides, at its corners."""
    x, y, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    above, left = y - height, x - width
    places = [(a, b) for a in (x, right - width) for b in (above, bottom)]
    places += [(a, b) for b in (y, bottom - height) for a in (left, right)]
    return places + [(a, b) for a in (left, right) for b in (above, bottom)]


def common_area(a: Rect, b: Rect) -> int:
    """Pixels that two rectangles share."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
