# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fonts for class names in any language. OpenCV's own fonts know ASCII only."""

import os.path as osp
from collections.abc import Iterable
from functools import lru_cache

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

DEJAVU = osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')

SMALLEST_FONT = 11  # pixels


def font_size(width: int, height: int) -> int:
    """Height of the font for a picture of some width and height, all in pixels."""
    return max(SMALLEST_FONT + 1, round(0.035 * min(width, height)))


def font_file(text: str) -> str:
    """A font file that has the letters of a text.

    It is DejaVu Sans, which comes with matplotlib, where that has them all; else the first font
    of this computer that does. If none does, it is DejaVu Sans, which draws small boxes.
    """
    letters = frozenset(text)
    return DEJAVU if has_letters(DEJAVU, letters) else other_font_file(letters)


@lru_cache(maxsize=64)
def other_font_file(letters: frozenset) -> str:
    """See :func:`font_file`; it looks through all fonts of this computer, once."""
    for path in sorted(font_manager.findSystemFonts()):
        if has_letters(path, letters):
            return path
    return DEJAVU


@lru_cache(maxsize=256)
def has_letters(path: str, letters: frozenset) -> bool:
    """Whether a font file has all letters; False if it cannot be read."""
    try:
        font = FT2Font(path)
        return all(font.get_char_index(ord(letter)) for letter in letters)
    except (RuntimeError, OSError):  # a bitmap font, or a broken one
        return False


@lru_cache(maxsize=64)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font for Pillow, ``size`` pixels high."""
    return ImageFont.truetype(path, size)


def text_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font in which a text is drawn by Pillow, ``size`` pixels high."""
    return load_font(font_file(text), size)


def text_width(text: str, size: int) -> int:
    """Width of a text in pixels, rounded up."""
    return int(text_font(text, size).getlength(text)) + 1


def shorten(text: str, size: int, width: int) -> str:
    """A text that fits into ``width`` pixels, with an ellipsis where it was cut."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + '…', size) > width:
        text = text[:-1]
    return text.rstrip() + '…'


def font_family(texts: Iterable[str]) -> list[str]:
    """Names of fonts for matplotlib that together have the letters of some texts."""
    families = ['DejaVu Sans']
    for path in sorted({font_file(text) for text in texts} - {DEJAVU}):
        font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
    return families
