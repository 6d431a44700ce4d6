# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw the confusion matrix of the predictions that ``tools/test.py --dump``
saved, a panel per modality.

    python tools/analysis_tools/plot_confusion_matrix.py CONFIG PREDICTIONS
"""

import argparse

import matplotlib
import mmengine
import numpy as np
from mmaction.evaluation import confusion_matrix
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import s4d_mm  # noqa: F401

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description='Draw a confusion matrix.')
    parser.add_argument('config', help='config that the predictions are of')
    parser.add_argument('predictions', help='file of tools/test.py --dump')
    parser.add_argument('--out', default='confusion_matrix.png')
    return parser.parse_args()


def class_names(cfg: Config) -> dict:
    """Class names of each modality in the test data of a config."""
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    classes = dataset.metainfo['classes']
    if isinstance(classes, dict):
        return classes
    return {getattr(dataset, 'INPUT_TYPE', 'video'): classes}


def draw(ax, counts: np.ndarray, names: tuple, title: str) -> None:
    """One confusion matrix: colour is the share of the true class."""
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    ax.imshow(share, vmin=0, vmax=1, cmap='Blues')
    for (i, j), count in np.ndenumerate(counts):
        ax.text(
            j,
            i,
            f'{100 * share[i, j]:.0f}\n({count})',
            ha='center',
            va='center',
            fontsize=7,
            color='white' if share[i, j] > 0.5 else 'black',
        )
    ax.set_xticks(range(len(names)), names, rotation=45, ha='right')
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel='predicted', ylabel='true', title=title)


def main() -> None:
    args = parse_args()
    names = class_names(Config.fromfile(args.config))
    samples = mmengine.load(args.predictions)
    groups = {}
    for sample in samples:
        kind = sample.get('input_type') or next(iter(names))
        groups.setdefault(kind, []).append(
            (int(sample['gt_label'][0]), int(sample['pred_label'][0]))
        )
    fig, axes = plt.subplots(1, len(groups), figsize=(6 * len(groups), 5.5), squeeze=False)
    for ax, (kind, pairs) in zip(axes[0], groups.items()):
        true, pred = np.array(pairs).T
        labels = np.arange(len(names[kind]))
        # every class has a row, also one that does not occur
        counts = confusion_matrix(np.concatenate((pred, labels)), np.concatenate((true, labels)))
        counts = counts - np.eye(len(labels), dtype=counts.dtype)
        war = 100 * (true == pred).mean()
        draw(ax, counts, names[kind], f'{kind}: {len(pairs)} samples, WAR {war:.1f} %')
    fig.tight_layout()
    fig.savefig(args.out, dpi=150)
    print(f'{args.out}: {", ".join(groups)}')


if __name__ == '__main__':
    main()
