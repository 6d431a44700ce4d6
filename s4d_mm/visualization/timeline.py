# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Probabilities of an input over time, as a plot."""

import os
import os.path as osp
import warnings
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from ..files.text import printable
from .colors import Color, Label, class_labels, text_color
from .pieces import Pieces, pieces_by_face
from .text import font_family, shorten, text_width

if TYPE_CHECKING:
    from ..apis.results import MediaResult

MOST_FACES = 6
MOST_PIECES = 240  # of a plot; more of them are averaged
WIDTH, DPI = 10, 120  # inches, pixels per inch
LEFT, RIGHT, TOP, BOTTOM = 0.9, 1.9, 0.55, 0.65  # inches round the plots; the legend is right
FACE_HEIGHT, BAND_HEIGHT, BAR_HEIGHT, GAP, LEGEND_LINE = 1.5, 0.26, 0.25, 0.3, 0.21  # inches
TITLE_SIZE, SMALL_SIZE = 13, 9  # points
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds between ticks


def plot_timeline(result: 'MediaResult', path: str) -> None:
    """Plot the class probabilities of each face of an input.

    Of a video: their shares over time, stacked, blank where the face is not there, and under them
    a band with the label. The records of a long video are averaged until they are as wide as can
    be seen, which the plot says. Of an image: bars. Of more than six faces those are shown that
    are there longest.

    Args:
        result (MediaResult): What was found.
        path (str): The png file. A failure leaves nothing there, or what was there.

    Raises:
        OSError: If it cannot be written.
    """
    figure = draw_timeline(result)
    part = f'{path}.part'
    try:
        with warnings.catch_warnings():  # a letter that no font of this computer has
            warnings.filterwarnings('ignore', message='Glyph .* missing')
            FigureCanvasAgg(figure).print_figure(part, format='png', dpi=DPI)
        os.replace(part, path)
    finally:
        if osp.isfile(part):
            os.remove(part)


def draw_timeline(result: 'MediaResult') -> Figure:
    """The figure of :func:`plot_timeline`."""
    pieces = pieces_by_face(result.records)
    longest = sorted(pieces, key=lambda face: -pieces[face].frames)[:MOST_FACES]
    title = printable(osp.basename(osp.normpath(result.media)))
    if len(longest) < len(pieces):
        title += f'  ({len(longest)} of {len(pieces)} faces: those that are there longest)'
    classes = class_labels(result)
    names = [label.name for label in classes]
    look = dict(family=font_family([title, *names]), parse_math=False)  # "$" is no formula
    pieces = {face: piece for face, piece in pieces.items() if face in longest}
    if not pieces:
        figure = _make_figure(FACE_HEIGHT)
        message = result.message or 'There are no records of this input.'
        figure.text(0.5, 0.4, message, size=12, ha='center', va='center', wrap=True, **look)
    elif result.kind == 'image':
        figure = _draw_image(pieces, classes, look)
    else:
        figure = _draw_video(result, pieces, classes, look)
    room = (WIDTH - LEFT) * 72 / TITLE_SIZE * 100  # in hundredths of the font's height
    place = _shares(figure, LEFT, figure.get_figheight() - TOP / 2)
    figure.text(*place, shorten(title, 100, int(room)), size=TITLE_SIZE, va='center', **look)
    if result.records and result.trained_on:
        note = shorten(printable(f'trained on {result.trained_on}'), 100, 3000)
        place = _shares(figure, WIDTH - GAP, GAP / 2)
        figure.text(*place, note, size=SMALL_SIZE, ha='right', va='center', **look)
    return figure


def _make_figure(height: float) -> Figure:
    """A figure whose plots are ``height`` inches high all together."""
    return Figure(figsize=(WIDTH, TOP + height + BOTTOM))


def _shares(figure: Figure, left: float, bottom: float) -> tuple[float, float]:
    """Inches as shares of a figure."""
    return left / figure.get_figwidth(), bottom / figure.get_figheight()


