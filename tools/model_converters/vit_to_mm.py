# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of another ViT into a start for S4DViT (docs/weights.md).

python tools/model_converters/vit_to_mm.py SRC DST
"""

import argparse
import sys
from collections.abc import Sequence

SOURCES = ('videomae', 'omnimae', 'timm_vit', 'mmaction_vit', 'mmpretrain_mae', 'videomaev2')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--source',
        choices=('auto', *SOURCES),
        default='auto',
        help='family of SRC; auto tells it from the keys',
    )
    parser.add_argument(
        '--tubelet-size',
        type=int,
        help='frames of a tubelet, for weights of an image model (default 2)',
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.converters.io import convert_file
from s4d_mm.converters.vit import from_vit


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    args = parse_args(argv)
    return convert_file(
        args.src, args.dst, lambda weights: from_vit(weights, args.source, args.tubelet_size)
    )


if __name__ == '__main__':
    sys.exit(main())
