# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print and draw what tests have given, with 95 % intervals.

    python tools/analysis_tools/compare_tests.py CONFIG 'A=a.json' 'B=b.json' [--out tests.png]

The table has WAR and UAR and, of the second and further tests, the difference to the first by a
paired bootstrap. The picture has the confusion matrix with the recalls, and the reliability.
"""

import argparse

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from statistics_of import calibration, paired_bootstrap, wilson
from style import heat, panels, save

from s4d_mm.datasets.config import class_names_of_test
from s4d_mm.engine.launch import errors_as_messages
from s4d_mm.evaluation.predictions import figures_by_modality, read_predictions


def read_test(path: str, classes: dict[str, tuple]) -> dict[str, dict]:
    """Figures by modality, and the samples' ``ids``, ``labels``, ``hits``, ``confidences``."""
    samples = read_predictions(path)
    found = figures_by_modality(samples, classes)
    for modality, own in found.items():
        group = [s for s in samples if (s.get('input_type') or next(iter(classes))) == modality]
        own['ids'] = [sample.get('sample_id', i) for i, sample in enumerate(group)]
        own['labels'] = np.array([sample['gt_label'][0] for sample in group])
        scores = np.array([sample['pred_score'] for sample in group], np.float32)
        readable = np.array([not sample.get('unreadable') for sample in group])
        own['hits'] = (scores.argmax(axis=1) == own['labels']) & readable
        own['confidences'] = scores.max(axis=1)
    return found


def difference(first: dict, own: dict, key: str) -> str:
    """That of two tests of the same samples, in percentage points."""
    places = {name: i for i, name in enumerate(own['ids'])}
    labels = dict(zip(own['ids'], own['labels']))
    if labels != dict(zip(first['ids'], first['labels'])):
        raise ValueError(
            f'The samples or their labels differ ({len(labels)} and {len(first["ids"])} samples), '
            'so no pairs can be made. Give tests of the same data.'
        )
    hits = own['hits'][[places[name] for name in first['ids']]]
    labels = first['labels'] if key == 'UAR' else None
    value, low, high = paired_bootstrap(first['hits'], hits, labels=labels)
    return f'{value:+.1f} [{low:+.1f}, {high:+.1f}]'


def table_of(tests: dict[str, dict], classes: dict[str, tuple]) -> str:
    """WAR and UAR in percent, then differences; the last line is what guessing would reach."""
    columns = [(m, key) for m in classes for key in ('WAR', 'UAR')]
    rows = [['', *(f'{modality} {key}' for modality, key in columns)]]
    for name, own in tests.items():
        values = [f'{own[m]["metrics"][key]:.1f}' if m in own else '-' for m, key in columns]
        rows.append([name, *values])
    (base, first), *others = tests.items()
    for name, own in others:
        both = [
            difference(first[m], own[m], k) if m in {*first} & {*own} else '-' for m, k in columns
        ]
        rows.append([f'{name} - {base}', *both])
    rows.append(['chance', *(f'{100 / len(classes[m]):.1f}' for m, _ in columns)])
    first, *others = (max(map(len, column)) for column in zip(*rows))
    return '\n'.join(
        '  '.join([f'{name:<{first}}', *(f'{v:>{w}}' for v, w in zip(values, others))])
        for name, *values in rows
    )


def draw_confusion(ax: Axes, own: dict, title: str) -> list[dict]:
    """Rows are true classes, with their recalls; unreadable samples count as wrong."""
    order = np.argsort(own['classes'])  # of the alphabet: the same for both modalities
    names, support = np.array(own['classes'])[order].tolist(), np.array(own['support'])[order]
    matrix = np.array(own['matrix'])[np.ix_(order, order)]
    unread = own['samples'] - matrix.sum()
    said = f'{own["samples"]} samples' + (f' ({unread} unreadable)' if unread else '')
    metrics = own['metrics']
    title = f'{title}: {said}\nWAR {metrics["WAR"]:.1f} %, UAR {metrics["UAR"]:.1f} %'
    share = 100 * matrix / np.maximum(support, 1)[:, None]
    labels = dict(xlabel='predicted', ylabel='true (samples), 95 % interval of the recall')
    rows = heat(ax, share, names, names, title=title, **labels)
    low, high = wilson(np.diag(matrix), support)
    ends = [
        f'{n} ({k})\n{100 * a:.0f}-{100 * b:.0f} %' for n, k, a, b in zip(names, support, low, high)
    ]
    ax.set_yticks(range(len(names)), ends)
    recalls = dict(samples=support, recall=np.diag(share), low=100 * low, high=100 * high)
    cells = [(name, key, v) for key, values in recalls.items() for name, v in zip(names, values)]
    return rows + [dict(rows[0], row=name, column=key, value=value) for name, key, value in cells]


def draw_reliability(ax: Axes, own: dict, title: str) -> list[dict]:
    """How often answers of a confidence are right."""
    error, counts, confidence, accuracy = calibration(own['confidences'], own['hits'], bins=10)
    low, high = wilson(accuracy * counts, counts)
    ax.plot((0, 1), (0, 1), ':', color='grey')
    error_bars = np.abs(np.subtract((low, high), accuracy))
    ax.errorbar(confidence, accuracy, error_bars, fmt='o', capsize=3)
    title = f'{title}: reliability\nexpected calibration error {100 * error:.1f} %'
    ax.set(
        title=title,
        xlabel='confidence',
        ylabel='share that is right',
        xlim=(0, 1.03),
        ylim=(0, 1.03),
    )
    columns = dict(samples=counts, confidence=confidence, accuracy=accuracy, low=low, high=high)
    cells = [(i, key, value) for key, values in columns.items() for i, value in enumerate(values)]
    rows = [dict(row=f'bin {i}', column=key, value=value) for i, key, value in cells]
    return [dict(panel=title.replace('\n', ' '), **row) for row in rows]


def draw(tests: dict[str, dict], classes: dict[str, tuple]) -> tuple[Figure, list[dict]]:
    """Two panels for each modality, a row for each test."""
    fig, axes = panels(len(tests), 2 * len(classes), 4.6, 4.4)
    rows = []
    for (name, found), places in zip(tests.items(), axes):
        for modality, pair in zip(classes, places.reshape(-1, 2)):
            for ax, panel in zip(pair, (draw_confusion, draw_reliability)):
                if modality in found:
                    rows += panel(ax, found[modality], f'{name}, {modality}')
                else:
                    ax.set_axis_off()
    return fig, rows


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config that the predictions are of')
    said = 'name of the row, and the .json file of tools/test.py --dump'
    parser.add_argument('tests', nargs='+', metavar='NAME=PREDICTIONS', help=said)
    parser.add_argument('--out', help='picture; a .csv comes beside it')
    args = parser.parse_args(argv)
    args.tests = [test.partition('=')[::2] for test in args.tests]
    for name, path in args.tests:
        if not name or not path:
            parser.error(f'{name or path!r}: NAME=PATH is expected, as "A=a.json"')
    with errors_as_messages(config=True):
        classes = class_names_of_test(Config.fromfile(args.config))
        tests = {name: read_test(path, classes) for name, path in args.tests}
        print(table_of(tests, classes))
        if args.out:
            save(*draw(tests, classes), args.out)


if __name__ == '__main__':
    main()
