# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S4D authors' code into one of s4d_mm, or back.

python tools/model_converters/s4d_to_mm.py SRC DST --stage finetune
"""

import sys

from command_line import classes_of, make_parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('--stage', choices=('pretrain', 'finetune'), required=True, help='what SRC was for')
    add('--reverse', action='store_true', help="from s4d_mm's checkpoint to the authors'")
    add('--config', type=classes_of, help='config whose datasets give the names of the classes')
    args = parser.parse_args(argv)

    from s4d_mm.weights.s4d import convert_authors_file

    return convert_authors_file(args.src, args.dst, args.stage, args.reverse, args.config)


if __name__ == '__main__':
    sys.exit(main())