def _add_axes(figure: Figure, below_top: float, height: float, right: float = RIGHT) -> Axes:
    """Axes whose lower edge is some inches below the top of all plots."""
    corner = _shares(figure, LEFT, figure.get_figheight() - TOP - below_top)
    return figure.add_axes((*corner, *_shares(figure, WIDTH - LEFT - right, height)))


def _face_name(face: int | None) -> str:
    return 'probability' if face is None else f'face {face}'


def _draw_image(pieces: dict[int | None, Pieces], classes: list[Label], look: dict) -> Figure:
    height = BAR_HEIGHT * len(classes)
    figure = _make_figure(len(pieces) * (height + GAP) - GAP)
    for i, (face, piece) in enumerate(pieces.items()):
        axes = _add_axes(figure, i * (height + GAP) + height, height, right=GAP)
        axes.set_ylabel(_face_name(face))
        _draw_bars(axes, piece.scores[0], classes, look)
        axes.tick_params(labelbottom=i == len(pieces) - 1)
    axes.set_xlabel('probability')
    return figure


def _draw_bars(axes: Axes, scores: np.ndarray, classes: list[Label], look: dict) -> None:
    for row, ((name, color), score) in enumerate(zip(classes, scores.tolist())):
        axes.barh(row, score, color=np.array(color) / 255, height=0.8)
        inside = score > 0.6
        axes.text(
            score - 0.01 if inside else score + 0.01,
            row,
            f'{shorten(name, 100, 3000)} {score:.0%}',
            ha='right' if inside else 'left',
            va='center_baseline',
            size=SMALL_SIZE,
            color=np.array(text_color(color)) / 255 if inside else 'black',
            **look,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _draw_video(
    result: 'MediaResult', pieces: dict[int | None, Pieces], classes: list[Label], look: dict
) -> Figure:
    end = max(piece.seconds[-1] for piece in pieces.values())
    span = (0.0, max(end, result.frames / result.fps if result.fps else end))
    row = FACE_HEIGHT + BAND_HEIGHT + GAP
    figure = _make_figure(max(len(pieces) * row - GAP, LEGEND_LINE * len(classes)))
    averaged = 0.0
    for i, (face, piece) in enumerate(pieces.items()):
        edges, scores = visible_pieces(piece, *span)
        if len(scores) < len(piece.scores):
            averaged = edges[1] - edges[0]
        axes = _add_axes(figure, i * row + FACE_HEIGHT, FACE_HEIGHT)
        axes.set_ylabel(_face_name(face))
        band = _add_axes(figure, i * row + FACE_HEIGHT + BAND_HEIGHT, BAND_HEIGHT)
        _draw_shares(axes, edges, scores, span, classes)
        _draw_band(band, edges, scores, span, classes, look)
        _draw_time(band, span)
        band.tick_params(labelbottom=i == len(pieces) - 1)
    note = f', means of {averaged:.3g} s' if averaged else ''
    band.set_xlabel(f'time ({_time_unit(span)}){note}')
    _draw_legend(figure, classes, look['family'])
    return figure


def _draw_shares(
    axes: Axes,
    edges: np.ndarray,
    scores: np.ndarray,
    span: tuple[float, float],
    classes: list[Label],
) -> None:
    """Stacked probabilities; a piece is constant from edge to edge, and blank where it is NaN."""
    low = np.zeros(len(scores))
    for label, high in zip(classes, np.cumsum(scores, axis=1).T):
        _fill(axes, high, edges, low, label.color)
        low = high
    axes.set_xlim(span)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MultipleLocator(0.5))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(bottom=False, labelbottom=False)


def _fill(
    axes: Axes, values: np.ndarray, edges: np.ndarray, low: np.ndarray | float, color: Color
) -> None:
    """Fill from ``low`` up to the values."""
    # the patch of ``axes.stairs``, which looks for new limits each time, in many times the time
    axes.add_artist(
        StepPatch(
            values,
            edges,
            baseline=low,
            fill=True,
            color=np.array(color) / 255,
            linewidth=0,
            antialiased=False,
        )
    )


