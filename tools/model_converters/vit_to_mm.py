# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of another ViT into a start for S4DViT (docs/weights.md).

    python tools/model_converters/vit_to_mm.py SRC DST
"""
import argparse
import os.path as osp
import sys

import s4d_mm
from s4d_mm.models.utils.vit_keys import SOURCES
from s4d_mm.models.utils.vit_weights import from_vit
from s4d_mm.models.utils.weights_file import (load_weights, print_unplaced,
                                              save_checkpoint)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--source',
        choices=('auto', ) + SOURCES,
        default='auto',
        help='family of SRC; auto tells it from the keys')
    parser.add_argument(
        '--tubelet-size',
        type=int,
        help='frames of a tubelet, for weights of an image model (default 2)')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        result = from_vit(
            load_weights(args.src), args.source, args.tubelet_size)
        save_checkpoint(
            dict(
                state_dict=result.weights,
                meta=dict(
                    converted_from=osp.basename(args.src),
                    family=result.family,
                    s4d_mm_version=s4d_mm.__version__)), args.dst)
    except (ValueError, OSError) as e:
        print(f'{args.src}: {e}', file=sys.stderr)
        return 1
    print(f'{args.src}: keys of {result.family}.')
    print(f'{args.dst}: wrote {len(result.weights)} parameters.')
    for note in result.notes:
        print(f'  {note}')
    print_unplaced(result.unplaced, args.src)
    return 0


if __name__ == '__main__':
    sys.exit(main())
