# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print and draw what tests have given: WAR and UAR, differences, recalls, reliability.

    python tools/analysis_tools/compare_tests.py CONFIG 'A=a.json' 'B=b.json' [--out tests.png]

Differences are those to the first test, by a paired bootstrap; intervals are of 95 %.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from mmengine.config import Config
from statistics_of import calibration, paired_bootstrap, wilson
from style import heat, panels, save

from s4d_mm.datasets.config import class_names_of_test
from s4d_mm.engine.launch import errors_as_messages
from s4d_mm.evaluation.predictions import figures_by_modality, read_predictions


def read_test(path: str, classes: dict[str, tuple]) -> dict[str, dict]:
    """Figures by modality, with ``labels`` by sample, ``hits`` and ``confidences``."""
    samples = read_predictions(path)
    found = figures_by_modality(samples, classes)
    for modality, own in found.items():
        group = [s for s in samples if (s.get('input_type') or next(iter(classes))) == modality]
        scores = np.array([sample['pred_score'] for sample in group], np.float32)
        labels = [sample['gt_label'][0] for sample in group]
        readable = [not sample.get('unreadable') for sample in group]
        own['labels'] = {s.get('sample_id', i): y for i, (s, y) in enumerate(zip(group, labels))}
        own['hits'] = (scores.argmax(axis=1) == labels) & readable
        own['confidences'] = scores.max(axis=1)
    return found


def difference(first: dict, own: dict, key: str) -> str:
    """That of two tests of the same samples, in percentage points."""
    if own['labels'] != first['labels']:
        raise ValueError('The samples or labels of two tests differ: compare tests of the same.')
    place = {name: i for i, name in enumerate(own['labels'])}
    hits = own['hits'][[place[name] for name in first['labels']]]
    labels = list(first['labels'].values()) if key == 'UAR' else None
    value, low, high = paired_bootstrap(first['hits'], hits, labels=labels)
    return f'{value:+.1f} [{low:+.1f}, {high:+.1f}]'


def table_of(tests: dict[str, dict], classes: dict[str, tuple]) -> str:
    """WAR and UAR in percent, and differences; the last line is what guessing would reach."""
    columns = [(m, key) for m in classes for key in ('WAR', 'UAR')]
    rows, (base, first) = [['', *(f'{m} {key}' for m, key in columns)]], next(iter(tests.items()))
    for name, own in tests.items():
        values = [f'{own[m]["metrics"][key]:.1f}' if m in own else '-' for m, key in columns]
        rows.append([name, *values])
    for name, own in list(tests.items())[1:]:
        both = first.keys() & own.keys()
        values = [difference(first[m], own[m], key) if m in both else '-' for m, key in columns]
        rows.append([f'{name} - {base}', *values])
    rows.append(['chance', *(f'{100 / len(classes[m]):.1f}' for m, _ in columns)])
    first, *others = (max(map(len, column)) for column in zip(*rows))
    return '\n'.join(
        '  '.join([f'{name:<{first}}', *(f'{v:>{w}}' for v, w in zip(values, others))])
        for name, *values in rows
    )


def draw_confusion(ax: Axes, own: dict, title: str) -> Iterator[dict]:
    """Rows are true classes, with their recalls; unreadable samples count as wrong."""
    order = np.argsort(own['classes'])  # the same for both modalities
    names, support = np.array(own['classes'])[order].tolist(), np.array(own['support'])[order]
    matrix = np.array(own['matrix'])[np.ix_(order, order)]
    share = 100 * matrix / np.maximum(support, 1)[:, None]
    low, high = 100 * np.array(wilson(np.diag(matrix), support))
    unread = own['samples'] - matrix.sum()
    title += f': {own["samples"]} samples' + (f' ({unread} unreadable)' if unread else '')
    title += '\nWAR {WAR:.1f} %, UAR {UAR:.1f} %'.format(**own['metrics'])
    labels = dict(xlabel='predicted', ylabel='true (samples), 95 % interval of the recall')
    yield from heat(ax, share, names, names, title=title, **labels)
    ends = zip(names, support, low, high)
    ax.set_yticks(range(len(names)), ['{} ({})\n{:.0f}-{:.0f} %'.format(*end) for end in ends])
    for key, values in dict(samples=support, low=low, high=high).items():
        for name, value in zip(names, values):
            yield dict(panel=title.replace('\n', ' '), row=name, column=key, value=value)


def draw_reliability(ax: Axes, own: dict, title: str) -> Iterator[dict]:
    """How often answers of a confidence are right."""
    error, counts, confidence, accuracy = calibration(own['confidences'], own['hits'])
    low, high = wilson(accuracy * counts, counts)
    bars = np.abs(np.subtract((low, high), accuracy))
    ax.plot((0, 1), (0, 1), ':', color='grey')
    ax.errorbar(confidence, accuracy, bars, fmt='o', capsize=3)
    ax.set(xlabel='confidence', ylabel='share that is right', xlim=(0, 1.03), ylim=(0, 1.03))
    title = f'{title}: reliability\nexpected calibration error {100 * error:.1f} %'
    ax.set_title(title)
    columns = dict(samples=counts, confidence=confidence, accuracy=accuracy, low=low, high=high)
    for key, values in columns.items():
        for i, value in enumerate(values):
            yield dict(panel=title.replace('\n', ' '), row=f'bin {i}', column=key, value=value)


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
        if not args.out:
            return
        drawn = [(f'{name}, {m}', own) for name, found in tests.items() for m, own in found.items()]
        fig, axes = panels(len(drawn), 2, 5.2, 4.4)
        rows = []
        for (title, own), pair in zip(drawn, axes):
            for ax, draw in zip(pair, (draw_confusion, draw_reliability)):
                rows += draw(ax, own, title)
        save(fig, rows, args.out)


if __name__ == '__main__':
    main()
