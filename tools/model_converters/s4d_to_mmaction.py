# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of S4DViT or S4DMAEViT into one of mmaction2's VisionTransformer.

python tools/model_converters/s4d_to_mmaction.py SRC DST --img-size 160 --num-frames 16
"""

import sys

from command_line import make_parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    for name in ('img_size', 'num_frames'):
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, required=True, help=f"the VisionTransformer's {name}")
    args = parser.parse_args(argv)

    from s4d_mm.weights.io import convert_file
    from s4d_mm.weights.vit import to_mmaction_vit

    sizes = args.img_size, args.num_frames
    return convert_file(args.src, args.dst, lambda weights: to_mmaction_vit(weights, *sizes))


if __name__ == '__main__':
    sys.exit(main())
