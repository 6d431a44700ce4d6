# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of another ViT into a start for S4DViT (docs/weights.md).

python tools/model_converters/vit_to_mm.py SRC DST
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
    add('--tubelet-size', type=int, help='frames of a tubelet, for an image model (default 2)')
    args = parser.parse_args(argv)

    import s4d_mm.guard  # noqa: F401
    from s4d_mm.weights.io import convert_file
    from s4d_mm.weights.vit import from_vit

    return convert_file(args.src, args.dst, lambda weights: from_vit(weights, args.tubelet_size))


if __name__ == '__main__':
    sys.exit(main())
