# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S4D authors' code into one of s4d_mm, or back.

python tools/model_converters/s4d_to_mm.py SRC DST --stage finetune
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
    add('--stage', choices=('pretrain', 'finetune'), required=True, help='what SRC was for')
    add('--reverse', action='store_true', help="from s4d_mm's checkpoint to the authors'")
    add('--config', help='config whose datasets name the classes, for --stage finetune')
    args = parser.parse_args(argv)
    if args.config is not None and not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')

    from mmengine.config import Config

    import s4d_mm.guard  # noqa: F401
    from s4d_mm.datasets.config import config_classes
    from s4d_mm.weights.s4d import convert_authors_file

    classes = config_classes(Config.fromfile(args.config)) if args.config is not None else None
    return convert_authors_file(args.src, args.dst, args.stage, args.reverse, classes)


if __name__ == '__main__':
    sys.exit(main())
