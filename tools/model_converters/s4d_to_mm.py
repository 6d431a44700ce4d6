# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S4D authors' code into one of s4d_mm, or back.

python tools/model_converters/s4d_to_mm.py SRC DST --stage finetune
"""

import argparse
import os.path as osp
import sys

import s4d_mm
from s4d_mm.converters.io import load_weights, print_unplaced, save_checkpoint
from s4d_mm.converters.s4d import STAGES, from_authors, to_authors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--stage', choices=STAGES, required=True, help='what SRC was for')
    parser.add_argument(
        '--reverse', action='store_true', help="turn s4d_mm's checkpoint into the authors'"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    convert = to_authors if args.reverse else from_authors
    try:
        weights, unplaced = convert(load_weights(args.src), args.stage)
        if args.reverse:
            checkpoint = dict(model=weights)
        else:
            checkpoint = dict(
                state_dict=weights,
                meta=dict(converted_from=osp.basename(args.src), s4d_mm_version=s4d_mm.__version__),
            )
        save_checkpoint(checkpoint, args.dst)
    except (ValueError, OSError) as e:
        print(f'{args.src}: {e}', file=sys.stderr)
        return 1
    print(f'{args.dst}: wrote {len(weights)} parameters.')
    print_unplaced(unplaced, args.src)
    return 0


if __name__ == '__main__':
    sys.exit(main())
