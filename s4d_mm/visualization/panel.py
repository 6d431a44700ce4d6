# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The strip of bars beside or below a picture: all class probabilities of the faces in it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colors import WHITE, Label
from .text import SMALLEST_FONT, font_size, shorten, text_font, text_width

LINE_HEIGHT, PAD, BAR, LONGEST_NAME = 1.35, 0.7, 5, 10  # in heights of the font
BACKGROUND, TRACK, TEXT = (24, 24, 24), (58, 58, 58), (225, 225, 225)


class ProbabilityPanel:
    """Draws blocks, one a face: a line with its label and a bar for each class.

    Its size is the same for all frames of a video. Faces for which there is no room are left out,
    the last ones first, and counted: "+2".

    Args:
        classes (Sequence[Label]): Names and colours in label order.
        width (int): Of the picture, in pixels.
        height (int): Of the picture, in pixels.
        importance (np.ndarray): (classes, ), which ones to show if there is no room for all.
        faces (int): How many faces there may be at once. It makes room for up to three of them
            if the text stays readable.
        note (str): A small line at its bottom. Defaults to '', none.

    Attributes:
        beside (bool): Whether it goes to the right of the picture, else below it.
        width (int): Of the panel.
        height (int): Of the panel. One of both sides may be larger than the picture's.
    """

    def __init__(
        self,
        classes: Sequence[Label],
        width: int,
        height: int,
        importance: np.ndarray,
        faces: int,
        note: str = '',
    ) -> None:
        self.classes, self.note = classes, note
        self.beside = width >= height
        self.font_size = self._fit_font(width, height, faces)
        self.row = round(LINE_HEIGHT * self.font_size)
        self.pad = round(PAD * self.font_size)
        self.below = self.row if note else 0
        room = (height if self.beside else height // 2) - self.below
        rows = max(2, (room - 2 * self.pad) // self.row - 1)
        self.shown = np.arange(len(classes))
        if len(classes) > rows:
            self.shown = np.sort(np.argsort(-importance, kind='stable')[: rows - 1])
        longest = LONGEST_NAME * self.font_size
        self.names = [shorten(classes[i].name, self.font_size, longest) for i in self.shown]
        others = len(classes) - len(self.shown)
        if others:
            self.names.append(f'{others} others')
        self.name_width = max(text_width(name, self.font_size) for name in self.names)
        self.bar_width = BAR * self.font_size
        block_width = (
            self.name_width + self.bar_width + text_width('100%', self.font_size) + 2 * self.pad
        )
        self.block = block_width, (len(self.names) + 1) * self.row
        self.width, self.height = (side + 2 * self.pad for side in self.block)
        self.height += self.below
        if self.beside:
            self.height = max(self.height, height)
        else:
            self.width = max(self.width, width)

    def _fit_font(self, width: int, height: int, faces: int) -> int:
        """The largest font with which a block for each face, or for three, fits in."""
        short, blocks = min(width, height), min(faces, 3)
        rows = len(self.classes) + 1 + bool(self.note)
        tall = LINE_HEIGHT * rows + 2 * PAD  # of a block, in heights of the font
        names = max(text_width(label.name, 100) / 100 for label in self.classes)
        wide = min(names, LONGEST_NAME) + BAR + 6 * PAD + text_width('100%', 100) / 100
        fits = height / (blocks * tall) if self.beside else width / (blocks * wide)
        return int(np.clip(fits, max(SMALLEST_FONT, 0.022 * short), font_size(width, height)))

    def draw(self, faces: Sequence[tuple[int | None, np.ndarray]]) -> np.ndarray:
        """Draw it.

        Args:
            faces (Sequence[tuple]): Number of each face, or None, and its probabilities.

        Returns:
            np.ndarray: RGB, uint8, (height, width, 3).
        """
        image = Image.new('RGB', (self.width, self.height), BACKGROUND)
        pen = ImageDraw.Draw(image)
        step = np.add(self.block, (3 * self.pad, self.pad))
        across, down = (
            np.subtract((self.width, self.height - self.below), self.pad) + step - self.block
        ) // step
        fits = min(len(faces), down if self.beside else across)
        for i, (number, scores) in enumerate(faces[:fits]):
            x, y = (0, i * step[1]) if self.beside else (i * step[0], 0)
            more = f'+{len(faces) - fits}' if i == fits - 1 and fits < len(faces) else ''
            self._draw_block(pen, self.pad + int(x), self.pad + int(y), number, scores, more)
        if self.note:
            size = max(SMALLEST_FONT, round(0.75 * self.font_size))
            text = shorten(self.note, size, self.width - 2 * self.pad)
            place = self.pad, self.height - self.pad
            pen.text(place, text, TEXT, text_font(text, size), anchor='ls')
        return np.array(image)

    def _draw_block(
        self, pen, x: int, y: int, number: int | None, scores: np.ndarray, more: str
    ) -> None:
        title = self.classes[int(scores.argmax())].name
        if number is not None:
            title = f'Face {number}: {title}'
        width = self.block[0]
        if more:  # at the right of the title
            width -= text_width(more, self.font_size) + self.pad
            self._write(pen, x + width + self.pad, y, more, WHITE)
        self._write(pen, x, y, shorten(title, self.font_size, width), WHITE)
        values = scores[self.shown].tolist()
        if len(values) < len(self.names):
            values.append(max(0.0, float(scores.sum()) - sum(values)))
        left = x + self.name_width + self.pad
        thin = self.row // 5
        for i, (name, value) in enumerate(zip(self.names, values)):
            top = y + (i + 1) * self.row
            color = self.classes[self.shown[i]].color if i < len(self.shown) else TEXT
            ends = top + thin, top + self.row - thin - 1
            pen.rectangle((left, ends[0], left + self.bar_width - 1, ends[1]), TRACK)
            length = round(value * self.bar_width)
            if length:
                pen.rectangle((left, ends[0], left + length - 1, ends[1]), color)
            self._write(pen, x, top, name, TEXT)
            self._write(pen, left + self.bar_width + self.pad, top, f'{value:.0%}', TEXT)

    def _write(self, pen, x: int, y: int, text: str, color) -> None:
        font = text_font(text, self.font_size)
        pen.text((x, y + self.row / 2), text, color, font, anchor='lm')
