# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of S4DViT or S4DMAEViT into one of mmaction2's VisionTransformer.

python tools/model_converters/s4d_to_mmaction.py SRC DST --img-size 160 --num-frames 16
"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='checkpoint to read')
    add('dst', help='checkpoint to write')
    add('--img-size', type=int, required=True, help="the VisionTransformer's img_size")
    add('--num-frames', type=int, required=True, help="the VisionTransformer's num_frames")
    args = parser.parse_args(argv)

    import s4d_mm.guard  # noqa: F401
    from s4d_mm.weights.io import convert_file
    from s4d_mm.weights.vit import to_mmaction_vit

    sizes = args.img_size, args.num_frames
    return convert_file(args.src, args.dst, lambda weights: to_mmaction_vit(weights, *sizes))


if __name__ == '__main__':
    sys.exit(main())
