# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The labels of faces: a plate with a text, and a place for it in the picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colors import Color, text_color
from .text import shorten, text_font, text_width

Size = tuple[int, int]  # width, height
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


def place_plates(
    sizes: Sequence[Sequence[Size]],
    boxes: Sequence[Rect],
    faces: Sequence[Rect],
    picture: Size,
    last: Sequence[int],
) -> list[tuple[int, int, int, int]]:
    """Choose a plate for each face, and a place at its box, where no face or plate is covered.

    Args:
        sizes (Sequence[Sequence[Size]]): Width and height of the plates of each face, the longest
            one first.
        boxes (Sequence[Rect]): Of the faces.
        faces (Sequence[Rect]): What must not be covered.
        picture (Size): Width and height. The plates are inside of it.
        last (Sequence[int]): The choices in the frame before, which are kept if they can be.

    Returns:
        list[tuple[int, int, int, int]]: The choice for each face, the number of the plate, and x, y
            of its corner. Where all places cover something, it is one that covers least.
    """
    rects, found = np.zeros((len(sizes), 4), int), [(0, 0)] * len(sizes)
    for all_plates in (False, True):  # a place for the shortest of all first
        for k, (plates, box) in enumerate(zip(sizes, boxes)):
            places = [
                (i, *place, *plate)
                for i, plate in enumerate(plates)
                for place in places_at(box, *plate)
            ]
            number, choices = np.split(np.array(places), [1], axis=1)
            choices[:, :2] = np.clip(choices[:, :2], 0, np.maximum(0, picture - choices[:, 2:]))
            share = (common_areas(choices, faces) / [w * h for _, _, w, h in faces]).sum(1)
            cost = np.where(share > COVERED, share, 0)
            cost += (common_areas(choices, np.delete(rects, k, 0)) > 0).sum(1)
            if not all_plates:
                cost[number[:, 0] < len(plates) - 1] = np.inf
            best = np.lexsort((np.arange(len(cost)) != last[k], cost))[0]
            rects[k], found[k] = choices[best], (int(best), places[best][0])
    return [(*pair, *rect[:2]) for pair, rect in zip(found, rects.tolist())]


def places_at(box: Rect, width: int, height: int) -> list[tuple[int, int]]:
    """Places round a box, the best first: above and below, at its sides, at its corners."""
    x, y, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    above, left = y - height, x - width
    places = [(a, b) for a in (x, right - width) for b in (above, bottom)]
    places += [(a, b) for b in (y, bottom - height) for a in (left, right)]
    return places + [(a, b) for a in (left, right) for b in (above, bottom)]


def common_areas(a: Sequence[Rect], b: Sequence[Rect]) -> np.ndarray:
    """Pixels that each of some rectangles shares with each of others: (len(a), len(b))."""
    a, b = (np.reshape(rects, (-1, 4)) for rects in (a, b))
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], b[:, :2] + b[:, 2:])
    return np.clip(high - low, 0, None).prod(-1)
