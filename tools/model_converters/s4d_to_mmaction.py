# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of S4DViT or S4DMAEViT into one of mmaction2's
VisionTransformer.

    python tools/model_converters/s4d_to_mmaction.py SRC DST
"""
import argparse
import os.path as osp
import sys

import s4d_mm
from s4d_mm.models.utils.vit_weights import to_mmaction_vit
from s4d_mm.models.utils.weights_file import (load_weights, print_unplaced,
                                              save_checkpoint)


def parse_args():
    parser = argparse.ArgumentParser(
        description=' '.join(__doc__.splitlines()[:2]))
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--img-size',
        type=int,
        default=160,
        help="the VisionTransformer's img_size (default 160)")
    parser.add_argument(
        '--num-frames',
        type=int,
        default=16,
        help="the VisionTransformer's num_frames (default 16)")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        result = to_mmaction_vit(
            load_weights(args.src), args.img_size, args.num_frames)
        save_checkpoint(
            dict(
                state_dict=result.weights,
                meta=dict(
                    converted_from=osp.basename(args.src),
                    s4d_mm_version=s4d_mm.__version__)), args.dst)
    except (ValueError, OSError) as e:
        print(f'{args.src}: {e}', file=sys.stderr)
        return 1
    print(f'{args.dst}: wrote {len(result.weights)} parameters.')
    for note in result.notes:
        print(f'  {note}')
    print_unplaced(result.unplaced, args.src)
    return 0


if __name__ == '__main__':
    sys.exit(main())
