# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S2D authors' code into one of s4d_mm, or back.

    python tools/model_converters/s2d_to_mm.py SRC DST --landmarks FILE

SRC is a fine-tuned file, or the authors' image model as a start (docs/s2d.md).
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='checkpoint to read')
    add('dst', help='checkpoint to write')
    add('--landmarks', metavar='FILE', help='weights of the landmark network, which DST then holds')
    add('--reverse', action='store_true', help="from s4d_mm's to the authors', without landmarks")
    add('--config', help='config whose dataset gives the names of the classes')
    args = parser.parse_args(argv)
    if args.reverse and args.landmarks is not None:
        parser.error("--landmarks has no meaning with --reverse: the authors' file has none")
    if args.config is not None and not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')

    from mmengine.config import Config

    import s4d_mm.guard  # noqa: F401
    from s4d_mm.datasets.config import config_classes
    from s4d_mm.weights.s2d import convert_s2d_file

    classes = config_classes(Config.fromfile(args.config)) if args.config is not None else None
    classes = (classes or {}).get('video')
    return convert_s2d_file(args.src, args.dst, args.landmarks, args.reverse, classes)


if __name__ == '__main__':
    sys.exit(main())