def _draw_band(
    band: Axes,
    edges: np.ndarray,
    scores: np.ndarray,
    span: tuple[float, float],
    classes: list[Label],
    look: dict,
) -> None:
    """The label over time, with its name where there is room for it."""
    labels = [None if np.isnan(row[0]) else int(row.argmax()) for row in scores]
    for label in {*labels} - {None}:
        there = np.array([1.0 if k == label else np.nan for k in labels])
        _fill(band, there, edges, 0, classes[label].color)
    pixels = (WIDTH - LEFT - RIGHT) * DPI / max(span[1] - span[0], 1e-9)  # in a second
    last = 0
    for label, group in groupby(labels):
        first, last = last, last + len(list(group))
        if label is None:
            continue
        left, right = edges[first], edges[last]
        name, color = classes[label]
        if text_width(name, round(SMALL_SIZE / 72 * DPI)) + 6 < (right - left) * pixels:
            band.text(
                (left + right) / 2,
                0.5,
                name,
                size=SMALL_SIZE,
                ha='center',
                va='center_baseline',
                color=np.array(text_color(color)) / 255,
                **look,
            )
    band.set_xlim(span)
    band.set_ylim(0, 1)
    band.set_yticks([])


def _draw_time(band: Axes, span: tuple[float, float]) -> None:
    length, unit = span[1] - span[0], _time_unit(span)
    if unit == 's':
        band.xaxis.set_major_locator(MaxNLocator(9, steps=(1, 2, 2.5, 5, 10)))
        return
    step = next((step for step in STEPS if length / step <= 9), STEPS[-1])
    band.xaxis.set_major_locator(MultipleLocator(step))
    band.xaxis.set_major_formatter(FuncFormatter(lambda x, _: clock(x, hours=unit[0] == 'h')))


def _time_unit(span: tuple[float, float]) -> str:
    if span[1] - span[0] <= 150:
        return 's'
    return 'h:min:s' if span[1] >= 3600 else 'min:s'


def clock(seconds: float, hours: bool) -> str:
    """Seconds as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


def visible_pieces(pieces: Pieces, start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges in seconds and scores, averaged over even bins if there are too many to see.

    Args:
        pieces (Pieces): Of one face.
        start (float): Start of the plot in seconds.
        stop (float): End of it.

    Returns:
        tuple: Edges (n + 1, ) and scores (n, classes), n at most ``MOST_PIECES``. A bin is NaN if
        the face is there for less than half of it.
    """
    if len(pieces.scores) <= MOST_PIECES:
        return pieces.seconds, pieces.scores
    edges = np.linspace(start, stop, MOST_PIECES + 1)
    there = ~np.isnan(pieces.scores[:, :1])
    values = np.hstack([np.where(there, pieces.scores, 0), there])
    # the integral from the start to each edge, by which bins of any size are averaged exactly
    area = np.cumsum(values * np.diff(pieces.seconds)[:, None], axis=0)
    area = np.vstack([np.zeros(values.shape[1]), area])
    area = np.stack([np.interp(edges, pieces.seconds, column) for column in area.T], axis=1)
    area = np.diff(area, axis=0)
    time = area[:, -1:]
    enough = time > (edges[1] - edges[0]) / 2
    return edges, np.where(enough, area[:, :-1] / np.where(enough, time, 1), np.nan)


def _draw_legend(figure: Figure, classes: list[Label], family: list[str]) -> None:
    patches = [Patch(color=np.array(label.color) / 255) for label in classes]
    place = _shares(figure, WIDTH - RIGHT + 0.1, figure.get_figheight() - TOP)
    legend = figure.legend(
        patches[::-1],
        [str(i) for i in range(len(classes))],
        loc='upper left',
        bbox_to_anchor=place,
        frameon=False,
        borderaxespad=0,
    )
    for text, (name, _) in zip(legend.get_texts(), classes[::-1]):
        # not above: matplotlib leaves out what starts with "_"
        text.set_parse_math(False)
        text.set_text(shorten(name, 100, 1100))
        text.set_family(family)
