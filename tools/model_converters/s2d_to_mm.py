# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S2D authors' code into one of s4d_mm, or back.

    python tools/model_converters/s2d_to_mm.py SRC DST --landmarks FILE

SRC is a fine-tuned file, or the authors' image model as a start (docs/s2d.md).
"""

import sys

from command_line import classes_of, make_parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('--landmarks', metavar='FILE', help='weights of the landmark network, which DST then holds')
    add('--reverse', action='store_true', help="from s4d_mm's to the authors', without landmarks")
    add('--config', type=classes_of, help='config whose datasets give the names of the classes')
    args = parser.parse_args(argv)
    if args.reverse and args.landmarks is not None:
        parser.error("--landmarks has no meaning with --reverse: the authors' file has none")
    classes = (args.config or {}).get('video')

    from s4d_mm.weights.s2d import convert_s2d_file

    return convert_s2d_file(args.src, args.dst, args.landmarks, args.reverse, classes)


if __name__ == '__main__':
    sys.exit(main())
