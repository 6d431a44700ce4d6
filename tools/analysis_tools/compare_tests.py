# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print WAR and UAR of several tests in one table, a row per test.

python tools/analysis_tools/compare_tests.py CONFIG 'A=a.json' 'B=b.json'
"""

import argparse
import sys

from mmengine.config import Config

from s4d_mm.datasets.config import class_names_of_test
from s4d_mm.evaluation.predictions import figures_by_modality, read_predictions


def table_of(tests: dict[str, dict], classes: dict[str, tuple]) -> str:
    """WAR and UAR in percent by modality; the last line is what guessing would reach."""
    columns = [(m, key) for m in classes for key in ('WAR', 'UAR')]
    rows = [['', *(f'{modality} {key}' for modality, key in columns)]]
    for name, own in tests.items():
        values = [f'{own[m]["metrics"][key]:.1f}' if m in own else '-' for m, key in columns]
        rows.append([name, *values])
    rows.append(['chance', *(f'{100 / len(classes[m]):.1f}' for m, _ in columns)])
    first, *others = (max(map(len, column)) for column in zip(*rows))
    return '\n'.join(
        '  '.join([f'{name:<{first}}', *(f'{v:>{w}}' for v, w in zip(values, others))])
        for name, *values in rows
    )


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config that the predictions are of')
    said = 'name of the row, and the .json file of tools/test.py --dump'
    parser.add_argument('tests', nargs='+', metavar='NAME=PREDICTIONS', help=said)
    args = parser.parse_args(argv)
    args.tests = [test.partition('=')[::2] for test in args.tests]
    for name, path in args.tests:
        if not name or not path:
            parser.error(f'{name or path!r}: NAME=PATH is expected, as "A=a.json"')
    classes = class_names_of_test(Config.fromfile(args.config))
    try:
        tests = {name: figures_by_modality(read_predictions(p), classes) for name, p in args.tests}
    except (OSError, ValueError) as e:
        print(f'compare_tests: {e}', file=sys.stderr)
        sys.exit(2)
    print(table_of(tests, classes))


if __name__ == '__main__':
    main()
