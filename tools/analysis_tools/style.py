# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One look for the pictures of these tools, and a .csv beside each of them."""

import csv
import os.path as osp
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# of Okabe and Ito, which the colour-blind can tell apart
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#F0E442', '#999999')


def colours(number: int) -> np.ndarray:
    """RGB in 0..1, (number, 3); of viridis if they are many."""
    many = matplotlib.colormaps['viridis'].resampled(number)(range(number))
    return matplotlib.colors.to_rgba_array(COLOURS if number <= len(COLOURS) else many)[:number, :3]


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns), each ``width`` by ``height`` inches."""
    fig = Figure((width * columns, height * rows), layout='constrained')
    return fig, fig.subplots(rows, columns, squeeze=False)


def heat(ax: Axes, values: np.ndarray, rows: Sequence, columns: Sequence, span=(0, 100), **labels):
    """Draw numbers (rows, columns), coloured over a span; their lines for the .csv file."""
    ax.imshow(values, vmin=span[0], vmax=span[1], cmap='viridis', aspect='auto')
    for (i, j), value in np.ndenumerate(values):
        color = 'white' if value < sum(span) / 2 else 'black'
        text = '' if np.isnan(value) else f'{value:.0f}'
        ax.text(j, i, text, ha='center', va='center', fontsize=8, color=color)
    ax.set_xticks(range(len(columns)), columns, rotation=45)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(**labels)
    cells, title = np.ndenumerate(values), labels['title'].replace('\n', ' ')
    return [dict(panel=title, row=rows[i], column=columns[j], value=v) for (i, j), v in cells]


def save(fig: Figure, rows: list[dict], path: str) -> None:
    """Write the picture, and what it shows as a .csv file of the same name."""
    fig.savefig(path, dpi=100)
    with open(f'{osp.splitext(path)[0]}.csv', 'w', encoding='utf-8', newline='') as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f'{path}, {f.name}')
