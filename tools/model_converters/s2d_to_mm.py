# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S2D authors' code into one of s4d_mm, or back.

    python tools/model_converters/s2d_to_mm.py SRC DST --landmarks FILE

SRC is a fine-tuned file, or the authors' image model as a start (docs/s2d.md).
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
        '--landmarks', metavar='FILE', help='weights of the landmark network, which DST then holds'
    )
    parser.add_argument(
        '--reverse',
        action='store_true',
        help="turn s4d_mm's checkpoint into the authors', without the landmark network",
    )
    parser.add_argument('--config', help='config whose dataset gives the names of the classes')
    args = parser.parse_args(argv)
    if args.reverse and args.landmarks is not None:
        parser.error("--landmarks has no meaning with --reverse: the authors' file has none")
    if args.config is not None and not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.converters.s2d import convert_s2d_file
from s4d_mm.datasets.config_classes import config_classes


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    args = parse_args(argv)
    classes = None
    if args.config is not None:
        classes = (config_classes(Config.fromfile(args.config)) or {}).get('video')
    return convert_s2d_file(args.src, args.dst, args.landmarks, args.reverse, classes)


if __name__ == '__main__':
    sys.exit(main())
