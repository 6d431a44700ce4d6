# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S4D authors' code into one of s4d_mm, or back.

python tools/model_converters/s4d_to_mm.py SRC DST --stage finetune
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence

from mmengine.config import Config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--stage', choices=('pretrain', 'finetune'), required=True, help='what SRC was for'
    )
    parser.add_argument(
        '--reverse', action='store_true', help="turn s4d_mm's checkpoint into the authors'"
    )
    parser.add_argument(
        '--config', help='config whose datasets give the names of the classes, for --stage finetune'
    )
    args = parser.parse_args(argv)
    if args.config is not None and not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.converters.s4d import convert_authors_file
from s4d_mm.datasets.config_classes import config_classes


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    args = parse_args(argv)
    classes = None
    if args.config is not None:
        classes = config_classes(Config.fromfile(args.config))
    return convert_authors_file(args.src, args.dst, args.stage, args.reverse, classes)


if __name__ == '__main__':
    sys.exit(main())
