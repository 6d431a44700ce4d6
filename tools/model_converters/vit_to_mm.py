# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of another ViT into a start for S4DViT (docs/weights.md).

python tools/model_converters/vit_to_mm.py SRC DST
"""

import sys

from command_line import make_parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument('--tubelet-size', type=int, help='frames of a tubelet, for an image model')
    args = parser.parse_args(argv)

    from s4d_mm.weights.io import convert_file
    from s4d_mm.weights.vit import from_vit

    return convert_file(args.src, args.dst, lambda weights: from_vit(weights, args.tubelet_size))


if __name__ == '__main__':
    sys.exit(main())
