# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The class probabilities of a video over time, as a chart."""

import os.path as osp

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from ..files.text import printable
from .drawing import class_colors, font_file, scores_by_face
from .results import MediaResult

MOST_FACES = 6
MOST_STEPS = 1000  # of a chart; more frames are averaged


def plot_timeline(result: MediaResult, path: str) -> None:
    """Plot the class probabilities of each face of a video, as a png file.

    Their shares are stacked over time, blank where the face is not there, above a band with the
    label. Of more than six faces those are shown that are there longest.
    """
    title = printable(osp.basename(osp.normpath(result.media)))
    letters = ''.join([title, *class_colors(result)])
    path_of_font = font_file(frozenset(c for c in letters if not c.isascii()))
    font_manager.fontManager.addfont(path_of_font)
    family = font_manager.FontProperties(fname=path_of_font).get_name()
    look = {'font.family': ['DejaVu Sans', family], 'text.parse_math': False}  # "$" is no formula
    with matplotlib.rc_context(look):
        draw_timeline(result, title).savefig(path, format='png', dpi=120)


def draw_timeline(result: MediaResult, title: str) -> Figure:
    """The figure of :func:`plot_timeline`."""
    scores = scores_by_face(result.records)
    longest = sorted(scores, key=lambda face: -len(scores[face][1]))[:MOST_FACES]
    if len(longest) < len(scores):
        title += f'  ({len(longest)} of {len(scores)} faces: those that are there longest)'
    colors = class_colors(result)
    palette = np.array([*colors.values()]) / 255
    seconds = {r.start_frame: r.start for r in result.records}
    seconds = dict(sorted({**{r.end_frame: r.end for r in result.records}, **seconds}.items()))
    height = max(1 + 1.8 * len(longest), 0.6 + 0.22 * len(colors))
    figure = Figure(figsize=(10, height), layout='constrained')
    figure.suptitle(title, x=0.02, ha='left')
    plots = figure.subplots(len(longest), sharex=True, squeeze=False)[:, 0]
    for axes, face in zip(plots, sorted(longest, key=lambda face: face or 0)):
        first, values = scores[face]
        step = -(-len(values) // MOST_STEPS)
        values = values[: len(values) // step * step].reshape(-1, step, len(colors)).mean(1)
        edges = np.interp(
            first + step * np.arange(len(values) + 1), [*seconds], [*seconds.values()]
        )
        known = ~np.isnan(values[:, 0])
        values = np.nan_to_num(np.vstack([values, values[-1:]]))
        patches = axes.stackplot(edges, values.T, colors=palette, step='post')
        labels = np.ma.masked_where(~known, values[:-1].argmax(1))
        limits = dict(vmin=-0.5, vmax=len(colors) - 0.5)
        axes.pcolormesh(edges, (-0.25, -0.05), labels[None], cmap=ListedColormap(palette), **limits)
        axes.set(ylabel='probability' if face is None else f'face {face}', ylim=(-0.25, 1))
        axes.yaxis.set_major_locator(MultipleLocator(0.5))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlim=(min(seconds.values()), max(seconds.values())), xlabel='time (s)')
    # a space, as matplotlib leaves out what starts with "_"
    names = [f' {name}' for name in colors]
    figure.legend(patches[::-1], names[::-1], loc='outside right upper', frameon=False)
    note = printable(result.trained_on and f'trained on {result.trained_on}')[:120]
    figure.text(0.99, 0.01, note, size=8, ha='right')
    return figure
