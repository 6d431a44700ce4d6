# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print WAR and UAR of several tests in one table, a row per test.

The predictions are those that ``tools/test.py --dump`` saved.

    python tools/analysis_tools/compare_tests.py CONFIG 'A=a.json' 'B=b.json'
"""

import argparse
import sys

from mmengine.config import Config


def named_file(text: str) -> tuple[str, str]:
    """Split ``NAME=PATH``.

    Args:
        text (str): The argument.

    Returns:
        tuple[str, str]: Name and path.

    Raises:
        argparse.ArgumentTypeError: If one of the two is missing.
    """
    name, _, path = text.partition('=')
    if not name or not path:
        raise argparse.ArgumentTypeError(f'{text!r}: NAME=PATH is expected, as "A=a.json"')
    return name, path


def parse_args(argv: list | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Print WAR and UAR of several tests in one table.')
    parser.add_argument('config', help='config that the predictions are of')
    parser.add_argument(
        'tests',
        nargs='+',
        type=named_file,
        metavar='NAME=PREDICTIONS',
        help='name of the row, and the file of tools/test.py --dump: the .json or the .pkl',
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

from s4d_mm.evaluation.predictions import (
    class_names_of_test,
    figures_by_modality,
    read_predictions,
)


def table_of(tests: dict[str, dict], classes: dict[str, tuple]) -> str:
    """The table, with a last row of what guessing would reach.

    Args:
        tests (dict[str, dict]): Name of each row -> figures of its test, as
            :func:`figures_by_modality` returns them.
        classes (dict[str, tuple[str]]): Class names, by modality.

    Returns:
        str: Lines of WAR and UAR in percent, two columns per modality; ``-`` where a test has no
        samples of a modality.
    """
    columns = [(m, key) for m in classes for key in ('WAR', 'UAR')]
    rows = [['', *(f'{modality} {key}' for modality, key in columns)]]
    for name, figures in tests.items():
        values = [
            f'{figures[m]["metrics"][key]:.1f}' if m in figures else '-' for m, key in columns
        ]
        rows.append([name, *values])
    rows.append(['chance', *(f'{100 / len(classes[m]):.1f}' for m, _ in columns)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(
        '  '.join([f'{row[0]:<{widths[0]}}', *(f'{v:>{w}}' for v, w in zip(row[1:], widths[1:]))])
        for row in rows
    )


def main(argv: list | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    classes = class_names_of_test(Config.fromfile(args.config))
    try:
        tests = {name: figures_by_modality(read_predictions(p), classes) for name, p in args.tests}
    except (OSError, ValueError) as e:
        print(f'compare_tests: {e}', file=sys.stderr)
        sys.exit(2)
    print(table_of(tests, classes))


if __name__ == '__main__':
    main()
