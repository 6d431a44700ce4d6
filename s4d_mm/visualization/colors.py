# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One colour for each name of a class, the same in all pictures.

The first seven are those of Okabe and Ito (Color Universal Design, 2008), which people with any
colour vision tell apart; the eighth is grey.
"""

from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ..files.text import printable

if TYPE_CHECKING:
    from ..apis.results import MediaResult

Color = tuple[int, int, int]  # RGB, 0..255

COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (153, 153, 153),
)
NAMES = ('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear', 'contempt')
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def class_color(index: int) -> Color:
    """A colour by its number; from the ninth on they come again, darker."""
    shade = 0.6 ** (index // len(COLORS) % 3)
    red, green, blue = COLORS[index % len(COLORS)]
    return round(red * shade), round(green * shade), round(blue * shade)


class Label(NamedTuple):
    """A class as it is shown."""

    name: str
    color: Color


def class_labels(result: 'MediaResult') -> list[Label]:
    """Names and colours of the classes of an input's records, in their order.

    A class of :data:`NAMES` has one colour everywhere, the others of a model take what is left.
    """
    shown = list(result.records[0].probabilities) if result.records else []
    names = list(dict.fromkeys([*result.classes, *shown]))
    free = (i for i in count() if i >= len(NAMES) or NAMES[i] not in names)
    places = {name: NAMES.index(name) if name in NAMES else next(free) for name in names}
    return [Label(printable(name), class_color(places[name])) for name in shown]


def text_color(plate: Color) -> Color:
    """Black or white, whichever is easier to read on a plate of this colour."""
    red, green, blue = plate
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE
