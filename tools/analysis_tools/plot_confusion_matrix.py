# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw the confusion matrix of saved predictions, a panel per modality.

All panels with the same class names show them in the order of the first panel.

    python tools/analysis_tools/plot_confusion_matrix.py CONFIG PREDICTIONS
"""

import argparse
import sys
from collections.abc import Sequence

import matplotlib
from mmengine.config import Config

matplotlib.use('Agg')  # before pyplot
import matplotlib.pyplot as plt
import numpy as np

from s4d_mm.datasets.config import class_names_of_test
from s4d_mm.evaluation.predictions import figures_by_modality, read_predictions


def draw(ax, counts: np.ndarray, names: Sequence[str], title: str, support: Sequence[int]) -> None:
    """Rows are true classes; ``support`` counts their samples with those that were not read."""
    share = counts / np.maximum(support, 1)[:, None]
    ax.imshow(share, vmin=0, vmax=1, cmap='Blues')
    for (i, j), count in np.ndenumerate(counts):
        color = 'white' if share[i, j] > 0.5 else 'black'
        text = f'{100 * share[i, j]:.0f}\n({count})'
        ax.text(j, i, text, ha='center', va='center', fontsize=7, color=color)
    ax.set_xticks(range(len(names)), names, rotation=45, ha='right')
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel='predicted', ylabel='true', title=title)


def in_order(own: dict, names: Sequence[str]) -> dict:
    if sorted(own['classes']) != sorted(names):
        return own
    order = [own['classes'].index(name) for name in names]
    matrix = np.array(own['matrix'])[np.ix_(order, order)].tolist()
    support = [own['support'][i] for i in order]
    return dict(own, classes=list(names), matrix=matrix, support=support)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw a confusion matrix.')
    parser.add_argument('config', help='config that the predictions are of')
    parser.add_argument('predictions', help='the .json file of tools/test.py --dump')
    parser.add_argument('--out', default='confusion_matrix.png')
    args = parser.parse_args(argv)
    try:
        samples = read_predictions(args.predictions)
    except (OSError, ValueError) as e:
        sys.exit(str(e))
    figures = figures_by_modality(samples, class_names_of_test(Config.fromfile(args.config)))
    names = next(iter(figures.values()))['classes']
    fig, axes = plt.subplots(1, len(figures), figsize=(6 * len(figures), 5.5), squeeze=False)
    for ax, (modality, own) in zip(axes[0], figures.items()):
        own, metrics = in_order(own, names), own['metrics']
        title = f'{modality}: {own["samples"]} samples'
        unreadable = own['samples'] - np.sum(own['matrix'])
        if unreadable:
            title += f' ({unreadable} unreadable)'
        title += f'\nWAR {metrics["WAR"]:.1f} %, UAR {metrics["UAR"]:.1f} %'
        draw(ax, np.array(own['matrix']), own['classes'], title, own['support'])
    fig.tight_layout()
    fig.savefig(args.out, dpi=150)
    print(f'{args.out}: {", ".join(figures)}')


if __name__ == '__main__':
    main()
