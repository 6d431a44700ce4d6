# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of S4DViT or S4DMAEViT into one of mmaction2's VisionTransformer.

python tools/model_converters/s4d_to_mmaction.py SRC DST --img-size 160 --num-frames 16
"""

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--img-size', type=int, required=True, help="the VisionTransformer's img_size"
    )
    parser.add_argument(
        '--num-frames', type=int, required=True, help="the VisionTransformer's num_frames"
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.converters.io import convert_file
from s4d_mm.converters.vit import to_mmaction_vit


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    args = parse_args(argv)
    return convert_file(
        args.src, args.dst, lambda weights: to_mmaction_vit(weights, args.img_size, args.num_frames)
    )


if __name__ == '__main__':
    sys.exit(main())
