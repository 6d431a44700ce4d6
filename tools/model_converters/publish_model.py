# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make a checkpoint smaller, to publish it: without the state of training, named by date and hash.

python tools/model_converters/publish_model.py IN_FILE OUT_FILE
"""

import os.path as osp
import sys

from command_line import make_parser


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--half', action='store_true', help='weights as 16-bit floats: half as big')
    args = parser.parse_args(argv)

    from s4d_mm.files.download import local_file
    from s4d_mm.weights.io import publish

    try:
        final = publish(args.src, args.dst, args.half)
        source = local_file(args.src)
    except (ImportError, OSError, ValueError) as e:
        sys.exit(str(e))
    sizes = ' of '.join(f'{osp.getsize(path) / 2**20:.1f} MiB' for path in (final, source))
    print(f'{final}: {sizes}. The config of the training, with its paths, is in it.')


if __name__ == '__main__':
    main()
