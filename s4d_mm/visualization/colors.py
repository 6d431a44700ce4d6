# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One colour for each class, the same in all pictures.

The first seven are those of Okabe and Ito (Color Universal Design, 2008), which people with any
colour vision tell apart; the eighth is grey.
"""

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
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def class_color(index: int) -> Color:
    """Colour of a class by its place in label order.

    From the ninth class on the colours come again, darker: names stand beside them everywhere.
    """
    shade = 0.6 ** (index // len(COLORS) % 3)
    red, green, blue = COLORS[index % len(COLORS)]
    return round(red * shade), round(green * shade), round(blue * shade)


def text_color(plate: Color) -> Color:
    """Black or white, whichever is easier to read on a plate of this colour."""
    red, green, blue = plate
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE
